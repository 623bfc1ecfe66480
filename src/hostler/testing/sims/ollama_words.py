"""What a simulated Ollama understands, and the words that it answers with."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from hostler.kernel.units import Seconds
from hostler.testing.sims.knobs import chance
from hostler.testing.sims.ollama_knobs import OllamaKnobs

VOCABULARY: Final = ("the", "old", "light", "keeper", "sees", "a", "ship", "go", "by", "while", "rain", "falls")
_DURATION: Final = re.compile(r"(-?)(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?\Z")


class RefusedError(Exception):
    """The server says no before the first byte."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Asked(Struct, kw_only=True):
    """One request, as far as the server looks at it."""

    model: str = ""
    name: str | None = None
    """An older word for `model`."""
    stream: bool = True
    messages: list[dict[str, Any]] | None = None
    prompt: str | None = None
    input: Any = None
    tools: list[dict[str, Any]] | None = None
    think: Any = None
    format: Any = None
    options: dict[str, Any] | None = None
    keep_alive: str | float | None = None
    dimensions: int | None = None

    @property
    def full(self) -> str:
        """The model's name with its tag."""
        return full(self.model or self.name or "")

    @property
    def empty(self) -> bool:
        """Whether nothing is asked: then the model is loaded, or unloaded."""
        return not self.messages and not self.prompt

    def kept(self, knobs: OllamaKnobs) -> Seconds:
        """Return for how long the model is to stay loaded; below 0 for ever."""
        match self.keep_alive:
            case None:
                return knobs.keep_alive
            case str(text):
                found = _DURATION.match(text)
                if not text or found is None:
                    raise RefusedError(400, f'time: invalid duration "{text}"')
                sign, *parts = found.groups()
                value = sum(float(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
                return -value if sign else value
            case number:
                return number

    def texts(self) -> list[str]:
        """Return what is to be embedded."""
        match self.input:
            case None:
                return []
            case str(text):
                return [text] if text else []
            case list(texts) if all(isinstance(text, str) for text in texts):  # pyright: ignore[reportUnknownVariableType] - foreign JSON
                return texts  # pyright: ignore[reportUnknownVariableType] - foreign JSON
            case _:
                raise RefusedError(400, "invalid input type")

    def said(self) -> str:
        """Return all that the model is to read."""
        return self.prompt or "\n".join(str(message.get("content") or "") for message in self.messages or ())


def ask(body: bytes) -> Asked:
    """Read a request, which has to name a model."""
    try:
        asked = msgspec.json.decode(body, type=Asked)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RefusedError(400, str(error)) from None
    if not (asked.model or asked.name):
        raise RefusedError(400, "model is required")
    return asked


def full(model: str) -> str:
    """Return a model's name with its tag: what has none is `latest`."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def model_view(name: str, size: int) -> dict[str, Any]:
    """Return a model as lists show it."""
    details = {
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": f"{size / 6e8:.1f}B",
        "quantization_level": "Q4_0",
    }
    digest = "".join(f"{int(chance(0, name, part) * 16**8):08x}" for part in range(8))
    return {
        "name": name,
        "model": name,
        "modified_at": datetime(2026, 1, 1, tzinfo=UTC),
        "size": size,
        "digest": digest,
        "details": details,
    }


def vector(seed: int, text: str, size: int) -> list[float]:
    """Return numbers that follow from the text, of length 1 together."""
    raw = [chance(seed, text, place) - 0.5 for place in range(size)]
    length = sum(value * value for value in raw) ** 0.5 or 1.0
    return [value / length for value in raw]


async def answer_lines(
    asked: Asked, knobs: OllamaKnobs, *, chat: bool, load: Seconds
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the lines of an answer in the time that they take."""
    options: Mapping[str, Any] = asked.options or {}
    wanted = int(options.get("num_predict", -1))
    count = knobs.tokens if wanted < 0 else min(wanted, knobs.tokens)
    said = asked.said()
    head = {"model": asked.model or asked.name, "created_at": datetime.now(UTC)}

    def line(content: str, **more: Any) -> dict[str, Any]:
        if chat:
            return {**head, "message": {"role": "assistant", "content": content, **more}, "done": False}
        return {**head, "response": content, **more, "done": False}

    await asyncio.sleep(knobs.first_token)
    if asked.think:
        yield line("", thinking="Let me think.")
    tool = _tool(asked)
    if tool is not None:
        yield line("", tool_calls=[tool])
        count = 1
    else:
        for place, word in enumerate(_words(asked, knobs.seed, said, count)):
            if place:
                await asyncio.sleep(knobs.token)
            yield line(word)
    cut = 0 <= wanted < knobs.tokens and tool is None
    spent = {"prompt": knobs.first_token, "eval": knobs.token * count}
    yield {
        **line(""),
        "done": True,
        "done_reason": "length" if cut else "stop",
        "total_duration": int((load + sum(spent.values())) * 1e9),
        "load_duration": int(load * 1e9),
        "prompt_eval_count": len(said.split()),
        "prompt_eval_duration": int(spent["prompt"] * 1e9),
        "eval_count": count,
        "eval_duration": int(spent["eval"] * 1e9),
    }


def merged(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the answer to a request that wants no stream: the last line with the text of all."""
    last = lines[-1]
    if "message" not in last:
        return {**last, "response": "".join(line["response"] for line in lines)}
    messages = [line["message"] for line in lines]
    whole = {name: value for message in messages for name, value in message.items()}
    return {**last, "message": {**whole, "content": "".join(message["content"] for message in messages)}}


def _words(asked: Asked, seed: int, said: str, count: int) -> list[str]:
    if asked.format:
        return ['{"answer"', ": ", '"light"', "}"]
    picked = [VOCABULARY[int(chance(seed, said, place) * len(VOCABULARY))] for place in range(count)]
    return [word if place == 0 else f" {word}" for place, word in enumerate(picked)]


def _tool(asked: Asked) -> dict[str, Any] | None:
    """Return a call of the first tool, unless the last message is a tool's own."""
    if not asked.tools or not asked.messages or asked.messages[-1].get("role") != "user":
        return None
    function: dict[str, Any] = asked.tools[0].get("function") or {}
    parameters: dict[str, Any] = function.get("parameters") or {}
    wanted: dict[str, Any] = parameters.get("properties") or {}
    return {"function": {"name": function.get("name", ""), "arguments": dict.fromkeys(wanted, "sim")}}

"""From a payload in the words of the OpenAI API to a request in Ollama's."""

from typing import Any, Final, cast

import msgspec
from msgspec import Raw

from hostler.connectors.chat import CHAT, EMBED
from hostler.connectors.faults import fault
from hostler.connectors.services.ollama.messages import GENERATE
from hostler.contracts.failure import FailureClass
from hostler.kernel.units import Json

PATHS: Final = {CHAT: "/api/chat", GENERATE: "/api/generate", EMBED: "/api/embed"}
NOTHING: Final[dict[str, tuple[str, Json]]] = {CHAT: ("messages", []), GENERATE: ("prompt", ""), EMBED: ("input", [])}
"""The field of each request without which it only loads the model."""

_OPTIONS: Final = {
    "max_tokens": "num_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
"""Fields of the OpenAI API that are entries of `options` here."""


def request_of(
    kind: str, payload: Raw, *, model: str, keep_alive: str | float | None, num_ctx: int | None
) -> dict[str, Json]:
    """Return the body of the request; raises the fault of what this API cannot say."""
    fields = msgspec.json.decode(payload, type=dict[str, Any])
    given: Any = fields.pop("options", None) or {}
    if not isinstance(given, dict):
        raise fault(FailureClass.INVALID_INPUT, "options is an object")
    options: dict[str, Json] = {} if num_ctx is None else {"num_ctx": num_ctx}
    options |= {
        theirs: fields.pop(ours) for ours, theirs in _OPTIONS.items() if ours in fields and fields[ours] is not None
    }
    options |= cast("dict[str, Json]", given)
    kept = {name: value for name, value in fields.items() if name not in {*_OPTIONS, *_OURS} and value is not None}
    body: dict[str, Json] = {**kept, "model": model}
    if kind == CHAT:
        body["messages"] = [_message(message) for message in fields["messages"]]
    if "response_format" in fields:
        body.setdefault("format", _format(fields["response_format"]))
    if options:
        body["options"] = options
    if keep_alive is not None:
        body.setdefault("keep_alive", keep_alive)
    if kind != EMBED:
        body["stream"] = True
    return body


_OURS: Final = ("response_format", "encoding_format", "stream_options", "stream")


def load_request(kind: str, body: dict[str, Json]) -> dict[str, Json]:
    """Return the request that loads the same model in the same way and does nothing else."""
    field, nothing = NOTHING[kind]
    kept = {name: body[name] for name in ("model", "options", "keep_alive") if name in body}
    return {**kept, field: nothing, **({} if kind == EMBED else {"stream": False})}


def _message(message: dict[str, Json]) -> dict[str, Json]:
    """Return a message whose content is text, whose images stand apart, and whose tool calls have objects."""
    changed: dict[str, Json] = {name: value for name, value in message.items() if value is not None}
    if isinstance(content := message.get("content"), list):
        texts, images = _parts(cast("list[Any]", content))
        changed["content"] = "\n".join(texts)
        if images:
            changed["images"] = [*message.get("images", ()), *images]
    if isinstance(calls := message.get("tool_calls"), list):
        changed["tool_calls"] = [_tool_call(call) for call in cast("list[Any]", calls)]
    return changed


def _parts(content: list[Any]) -> tuple[list[str], list[str]]:
    texts: list[str] = []
    images: list[str] = []
    for part in content:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "image_url", "image_url": {"url": str(url)}} if url.startswith("data:") and ";base64," in url:
                images.append(url.partition(";base64,")[2])
            case _:
                raise fault(
                    FailureClass.INVALID_INPUT,
                    "Ollama takes parts of type text, and images as data: URLs in base64, not other parts of a message",
                )
    return texts, images


def _tool_call(call: Any) -> Any:
    match call:
        case {"function": {"arguments": str(text), **function}, **rest}:
            try:
                arguments = msgspec.json.decode(text or "{}", type=dict[str, Any])
            except msgspec.MsgspecError:
                raise fault(FailureClass.INVALID_INPUT, "arguments of a tool call are a JSON object") from None
            return {**rest, "function": {**function, "arguments": arguments}}
        case _:
            return call


def _format(wanted: Any) -> Json:
    match wanted:
        case {"type": "text"}:
            return ""
        case {"type": "json_object"}:
            return "json"
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return schema
        case _:
            raise fault(FailureClass.INVALID_INPUT, "response_format is of type text, json_object or json_schema")

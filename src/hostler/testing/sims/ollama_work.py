"""The work of a simulated Ollama: answers, vectors and pulls, and the troubles that they meet."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from hostler.testing.sims.effects import EffectLog, EffectType
from hostler.testing.sims.ollama_knobs import OllamaKnobs
from hostler.testing.sims.ollama_memory import BusyError, ModelMemory
from hostler.testing.sims.ollama_words import Asked, RefusedError, answer_lines, full, merged, model_view, vector

LINES = {"Content-Type": "application/x-ndjson"}
PULL_STEPS = 20
BUSY = (503, "server busy, please try again.  maximum pending requests exceeded")
_REFUSALS = {
    "server_busy": BUSY,
    "server_error": (500, "llama runner process has terminated: exit status 2"),
    "out_of_memory": (500, "model requires more system memory (9.9 GiB) than is available (1.0 GiB)"),
}


class OllamaWork:
    """What the server has, holds in memory and does."""

    def __init__(self, knobs: OllamaKnobs, effects: EffectLog) -> None:
        self.knobs = knobs
        self.effects = effects
        self.memory = ModelMemory(lambda: self.knobs)
        self._pulled: set[str] = set()
        self._deleted: set[str] = set()
        self._requests = 0

    def installed(self) -> dict[str, bool]:
        """Return every model, and whether it can do no more than embed."""
        knobs = self.knobs
        found = {**dict.fromkeys((*knobs.models, *sorted(self._pulled)), False), **dict.fromkeys(knobs.embedders, True)}
        return {full(name): embeds for name, embeds in found.items() if full(name) not in self._deleted}

    def view(self, model: str) -> dict[str, Any]:
        """Return a model as lists show it."""
        return model_view(model, self.knobs.size)

    def require(self, asked: Asked, *, does: str | None = None) -> None:
        """Refuse a request for a model that is not there, or that cannot do this."""
        installed = self.installed()
        if asked.full not in installed:
            raise RefusedError(404, f"model '{asked.model or asked.name}' not found")
        if does in {"chat", "generate"} and installed[asked.full]:
            raise RefusedError(400, f'"{asked.model}" does not support {does}')

    def add(self, model: str) -> None:
        """Install a model."""
        self._pulled.add(full(model))
        self._deleted.discard(full(model))

    def delete(self, model: str) -> None:
        """Remove a model."""
        self._pulled.discard(full(model))
        self._deleted.add(full(model))

    async def text(self, request: web.Request, asked: Asked, *, does: str) -> web.StreamResponse:
        """Answer a chat, or go on from a prompt; without either the model is loaded and that is all."""
        self.require(asked, does=does)
        kept = asked.kept(self.knobs)
        if asked.empty:
            return await self._load(asked, kept, chat=does == "chat")
        number, trouble = await self._admit()
        try:
            async with self.memory.use(asked.full, kept) as load:
                await self._effect("started", number, f"{does} {asked.full}")
                lines = answer_lines(asked, self.knobs, chat=does == "chat", load=load)
                return await self._say(request, asked, lines, trouble, number)
        except BusyError:
            raise RefusedError(*BUSY) from None

    async def embed(self, asked: Asked) -> web.StreamResponse:
        """Turn texts into vectors; without any the model is loaded and that is all."""
        self.require(asked)
        texts, kept = asked.texts(), asked.kept(self.knobs)
        number = (await self._admit())[0] if texts else 0
        try:
            async with self.memory.use(asked.full, kept) as load:
                if texts:
                    await self._effect("started", number, f"embed {asked.full}")
                    await asyncio.sleep(self.knobs.first_token)
                    await self._effect("finished", number)
        except BusyError:
            raise RefusedError(*BUSY) from None
        view = {
            "model": asked.model,
            "embeddings": [vector(self.knobs.seed, text, asked.dimensions or 16) for text in texts],
            "total_duration": int((load + self.knobs.first_token) * 1e9),
            "load_duration": int(load * 1e9),
            "prompt_eval_count": sum(len(text.split()) for text in texts),
        }
        return answer(view)

    async def pull(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        """Fetch a model, layer by layer."""
        lines = self._pull_lines(asked.full)
        if not asked.stream:
            last = [line async for line in lines][-1]
            if "error" in last:
                raise RefusedError(500, last["error"])
            return answer(last)
        response = web.StreamResponse(headers=LINES)
        await response.prepare(request)
        async for line in lines:
            await response.write(_line(line))
        return response

    async def _load(self, asked: Asked, kept: float, *, chat: bool) -> web.StreamResponse:
        try:
            async with self.memory.use(asked.full, kept):
                pass
        except BusyError:
            raise RefusedError(*BUSY) from None
        empty: dict[str, Any] = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
        reason = "unload" if kept == 0 else "load"
        view = {"model": asked.model, "created_at": datetime.now(UTC), **empty, "done": True, "done_reason": reason}
        return answer(view)

    async def _admit(self) -> tuple[int, str | None]:
        """Count a request for work; return its number and the trouble that it meets in mid-answer, if any."""
        self._requests += 1
        number = self._requests
        trouble = self.knobs.trouble(number)
        if trouble in _REFUSALS:
            await self._effect("refused", number, trouble)
            raise RefusedError(*_REFUSALS[trouble])
        return number, trouble

    async def _say(
        self,
        request: web.Request,
        asked: Asked,
        lines: AsyncGenerator[dict[str, Any]],
        trouble: str | None,
        number: int,
    ) -> web.StreamResponse:
        ended: EffectType = "cancelled"
        try:
            if not asked.stream and trouble is None:
                whole = [line async for line in lines]
                ended = "finished"
                return answer(merged(whole))
            response = web.StreamResponse(headers={"Content-Type": "text/html"} if trouble == "html" else LINES)
            await response.prepare(request)
            sent = 0
            async for line in lines:
                if trouble is not None and sent == min(2, self.knobs.tokens):
                    ended = "failed"
                    await _meet(trouble, request, response)
                    return response
                await response.write(_line(line))
                sent += 1
            ended = "finished"
            return response
        finally:
            await self._effect(ended, number, trouble)

    async def _pull_lines(self, model: str) -> AsyncGenerator[dict[str, Any]]:
        knobs = self.knobs
        yield {"status": "pulling manifest"}
        if model not in {*self.installed(), *map(full, knobs.library)}:
            yield {"error": "pull model manifest: file does not exist"}
            return
        for part, share in (("a" * 64, 0.9), ("b" * 64, 0.1)):
            total = int(knobs.size * share)
            words = {"status": f"pulling {part[:12]}", "digest": f"sha256:{part}", "total": total}
            for step in range(PULL_STEPS + 1):
                yield {**words, "completed": total * step // PULL_STEPS} if step else words
                await asyncio.sleep(knobs.pull * share / PULL_STEPS)
        for status in ("verifying sha256 digest", "writing manifest"):
            yield {"status": status}
        self.add(model)
        yield {"status": "success"}

    async def _effect(self, type_: EffectType, number: int, detail: str | None = None) -> None:
        await self.effects.append(type_, f"request-{number}", 0, 1, detail)


async def _meet(trouble: str, request: web.Request, response: web.StreamResponse) -> None:
    """Let an answer meet its trouble; one that is `unended` just ends here, and nothing says that it is done."""
    match trouble:
        case "error_line":
            await response.write(_line({"error": "an error was encountered while running the model: simulated"}))
        case "garbage":
            await response.write(b'{"model": "sim-ch\n')
        case "cut" if request.transport is not None:
            request.transport.abort()
        case "hang":
            await asyncio.Event().wait()
        case _:
            pass


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a whole JSON answer."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        headers=headers,
        content_type="application/json",
        charset="utf-8",
    )

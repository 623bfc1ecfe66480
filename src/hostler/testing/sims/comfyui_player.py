"""How the simulated ComfyUI executes one prompt: nodes, steps, messages, the cache that one leaves to the next."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from hostler.testing.sims.comfyui_knobs import ComfyuiKnobs
from hostler.testing.sims.comfyui_nodes import NodeClass, picture, signatures
from hostler.testing.sims.comfyui_rules import needed

File = tuple[str, str, str]
"""Folder (`input`, `output`, `temp`), subfolder, name."""
Item = tuple[float, str, dict[str, Any], dict[str, Any], list[str]]
"""A prompt in the queue, as `/queue` shows it: number, id, prompt, extra data, outputs to execute."""


class InterruptedRunError(Exception):
    """Somebody told the running prompt to stop."""


class RaisedError(Exception):
    """A node raised; `kind` is the full name of the exception's type."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Stage(Protocol):
    """Where a run's messages go; `sid` None is everybody."""

    async def send(self, run: "PromptRun", event: str, data: dict[str, Any], sid: str | None) -> None:
        """Send a message with JSON in it."""
        ...

    async def preview(self, run: "PromptRun", image: bytes, node_id: str, sid: str | None) -> None:
        """Send a preview picture."""
        ...

    async def queue_changed(self) -> None:
        """Tell everybody how long the queue is."""
        ...


class PromptRun:
    """One execution of one prompt."""

    def __init__(self, item: Item, *, number: int, knobs: ComfyuiKnobs) -> None:
        self.number, self.prompt_id, self.prompt, self.extra, self.outputs = item
        self.knobs = knobs
        self.run = number
        self.fate = knobs.fate(self.prompt_id, number)
        self.interrupted = asyncio.Event()
        self.messages: list[list[Any]] = []
        self.ui: dict[str, Any] = {}
        self.done: list[str] = []
        self.states: dict[str, dict[str, Any]] = {}
        self.sent = 0
        self.dropped = False
        self.node: str | None = None

    @property
    def modern(self) -> bool:
        """Whether its server speaks the new dialect."""
        return self.knobs.dialect == "new"

    @property
    def client(self) -> str | None:
        """The socket that hears of it."""
        client = self.extra.get("client_id")
        return client if isinstance(client, str) else None


class PromptPlayer:
    """Executes the nodes of prompts, one prompt at a time, with the cache that one leaves to the next."""

    def __init__(self, stage: Stage, files: Mapping[File, bytes], store: Callable[[File, bytes], None]) -> None:
        self._stage = stage
        self._files = files
        self._store = store
        self._cache: dict[str, Any] = {}
        """What the last run's nodes showed, by signature."""
        self._saved = 0

    def forget(self) -> None:
        """Empty the cache, as the server does when a node has raised."""
        self._cache.clear()

    def where(self, run: PromptRun) -> dict[str, Any]:
        """Return where a run is."""
        node_id = run.node or next(iter(run.prompt))
        return {"node_id": node_id, "node_type": run.prompt[node_id]["class_type"], "executed": list(run.done)}

    async def execute(self, run: PromptRun, classes: Mapping[str, NodeClass]) -> None:
        """Execute every node that the run's outputs need, and that the last run has not left behind."""
        signed = signatures(run.prompt, self._files)
        order = list(dict.fromkeys(node_id for output in run.outputs for node_id in needed(run.prompt, output)))
        cached = [node_id for node_id in order if signed[node_id] in self._cache]
        fresh: dict[str, Any] = {}
        await self.say(run, "execution_start", {})
        await self.say(run, "execution_cached", {"nodes": cached})
        for node_id in order:
            run.node = node_id
            known = classes[run.prompt[node_id]["class_type"]]
            if node_id in cached:
                shown = self._cache[signed[node_id]]
            else:
                await self.tell(run, "executing", {"node": node_id, "display_node": node_id})
                shown = await self._node(run, node_id, known, signed)
            fresh[signed[node_id]] = shown
            run.done.append(node_id)
            if shown is not None:
                run.ui[node_id] = shown
                await self.tell(run, "executed", {"node": node_id, "display_node": node_id, "output": shown})
        self._cache = fresh

    async def _node(self, run: PromptRun, node_id: str, known: NodeClass, signed: dict[str, str]) -> Any:
        """Execute one node; return what it shows, if anything."""
        if run.interrupted.is_set():
            raise InterruptedRunError
        inputs = run.prompt[node_id].get("inputs", {})
        if known.samples:
            await self._sample(run, node_id, int(inputs["steps"]), signed[node_id])
            return None
        if "Loader" in str(run.prompt[node_id]["class_type"]):
            await asyncio.sleep(run.knobs.load)
        await self._progress(run, node_id, 1, 1)
        match run.prompt[node_id]["class_type"]:
            case "SaveImage":
                return {"images": [self._save(run, str(inputs["filename_prefix"]), "output", signed[node_id])]}
            case "PreviewImage":
                return {"images": [self._save(run, "ComfyUI_temp", "temp", signed[node_id])]}
            case "PreviewAny":
                return {"text": [str(inputs["source"])]}
            case _:
                return None

    async def _sample(self, run: PromptRun, node_id: str, steps: int, signature: str) -> None:
        pause = run.knobs.duration / run.knobs.steps
        for step in range(1, steps + 1):
            half = 2 * step > steps
            if run.fate.hangs and half:
                await run.interrupted.wait()
            await asyncio.sleep(pause)
            if run.interrupted.is_set():
                raise InterruptedRunError
            if run.fate.failure is not None and half:
                if run.fate.failure == "out_of_memory":
                    raise RaisedError("torch.OutOfMemoryError", "Allocation on device ")
                raise RaisedError("RuntimeError", "simulated: internal_error")
            await self._progress(run, node_id, step, steps)
            if run.knobs.previews:
                sid = run.client
                await self._stage.preview(run, picture(signature, size=run.knobs.preview_bytes), node_id, sid)

    async def _progress(self, run: PromptRun, node_id: str, value: int, most: int) -> None:
        if run.modern:
            state = "finished" if value == most else "running"
            names = ("node_id", "display_node_id", "real_node_id")
            run.states[node_id] = {"value": value, "max": most, "state": state, "prompt_id": run.prompt_id}
            run.states[node_id] |= dict.fromkeys(names, node_id) | {"parent_node_id": None}
            await self.say(run, "progress_state", {"nodes": run.states}, kept=False, everybody=run.client is None)
        if most > 1:
            data = {"value": value, "max": most, "node": node_id}
            await self.say(run, "progress", data, kept=False, everybody=run.client is None)

    def _save(self, run: PromptRun, prefix: str, folder: str, signature: str) -> dict[str, str]:
        self._saved += 1
        subfolder, _, stem = prefix.rpartition("/")
        name = f"{stem}_{self._saved:05}_.png"
        self._store((folder, subfolder, name), picture(signature, size=run.knobs.image_bytes))
        return {"filename": name, "subfolder": subfolder, "type": folder}

    async def say(
        self,
        run: PromptRun,
        event: str,
        data: dict[str, Any],
        *,
        kept: bool = True,
        everybody: bool = False,
        silent: bool = False,
    ) -> None:
        """Send a message of a run; those of its course are kept for the history."""
        told = {"prompt_id": run.prompt_id, **data}
        if kept:
            told["timestamp"] = int(time.time() * 1000)
            run.messages.append([event, told])
        if silent or (run.client is None and not everybody):
            return
        await self._stage.send(run, event, told, run.client)

    async def tell(self, run: PromptRun, event: str, data: dict[str, Any]) -> None:
        """Send a message that goes to the prompt's own socket alone, and is not kept."""
        if run.client is not None:
            await self._stage.send(run, event, {**data, "prompt_id": run.prompt_id}, run.client)

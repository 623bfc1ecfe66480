"""The work of the simulated ComfyUI: one queue, one prompt at a time, a history, files."""

import asyncio
import heapq
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from hostler.testing.sims.comfyui_knobs import ComfyuiKnobs
from hostler.testing.sims.comfyui_nodes import NodeClass, node_classes
from hostler.testing.sims.comfyui_player import (
    File,
    InterruptedRunError,
    Item,
    PromptPlayer,
    PromptRun,
    RaisedError,
    Stage,
)
from hostler.testing.sims.effects import EffectLog

HISTORY_MAX: Final = 10_000
FILES_MAX: Final = 10_000
"""Files of all folders together; the oldest go first."""


class ComfyuiWork:
    """Queues, runs, interrupts and remembers prompts."""

    def __init__(self, knobs: ComfyuiKnobs, effects: EffectLog, stage: Stage) -> None:
        self.knobs = knobs
        self.effects = effects
        self.files: OrderedDict[File, bytes] = OrderedDict()
        self.history: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.running: PromptRun | None = None
        self.latest: PromptRun | None = None
        """What ran last, or runs."""
        self._stage = stage
        self._player = PromptPlayer(stage, self.files, self.store)
        self._heap: list[tuple[float, int, Item]] = []
        self._numbers = 0
        self._orders = 0
        self._counts: dict[str, int] = {}
        self._more = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    @property
    def modern(self) -> bool:
        """Whether it speaks the new dialect."""
        return self.knobs.dialect == "new"

    def classes(self) -> Mapping[str, NodeClass]:
        """Return the node classes that are there now."""
        pictures = tuple(
            f"{subfolder}/{name}".lstrip("/") for folder, subfolder, name in self.files if folder == "input"
        )
        return node_classes(self.knobs.models, pictures)

    def start(self) -> None:
        """Begin to work."""
        self._worker = asyncio.create_task(self._work(), name="comfyui queue")

    async def close(self) -> None:
        """Stop everything, as a service that is switched off does: without a word."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})

    def put(self, prompt_id: str, body: Mapping[str, Any], outputs: tuple[str, ...]) -> float:
        """Queue a prompt; return its number, lower runs first."""
        if "number" in body:
            number = float(body["number"])
        else:
            number = float(-self._numbers if body.get("front") else self._numbers)
            self._numbers += 1
        extra = dict(body.get("extra_data") or {})
        if "client_id" in body:
            extra["client_id"] = body["client_id"]
        if self.modern:
            extra["create_time"] = int(time.time() * 1000)
        self._orders += 1
        heapq.heappush(self._heap, (number, self._orders, (number, prompt_id, body["prompt"], extra, list(outputs))))
        self._more.set()
        return number

    def waiting(self) -> list[Item]:
        """Return what waits, next first."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2])]

    def remaining(self) -> int:
        """Return how many prompts wait or run."""
        return len(self._heap) + (self.running is not None)

    def delete(self, prompt_id: str) -> bool:
        """Take a prompt out of the queue; what runs is not touched."""
        kept = [entry for entry in self._heap if entry[2][1] != prompt_id]
        found = len(kept) < len(self._heap)
        self._heap = kept
        heapq.heapify(self._heap)
        return found

    def clear(self) -> None:
        """Take everything out of the queue that does not run yet."""
        self._heap.clear()

    def interrupt(self, prompt_id: str | None = None) -> bool:
        """Stop what runs, at its next step; with an id only when that runs."""
        run = self.running
        if run is None or (prompt_id is not None and run.prompt_id != prompt_id):
            return False
        run.interrupted.set()
        return True

    def store(self, file: File, body: bytes) -> None:
        """Keep a file."""
        self.files[file] = body
        self.files.move_to_end(file)
        while len(self.files) > FILES_MAX:
            self.files.popitem(last=False)

    async def _work(self) -> None:
        while True:
            while not self._heap:
                self._more.clear()
                await self._more.wait()
            item = heapq.heappop(self._heap)[2]
            number = self._counts[item[1]] = self._counts.get(item[1], 0) + 1
            run = self.running = self.latest = PromptRun(item, number=number, knobs=self.knobs)
            try:
                await self._run(run)
            finally:
                self.running = None
            if not run.fate.missed:
                await self._player.tell(run, "executing", {"node": None})
            await self._stage.queue_changed()

    async def _run(self, run: PromptRun) -> None:
        """Run a prompt to its end and put it into the history; nothing that it meets stops the queue."""
        await self.effects.append("started", run.prompt_id, 0, run.run)
        status = "success"
        try:
            await self._player.execute(run, self.classes())
            await self.effects.append("finished", run.prompt_id, 0, run.run)
            if self.modern:
                await self._player.say(run, "execution_success", {}, silent=run.fate.missed)
        except InterruptedRunError:
            status = "error"
            await self.effects.append("cancelled", run.prompt_id, 0, run.run)
            where = self._player.where(run)
            await self._player.say(run, "execution_interrupted", where, everybody=run.client is None)
        except Exception as error:  # noqa: BLE001 - whatever a graph makes of a node, the queue goes on
            kind = error.kind if isinstance(error, RaisedError) else type(error).__name__
            status = "error"
            await self.effects.append("failed", run.prompt_id, 0, run.run, kind)
            self._player.forget()
            raised: dict[str, Any] = {
                "exception_message": f"{error}\n",
                "exception_type": kind,
                "traceback": [f"{kind}: {error}\n"],
                "current_inputs": {},
                "current_outputs": list(run.done),
            }
            await self._player.say(run, "execution_error", {**self._player.where(run), **raised})
        self.history[run.prompt_id] = {
            "prompt": [run.number, run.prompt_id, run.prompt, run.extra, run.outputs],
            "outputs": run.ui,
            "status": {"status_str": status, "completed": status == "success", "messages": run.messages},
            "meta": {node_id: {"node_id": node_id, "display_node": node_id} for node_id in run.ui},
        }
        while len(self.history) > HISTORY_MAX:
            self.history.popitem(last=False)

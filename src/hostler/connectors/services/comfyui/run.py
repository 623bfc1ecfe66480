"""One prompt of ours in a ComfyUI server: followed, fetched, stopped, and nobody else's touched.

The socket only makes things quicker. What it says of an end is looked up, what it does not say is found by asking,
and when it fails nothing else does.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec
from msgspec import Struct

from hostler.connectors.faults import ServiceFaultError, failure, off_protocol
from hostler.connectors.follow import ENDED, Signal
from hostler.connectors.services.comfyui.files import FileTransfer, texts_of
from hostler.connectors.services.comfyui.judge import ended_badly
from hostler.connectors.services.comfyui.messages import HistoryEntry, SocketMessage, WorkflowResult
from hostler.connectors.services.comfyui.previews import preview_in
from hostler.connectors.services.comfyui.server import ComfyuiServer, Sight
from hostler.connectors.services.comfyui.story import Story
from hostler.connectors.transports.conversation import Limits
from hostler.connectors.transports.http import segment
from hostler.connectors.transports.websocket import WebsocketTransport
from hostler.contracts.failure import FailureClass
from hostler.contracts.job import Progress
from hostler.contracts.service import Failed, Finished, RemoteRef, RemoteState
from hostler.kernel.units import Bytes, Seconds

HELLO: Final = b'{"type":"feature_flags","data":{"supports_preview_metadata":true}}'
"""Makes newer servers name the prompt that a preview belongs to; older ones ignore it."""
ALIVE: Final = frozenset({RemoteState.PENDING, RemoteState.RUNNING})
FENCES: Final = "hostler"
"""Subfolder of the server's temp folder that holds the fences of prompts that were taken over."""
FENCE_LIMIT: Final[Bytes] = 64
_PASSING: Final = frozenset({FailureClass.TRANSIENT, FailureClass.TIMEOUT, FailureClass.OVERLOADED})
STOPPED_MAX: Final = 1_000
AGAIN: Final = 20
"""Looks between two words to stop, for a prompt that did not hear the first."""


class Stopped:
    """Prompts that were stopped from here: one that never ran leaves no trace in the history."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, prompt_id: str) -> None:
        """Remember one; the oldest of many are forgotten."""
        self._ids[prompt_id] = None
        while len(self._ids) > STOPPED_MAX:
            self._ids.popitem(last=False)

    def judged(self, sight: Sight) -> Sight:
        """Return what is seen of a prompt, knowing why it may be gone."""
        if sight.state is RemoteState.LOST and sight.prompt_id in self._ids:
            return msgspec.structs.replace(sight, state=RemoteState.CANCELLED)
        return sight


class Tools(Struct, frozen=True, kw_only=True):
    """What all prompts of a connector share."""

    server: ComfyuiServer
    socket: WebsocketTransport
    limits: Limits
    files: FileTransfer
    stopped: Stopped
    within: Seconds
    """How long a prompt may take to stop."""
    previews: bool
    """Whether its pictures are passed on while it runs."""


class ComfyuiRun:
    """One prompt, as `RemoteWork`; the history is believed, whatever else was heard or not heard."""

    def __init__(self, tools: Tools, ref: RemoteRef, *, silence: Seconds | None = None) -> None:
        """Take the prompt, and how long a file may stop arriving."""
        self._tools = tools
        self._ref = ref
        self._silence = silence
        self._story = Story(ref.id)
        self._client = ref.id if tools.server.takes_ids else None
        """Whose socket hears of it."""
        self._ended: Sight | None = None
        self._deaf = False
        """The socket is refused: something between does not carry it."""

    async def signals(self, cursor: str | None) -> AsyncGenerator[Signal]:  # noqa: ARG002 - the socket repeats nothing
        """Listen to the socket of the client that queued the prompt."""
        if self._client is None:
            yield (first := await self.status())
            if first.state in ENDED:
                return
        if self._client is None or self._deaf:
            return
        opened = False
        try:
            target = f"/ws?clientId={segment(self._client)}"
            async with self._tools.socket.conversation(target, HELLO, limits=self._tools.limits) as talk:
                opened = True
                yield await self.status()  # what happened before there was anybody to hear it
                async with aclosing(talk.messages()) as messages:
                    async for message in messages:
                        if (signal := await self._heard(message)) is not None:
                            yield signal
        except ServiceFaultError as error:
            self._deaf = not opened and error.failure.class_ not in _PASSING

    async def _heard(self, message: bytes) -> Signal | None:
        """Return what a message says of this prompt, if anything."""
        if not message.startswith(b"{"):
            return self._shown(message)
        try:
            said = msgspec.json.decode(message, type=SocketMessage)
        except (msgspec.MsgspecError, UnicodeError):
            return None  # nodes of others send what they like
        data = said.data
        if said.type == "executing" and "prompt_id" not in data and data.get("node") is not None:
            # To a client that comes back, whose prompt runs, ComfyUI says at which node it is, and not of which prompt.
            data = {**data, "prompt_id": self._ref.id}
        if data.get("prompt_id") != self._ref.id:
            return None
        if not self._story.hear(said.type, data):
            return Signal(state=RemoteState.RUNNING, progress=self._story.progress())
        rest = Rest(self._tools.within)
        while await rest.more():  # the history is written after the message that says that it is over
            if (signal := await self.status()).state in ENDED:
                return signal
        return None

    def _shown(self, message: bytes) -> Signal | None:
        preview = None
        if self._tools.previews:
            preview = preview_in(message, self._ref.id, running=self._story.runs)
        return None if preview is None else Signal(state=RemoteState.RUNNING, preview=preview)

    async def look(self) -> Sight:
        """Return how it is; what the history said stays."""
        if self._ended is None:
            sight = self._tools.stopped.judged(await self._tools.server.look(self._ref.id))
            if sight.entry is None:
                return sight
            self._ended = sight
        return self._ended

    async def status(self) -> Signal:
        """Ask queue and history."""
        sight = await self.look()
        self._client = self._client or sight.client
        if not self._story.knows_graph:
            self._story.learn(sight.graph)
        if sight.state is RemoteState.PENDING:
            waits = f"{sight.before} before it" if sight.before else "next"
            return Signal(state=sight.state, progress=Progress(stage="queued", message=waits))
        if sight.state is RemoteState.RUNNING:
            self._story.begin()
            return Signal(state=sight.state, progress=self._story.progress())
        return Signal(state=sight.state)

    async def outcome(self) -> Finished | Failed:
        """Read the history, and fetch what the prompt made."""
        sight = await self.look()
        if sight.state not in ENDED:
            raise off_protocol(f"ComfyUI called the prompt ended, and its queue says {sight.state}")
        if sight.state is RemoteState.LOST:
            return Failed(failure=failure(FailureClass.LOST, "ComfyUI knows nothing of the prompt: it was restarted"))
        if sight.entry is None:
            return Failed(failure=failure(FailureClass.CANCELLED, "it was stopped before it ran"))
        if sight.state is not RemoteState.SUCCEEDED:
            return Failed(failure=ended_badly(sight.entry))
        result = WorkflowResult(
            prompt_id=self._ref.id,
            artifacts=await self._tools.files.fetch_all(sight.entry, silence=self._silence),
            texts=texts_of(sight.entry),
            cached=_cached(sight.entry),
            execution_s=_execution(sight.entry),
        )
        return Finished(result=msgspec.Raw(msgspec.json.encode(result)))

    async def stop(self) -> bool:
        """Stop it if it is ours; True when it has ended."""
        if await self._superseded():
            return False
        rest = Rest(self._tools.within)
        acted: RemoteState | None = None
        looks = 0
        while await rest.more():
            looks += 1
            sight = await self.look()
            if sight.state in ENDED:
                return True
            if sight.mark is None or sight.mark.job != self._ref.job_id or sight.mark.fence > self._ref.fence:
                return False
            if sight.state is not acted or looks % AGAIN == 0:
                self._tools.stopped.add(self._ref.id)
                await self._tools.server.tell(sight)
                acted = sight.state
        return False

    async def take_over(self, sight: Sight) -> None:
        """Leave a word on the server that lower fences hold it no more; it has no place of its own for that."""
        if sight.mark is None or sight.mark.fence >= self._ref.fence or await self._holder() >= self._ref.fence:
            return
        await self._tools.server.upload(
            str(self._ref.fence).encode(),
            name=self._fence_file,
            subfolder=FENCES,
            folder="temp",
            overwrite=True,
            within=self._tools.within,
        )

    async def forget(self) -> None:
        """Stop it if it goes on, and take it out of the history, unless a higher fence holds it."""
        if await self._superseded():
            return
        if (await self._tools.server.queue()).find(self._ref.id) is not None:
            await self.stop()
        await self._tools.server.forget(self._ref.id)

    @property
    def _fence_file(self) -> str:
        return f"{hashlib.sha256(self._ref.id.encode()).hexdigest()[:32]}.fence"

    async def _superseded(self) -> bool:
        return await self._holder() > self._ref.fence

    async def _holder(self) -> int:
        """Return the highest fence that took the prompt over, 0 when none did."""
        try:
            word = await self._tools.server.view(
                self._fence_file, subfolder=FENCES, folder="temp", limit=FENCE_LIMIT, silence=self._tools.within
            )
        except ServiceFaultError as error:
            if error.failure.class_ is FailureClass.LOST:
                return 0
            raise
        return int(word) if word.isdigit() else 0


class Rest:
    """Pauses that grow, until a time is up."""

    def __init__(self, seconds: Seconds) -> None:
        loop = asyncio.get_running_loop()
        self._end = loop.time() + seconds
        self._pause = 0.0

    async def more(self) -> bool:
        """Pause; False at once when the time is up."""
        left = self._end - asyncio.get_running_loop().time()
        if left <= 0:
            return False
        await asyncio.sleep(min(self._pause, left))
        self._pause = min(max(self._pause * 2, 0.01), 0.5)
        return True


def _messages(entry: HistoryEntry) -> list[tuple[str, dict[str, Any]]]:
    return entry.status.messages if entry.status is not None else []


def _cached(entry: HistoryEntry) -> tuple[str, ...]:
    for event, data in _messages(entry):
        if event == "execution_cached" and isinstance(data.get("nodes"), list):
            return tuple(str(node) for node in data["nodes"])
    return ()


def _execution(entry: HistoryEntry) -> Seconds | None:
    times: Mapping[str, Any] = {event: data.get("timestamp") for event, data in _messages(entry)}
    began, ended = times.get("execution_start"), times.get("execution_success")
    if not isinstance(began, int | float) or not isinstance(ended, int | float):
        return None
    return max(0.0, (ended - began) / 1000)

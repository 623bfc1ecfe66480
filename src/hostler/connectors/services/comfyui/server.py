"""ComfyUI's HTTP API, call by call; every call raises `ServiceFaultError` when it cannot."""

import asyncio
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from hostler.connectors.faults import ServiceFaultError, fault, off_protocol
from hostler.connectors.services.comfyui.judge import refused, state_of
from hostler.connectors.services.comfyui.messages import (
    CancelledAnswer,
    DepthAnswer,
    HistoryEntry,
    NodeInfo,
    PromptAnswer,
    QueueAnswer,
    QueueItem,
    StatsAnswer,
    UploadAnswer,
)
from hostler.connectors.transports.http import HttpTransport, segment
from hostler.contracts.failure import FailureClass
from hostler.contracts.service import RemoteState
from hostler.kernel.units import Bytes, Json, Seconds

LISTING_LIMIT: Final[Bytes] = 67_108_864
"""Largest `/object_info`, `/queue` and `/history` that is read: each may hold every node or every graph."""
RECENT: Final = 16
"""Prompts of the history that are searched for one whose id is not known."""
BOUNDARY: Final = "hostler-7d1c4c1e5b8f4d0aa0f6d1f0a2b9c3e4"
MARK: Final = "hostler"
"""Our part of a prompt's `extra_data`."""


class Mark(Struct, frozen=True, kw_only=True):
    """What a prompt of ours says about itself."""

    job: str
    fence: int
    work: str
    """Digest of the payload: two fabrics may have a job of one name."""


class Sight(Struct, frozen=True, kw_only=True):
    """A prompt as queue or history show it."""

    prompt_id: str
    state: RemoteState
    before: int = 0
    """Prompts before it, while it waits."""
    graph: dict[str, Any] = {}
    client: str | None = None
    """The client id whose socket hears of it."""
    mark: Mark | None = None
    entry: HistoryEntry | None = None


class Lineup(Struct, frozen=True, kw_only=True):
    """Everything in the queue."""

    sights: tuple[Sight, ...]

    def find(self, prompt_id: str) -> Sight | None:
        """Return the prompt of this id."""
        return next((sight for sight in self.sights if sight.prompt_id == prompt_id), None)

    def attempt(self, mark: Mark) -> Sight | None:
        """Return the prompt of exactly this attempt."""
        return next((sight for sight in self.sights if sight.mark == mark), None)

    def ours(self, mark: Mark) -> Sight | None:
        """Return a prompt for the same work of the same job, of this attempt or an earlier one."""
        for sight in self.sights:
            found = sight.mark
            if found is not None and (found.job, found.work) == (mark.job, mark.work) and found.fence <= mark.fence:
                return sight
        return None


class ComfyuiServer:
    """One server; the unprefixed routes are used, since every version has them."""

    def __init__(self, http: HttpTransport, *, within: Seconds) -> None:
        self._http = http
        self._within = within
        self._jobs: bool | None = None
        """Whether it has `/api/jobs`; None until that was asked."""
        self.takes_ids: bool | None = None
        """Whether prompts get the ids that we give them (since the middle of 2025); None until one was queued."""

    async def submit(self, body: dict[str, Json], *, within: Seconds) -> PromptAnswer:
        """Queue a prompt."""
        answer = await self._http.call("POST", "/prompt", body=msgspec.json.encode(body), within=within)
        if answer.status == _REFUSED and (failure := refused(answer.body)) is not None:
            raise ServiceFaultError(failure)
        found = answer.expect().json(PromptAnswer)
        self.takes_ids = found.prompt_id == body["prompt_id"]
        return found

    async def queue(self) -> Lineup:
        """Return what runs and what waits, next first."""
        answer = await self._http.call("GET", "/queue", within=self._within, limit=LISTING_LIMIT)
        found = answer.expect().json(QueueAnswer)
        running = [_queued(item, RemoteState.RUNNING, 0) for item in found.queue_running]
        waiting = sorted(found.queue_pending, key=_number)
        return Lineup(
            sights=(
                *running,
                *(_queued(item, RemoteState.PENDING, len(running) + place) for place, item in enumerate(waiting)),
            )
        )

    async def history(self, prompt_id: str) -> Sight | None:
        """Return an ended prompt."""
        path = f"/history/{segment(prompt_id)}"
        answer = await self._http.call("GET", path, within=self._within, limit=LISTING_LIMIT)
        entry = answer.expect().json(dict[str, HistoryEntry]).get(prompt_id)
        return None if entry is None else _ended(prompt_id, entry)

    async def recent(self) -> Lineup:
        """Return the newest prompts of the history."""
        path = f"/history?max_items={RECENT}"
        answer = await self._http.call("GET", path, within=self._within, limit=LISTING_LIMIT)
        entries = answer.expect().json(dict[str, HistoryEntry])
        return Lineup(sights=tuple(_ended(prompt_id, entry) for prompt_id, entry in entries.items()))

    async def look(self, prompt_id: str) -> Sight:
        """Return how a prompt is.

        A prompt moves from the queue to the history at once, so the queue is asked first: what has left it by
        then, and is not in the history, is lost.
        """
        lineup = await self.queue()
        return (
            lineup.find(prompt_id)
            or await self.history(prompt_id)
            or Sight(prompt_id=prompt_id, state=RemoteState.LOST)
        )

    async def tell(self, sight: Sight) -> None:
        """Tell a prompt that waits or runs to stop, and no other one."""
        if await self.has_jobs():
            path = f"/api/jobs/{segment(sight.prompt_id)}/cancel"
            answer = await self._http.call("POST", path, body=b"{}", within=self._within)
            answer.expect().json(CancelledAnswer)
        elif sight.state is RemoteState.PENDING:
            await self._post("/queue", {"delete": [sight.prompt_id]})
        else:
            # Servers before September 2025 do not read the id and stop whatever runs: `sight` has to be fresh.
            await self._post("/interrupt", {"prompt_id": sight.prompt_id})

    async def has_jobs(self) -> bool:
        """Tell whether the server has the jobs API, whose cancel never strikes another prompt."""
        if self._jobs is None:
            answer = await self._http.call("GET", "/api/jobs?limit=1", within=self._within, limit=LISTING_LIMIT)
            self._jobs = answer.ok
        return self._jobs

    async def forget(self, prompt_id: str) -> None:
        """Take a prompt out of the history."""
        await self._post("/history", {"delete": [prompt_id]})

    async def depth(self) -> int:
        """Return how many prompts run or wait."""
        answer = await self._http.call("GET", "/prompt", within=self._within)
        return answer.expect().json(DepthAnswer).exec_info.queue_remaining

    async def stats(self) -> StatsAnswer:
        """Return what machine and software it is."""
        answer = await self._http.call("GET", "/system_stats", within=self._within)
        return answer.expect().json(StatsAnswer)

    async def nodes(self) -> dict[str, NodeInfo]:
        """Return its node classes; takes long, since it looks through all folders of models."""
        answer = await self._http.call("GET", "/object_info", within=max(self._within, 30.0), limit=LISTING_LIMIT)
        answer.expect()
        return await asyncio.to_thread(answer.json, dict[str, NodeInfo])

    async def upload(
        self, body: bytes, *, name: str, subfolder: str, folder: str, overwrite: bool, within: Seconds
    ) -> UploadAnswer:
        """Put a file into one of the server's folders."""
        fields = {"type": folder, "subfolder": subfolder, "overwrite": "true" if overwrite else "false"}
        answer = await self._http.call(
            "POST",
            "/upload/image",
            body=_multipart(body, name, fields),
            headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
            within=within,
        )
        if answer.status == _TOO_LARGE:
            raise fault(FailureClass.INVALID_INPUT, f"a file of {len(body)} bytes is larger than ComfyUI takes")
        return answer.expect().json(UploadAnswer)

    async def view(self, name: str, *, subfolder: str, folder: str, limit: Bytes, silence: Seconds | None) -> bytes:
        """Return a file; `lost` when the server has it no more."""
        query = urlencode({"filename": name, "subfolder": subfolder, "type": folder})
        async with self._http.stream(
            "GET", f"/view?{query}", first_byte=max(self._within, 30.0), silence=silence, limit=limit
        ) as stream:
            if stream.status == _ABSENT:
                raise fault(FailureClass.LOST, f"ComfyUI no longer has {folder} file {name}")
            return await stream.read()

    async def _post(self, path: str, body: dict[str, Json]) -> None:
        answer = await self._http.call("POST", path, body=msgspec.json.encode(body), within=self._within)
        answer.expect()


_REFUSED: Final = 400
_ABSENT: Final = 404
_TOO_LARGE: Final = 413


def _number(item: list[Any]) -> float:
    return item[0] if item and isinstance(item[0], int | float) else 0.0


def _queued(item: list[Any], state: RemoteState, before: int) -> Sight:
    try:
        _, prompt_id, graph, extra = msgspec.convert(item[:4], QueueItem)
    except msgspec.ValidationError as error:
        raise off_protocol(f"ComfyUI's queue holds something that is no prompt: {error}") from None
    return _sight(prompt_id, state, graph, extra, before=before)


def _ended(prompt_id: str, entry: HistoryEntry) -> Sight:
    try:
        _, _, graph, extra = msgspec.convert(entry.prompt[:4], QueueItem)
    except msgspec.ValidationError:
        return Sight(prompt_id=prompt_id, state=state_of(entry), entry=entry)
    return _sight(prompt_id, state_of(entry), graph, extra, entry=entry)


def _sight(
    prompt_id: str,
    state: RemoteState,
    graph: dict[str, Any],
    extra: dict[str, Any],
    *,
    before: int = 0,
    entry: HistoryEntry | None = None,
) -> Sight:
    client = extra.get("client_id")
    try:
        mark = msgspec.convert(extra[MARK], Mark) if MARK in extra else None
    except msgspec.ValidationError:
        mark = None
    return Sight(
        prompt_id=prompt_id,
        state=state,
        before=before,
        graph=graph,
        client=client if isinstance(client, str) else None,
        mark=mark,
        entry=entry,
    )


def _multipart(body: bytes, name: str, fields: dict[str, str]) -> bytes:
    """Write a form with a file; names are ours, so nothing in them needs quoting."""
    edge = f"--{BOUNDARY}\r\n".encode()
    parts = [
        edge + f'Content-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in fields.items()
    ]
    head = f'Content-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: application/octet-stream'
    return b"".join([*parts, edge, head.encode(), b"\r\n\r\n", body, f"\r\n--{BOUNDARY}--\r\n".encode()])

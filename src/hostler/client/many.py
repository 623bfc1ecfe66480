"""Lists, queues, dead jobs, workers and blobs: the parts of a fleet."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import msgspec

from hostler.client.wire import Wire
from hostler.contracts.api import (
    EVERY_JOB,
    Action,
    ActionReport,
    ActionVerb,
    Because,
    Commanded,
    JobFilter,
    Listing,
    Reconfigured,
    Selection,
    WorkerVerb,
)
from hostler.contracts.job import BlobRef, Job
from hostler.contracts.queue import QueueView
from hostler.contracts.result import CacheClear, CacheCleared, CacheView
from hostler.contracts.worker import Worker
from hostler.kernel.units import Json

T = TypeVar("T")


class Which(TypedDict, total=False):
    """Jobs of an action: exactly one of `ids`, `filter` and `all`."""

    ids: Sequence[str]
    filter: JobFilter
    all: bool
    dry_run: bool
    reason: str


async def pages(wire: Wire, path: str, kind: type[Listing[T]], query: dict[str, Any]) -> AsyncIterator[T]:
    """Yield the items of all pages of a list."""
    cursor: str | None = None
    while True:
        page = await wire.read(path, kind, query={**query, "cursor": cursor})
        for item in page.items:
            yield item
        cursor = page.next
        if cursor is None:
            return


async def act(wire: Wire, path: str, body: Selection) -> ActionReport:
    """Send an action, and go on with it until nothing is left; return all that was done."""
    found = await wire.change(path, body, ActionReport)
    items = list(found.items)
    done, failed = found.done, found.failed
    while found.next is not None:
        found = await wire.change(path, msgspec.structs.replace(body, cursor=found.next), ActionReport)
        items.extend(found.items)
        done, failed = done + found.done, failed + found.failed
    return msgspec.structs.replace(found, items=tuple(items), matched=len(items), done=done, failed=failed, next=None)


def narrowed(which: JobFilter) -> dict[str, Any]:
    """Return a filter as query parameters, without those that only the list of all jobs has."""
    return {
        "queue": which.queue,
        "kind": which.kind,
        "tenant": which.tenant,
        "label": [f"{key}={value}" for key, value in which.labels.items()],
        "error_class": which.error_class,
        "ended_since": which.ended_since and which.ended_since.isoformat(),
        "ended_until": which.ended_until and which.ended_until.isoformat(),
    }


def action(verb: ActionVerb, which: Which) -> Action:
    """Return the body of an action."""
    return msgspec.convert({"verb": verb, **msgspec.to_builtins(which)}, Action)


class Queues:
    """The queues of a fleet."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def list(self) -> tuple[QueueView, ...]:
        """Return all queues with kinds and counters, by name."""
        return tuple([row async for row in pages(self._wire, "v1/queues", Listing[QueueView], {})])

    async def get(self, name: str) -> QueueView:
        """Return one queue; `UnknownQueueError`."""
        return await self._wire.read(f"v1/queues/{quote(name, safe='')}", QueueView)

    async def pause(self, name: str, *, reason: str = "") -> QueueView:
        """Stop claims from it; what runs goes on."""
        return await self._verb(name, "pause", reason)

    async def resume(self, name: str, *, reason: str = "") -> QueueView:
        """Allow claims from it again; ends a drain too."""
        return await self._verb(name, "resume", reason)

    async def drain(self, name: str, *, reason: str = "") -> QueueView:
        """Refuse new jobs and let what is there run out."""
        return await self._verb(name, "drain", reason)

    async def configure(
        self,
        name: str,
        *,
        reason: str,
        queue: dict[str, Json] | None = None,
        kinds: dict[str, dict[str, Json]] | None = None,
    ) -> QueueView:
        """Change parts of its row, or of its kinds' rows, while everything runs; `InvalidError`."""
        body = Reconfigured(reason=reason, queue=queue or {}, kinds=kinds or {})
        return await self._wire.change(f"v1/queues/{quote(name, safe='')}/configure", body, QueueView)

    async def _verb(self, name: str, verb: str, reason: str) -> QueueView:
        return await self._wire.change(f"v1/queues/{quote(name, safe='')}/{verb}", Because(reason=reason), QueueView)


class Dead:
    """The dead jobs of a fleet."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(self, which: JobFilter = EVERY_JOB) -> AsyncIterator[Job]:
        """Yield dead jobs, newest first, with all their attempts; `states` and `worker` of the filter do not count."""
        return pages(self._wire, "v1/dead", Listing[Job], narrowed(which))

    async def replay(self, **which: Unpack[Which]) -> ActionReport:
        """Make them ready again, each as a new generation."""
        return await act(self._wire, "v1/dead/replay", msgspec.convert(msgspec.to_builtins(which), Selection))

    async def purge(self, **which: Unpack[Which]) -> ActionReport:
        """Remove them with all that is kept of them."""
        return await act(self._wire, "v1/dead/purge", msgspec.convert(msgspec.to_builtins(which), Selection))


class Workers:
    """The workers of a fleet."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def list(self, *, gone: bool = False) -> tuple[Worker, ...]:
        """Return live workers by id; with `gone` also those lost or stopped in the last hour."""
        return tuple([row async for row in pages(self._wire, "v1/workers", Listing[Worker], {"gone": gone})])

    async def get(self, worker: str) -> Worker:
        """Return one worker; `NotFoundError`."""
        return await self._wire.read(f"v1/workers/{quote(worker, safe='')}", Worker)

    async def pause(self, worker: str, *, reason: str = "") -> None:
        """Ask it to claim nothing more; what it runs goes on."""
        await self._verb(worker, WorkerVerb.PAUSE, reason)

    async def resume(self, worker: str, *, reason: str = "") -> None:
        """Ask it to claim again."""
        await self._verb(worker, WorkerVerb.RESUME, reason)

    async def drain(self, worker: str, *, reason: str = "") -> None:
        """Ask it to finish, or give back, what it runs, and to stop."""
        await self._verb(worker, WorkerVerb.DRAIN, reason)

    async def _verb(self, worker: str, verb: WorkerVerb, reason: str) -> None:
        path = f"v1/workers/{quote(worker, safe='')}/{verb}"
        await self._wire.change(path, Because(reason=reason), Commanded)


class Cache:
    """Results that the fleet keeps for equal jobs."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def view(self) -> CacheView:
        """Return how much is kept, and how often each kind was answered from there."""
        return await self._wire.read("v1/cache", CacheView)

    async def clear(self, prefix: str) -> int:
        """Drop results whose key begins so (`image.generate:` is a kind, "" is everything); return how many."""
        return (await self._wire.change("v1/cache/clear", CacheClear(prefix=prefix), CacheCleared)).dropped


class Blobs:
    """The blob store of a fleet."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def put(self, content: bytes, *, media_type: str = "application/octet-stream") -> BlobRef:
        """Store a content under its SHA-256; storing it again changes nothing."""
        return await self._wire.upload(content, media_type=media_type)

    async def get(self, ref: BlobRef | str) -> bytes:
        """Return the content of a blob; `NotFoundError`."""
        return await self._wire.read_bytes(f"v1/blobs/{ref if isinstance(ref, str) else ref.sha256}")

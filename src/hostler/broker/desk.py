"""The broker on the engine, for whoever submits, looks and follows."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, cast

from hostler.broker.desk_explain import Explainer
from hostler.broker.desk_find import Walk, Wanted, page, read_cursor
from hostler.broker.desk_intake import Intake
from hostler.broker.desk_views import Kept, read_kept, request_of, view
from hostler.broker.engine_submit import Prepared, Submitter, moved
from hostler.broker.records import LATER, beyond, pack, read_events, sealed, sealed_lane, split_id
from hostler.broker.records import job_id as id_of
from hostler.broker.shards import Part, Router, parts_of
from hostler.contracts.api import EVERY_JOB, JobFilter
from hostler.contracts.event import Event, Life, Page, Timeline
from hostler.contracts.explain import Explanation
from hostler.contracts.job import Job, JobRequest, JobState, Submitted
from hostler.contracts.preview import Preview, no_preview, preview_of
from hostler.contracts.queue import QueueSpec
from hostler.kernel.errors import (
    EngineTimeoutError,
    EngineUnavailableError,
    HostlerError,
    InvalidError,
    NotFoundError,
    QueueFullError,
    StateConflictError,
)
from hostler.kernel.units import Seconds
from hostler.policy.lanes import lane_key, lane_of
from hostler.policy.lifecycle import Verb
from hostler.policy.sharding import home_of, place_of, shards_of
from hostler.registry.endpoints import EngineEndpoints
from hostler.registry.engine import EngineRegistry
from hostler.registry.kinds import Kinds
from hostler.valkeyio import layout
from hostler.valkeyio.keys import REGISTRY_TAG, prefix
from hostler.valkeyio.library import HasClient, Library
from hostler.valkeyio.tails import Tails
from hostler.valkeyio.wakes import HasBlocking

ENTRIES_MAX: Final = 200
"""Stream entries that one call of `events` reads; each holds one event or several."""
_FOLLOWING: Final = 500
_GONE, _DONE, _WRONG_STATE, _NO_LANE = range(4)
_LANES_RETRY: Final[Seconds] = 60.0


class HasEngine(HasClient, HasBlocking, Protocol):
    """What the desk needs of `valkeyio.engine.Engine`."""


class EngineDesk:
    """Implements `ports.broker.Desk` on Valkey or Redis; safe for any number of tasks of one event loop."""

    def __init__(self, engine: HasEngine, *, library: Library | None = None, kinds: Kinds | None = None) -> None:
        self._library = library or Library(engine)
        self._kinds = kinds or Kinds(engine, library=self._library)
        self._intake = Intake(self._kinds)
        self._router = Router(Submitter(self._library))
        self._tails = Tails(engine)
        self._explainer = Explainer(
            self._library,
            EngineRegistry(engine, library=self._library),
            EngineEndpoints(engine, library=self._library),
            self._kinds,
        )

    async def aclose(self) -> None:
        """Stop following streams."""
        await self._tails.aclose()

    async def submit(self, requests: Sequence[JobRequest], *, operation: str) -> tuple[Submitted | Exception, ...]:
        """Store jobs durably; one answer each, in order, an exception for each refused one; see the port."""
        now = await self._now() if any(request.deadline for request in requests) else None
        answers: list[Submitted | Exception | None] = [None] * len(requests)
        rows = await self._store(dict(enumerate(requests)), f"submit:{operation}", answers, now)
        if any(map(moved, answers)):
            await self._kinds.read()
            again = {
                place: requests[place]
                for place, row in rows.items()
                if moved(answers[place]) and await self._kinds.queue(row.name) != row
            }
            await self._store(again, f"submit:{operation}", answers, now)
        return tuple(cast("list[Submitted | Exception]", answers))

    async def _store(
        self,
        requests: Mapping[int, JobRequest],
        operation: str,
        answers: list[Submitted | Exception | None],
        now: int | None,
    ) -> dict[int, QueueSpec]:
        """Answer each of these, by place; return the rows by which they were led to shards."""
        rows: dict[int, QueueSpec] = {}
        queues: dict[str, tuple[QueueSpec, list[tuple[int, Prepared]]]] = {}
        for place, request in requests.items():
            try:
                row, prepared = await self._intake.admit(request, now=now)
            except HostlerError as error:
                answers[place] = error
            else:
                rows[place] = row
                queues.setdefault(row.name, (row, []))[1].append((place, prepared))
        parts = [part for row, jobs in queues.values() for part in parts_of(row, jobs, operation)]
        found = await asyncio.gather(*map(self._stored, parts))
        failures = [stored for stored in found if isinstance(stored, HostlerError)]
        if failures and len(failures) == len(parts):
            raise failures[0]
        for part, stored in zip(parts, found, strict=True):
            replies = [stored] * len(part.jobs) if isinstance(stored, HostlerError) else stored
            for (place, _), answer in zip(part.jobs, replies, strict=True):
                answers[place] = answer
        return rows

    async def _stored(self, part: Part) -> Sequence[Submitted | HostlerError] | HostlerError:
        """Store what lies in one place; in a cluster its server may be away by itself, which is the answer then."""
        try:
            return await self._router.store(part)
        except (EngineUnavailableError, EngineTimeoutError) as error:
            if "server" not in error.facts:
                raise
            return error

    async def _now(self) -> int:
        return int(await self._library.call_registry("now"))

    # what is there

    async def get(self, job_id: str, *, payload: bool = False) -> Job:
        """Return one job; `NotFoundError` when it never was or is no longer kept."""
        queue, seq = _taken_apart(job_id)
        kept = await self._look(queue, seq)
        if kept is None:
            raise _not_found(job_id)
        return view(queue, kept, await self._kinds.known(), payload=payload)

    async def _look(self, queue: str, seq: str) -> Kept | None:
        rows = cast("list[list[Any]]", await self._library.call("look", queue, seqs=[seq]))
        return read_kept(rows[0]) if rows else None

    async def find(
        self, which: JobFilter = EVERY_JOB, *, cursor: str | None = None, limit: int = 50
    ) -> tuple[tuple[Job, ...], str | None]:
        """Return one page of jobs, newest first, and the cursor of the next; see the port."""
        wanted = Wanted(which)
        places = read_cursor(cursor)
        if which.queue is None:
            shards = [shard for row in await self._kinds.rows() for shard in shards_of(row.queue)]
        else:
            shards = await self._kinds.shards(which.queue)
        names = map(place_of, shards)
        walks = [Walk(self._library, name, wanted, places.get(name, 0)) for name in names]
        found, following = await page(walks, max(1, limit))
        kinds = await self._kinds.known()
        return tuple(view(name, kept, kinds) for name, kept in found), following

    async def timeline(self, job_id: str) -> Timeline:
        """Return the events of one job, oldest first.

        Its last 64 moves at most; progress and refusals as far as they lie among the first 500 entries of the
        queue that follow a claim of it, and its latest progress always.
        """
        queue, seq = _taken_apart(job_id)
        known, *rest = cast("list[Any]", await self._library.call("timeline", queue, seq=seq, most=_FOLLOWING))
        if not known:
            raise _not_found(job_id)
        entries, offsets, epoch, lives = rest
        events = {event.offset: event for event in _decoded(queue, entries) if event.job == job_id}
        found = tuple(events[offset] for offset in sorted(events))
        whole = {int(offset) for offset in offsets} <= events.keys()
        return Timeline(
            events=found,
            complete=whole and bool(found) and found[0].type == Verb.SUBMIT,
            epoch=epoch,
            lives=tuple(_life(word.decode()) for word in lives),
            stream=await self._stream(queue),
        )

    async def _stream(self, queue: str) -> str:
        """Return the name by which the stream of a queue's place is followed."""
        shards = await self._kinds.shards_seen(home_of(queue))
        return next((shard for shard in shards if place_of(shard) == queue), queue)

    async def preview(self, job_id: str) -> Preview:
        """Return the latest picture of running work; see the port."""
        queue, seq = _taken_apart(job_id)
        known, data = cast("list[Any]", await self._library.call("preview", queue, seq=seq))
        if not known:
            raise _not_found(job_id)
        found = preview_of(data)
        if found is None:
            raise no_preview(job_id)
        return found

    async def explain(self, job_id: str) -> Explanation:
        """Say why the job is where it is, per need and worker, with its place in the line."""
        queue, seq = _taken_apart(job_id)
        found = await self._explainer.explain(queue, seq)
        if found is None:
            raise _not_found(job_id)
        return found

    async def events(self, queue: str, *, after: int, limit: int = 1000, wait: Seconds = 0.0) -> Page:
        """Return events with offsets above `after`, oldest first; see the port."""
        shards = await self._kinds.shards(queue)
        if len(shards) > 1:
            raise InvalidError(
                f"{queue} has {len(shards)} shards, and each a stream of its own: {', '.join(shards)}", field="queue"
            )
        ends = time.monotonic() + wait
        while True:
            found = await self._history(queue, after, limit)
            left = ends - time.monotonic()
            if found.events or found.gap or left <= 0:
                return found
            await self._tails.wait(f"{prefix(place_of(queue))}ev", after=found.next, timeout=left)

    async def _history(self, queue: str, after: int, limit: int) -> Page:
        place = place_of(queue)
        epoch, latest, kept, entries = cast(
            "tuple[int, bytes, bytes, list[bytes]]",
            tuple(await self._library.call("history", place, after=after, most=max(1, min(limit, ENTRIES_MAX)))),
        )
        events = tuple(event for event in _decoded(place, entries) if event.offset > after)[: max(1, limit)]
        missed = after > int(latest) or (after < int(latest) and (not int(kept) or after + 1 < int(kept)))
        return Page(
            stream=queue,
            epoch=epoch,
            events=events,
            next=events[-1].offset if events else min(after, int(latest)),
            gap=missed,
        )

    # what is done to jobs

    async def cancel(self, job_id: str, *, operation: str, reason: str = "") -> JobState:
        """Cancel a job, or ask a running one to stop; see the port."""
        return await self._move("cancel", job_id, operation, reason)

    async def replay(self, job_id: str, *, operation: str, reason: str = "") -> JobState:
        """Make a dead job ready again, in the lane it was submitted to; see the port.

        `QueueFullError` when the queue has as many lanes as it may have.
        """
        queue, seq = _taken_apart(job_id)
        kept = await self._look(queue, seq)
        if kept is None:
            raise _not_found(job_id)
        if beyond(kept.envelope.needs):
            raise StateConflictError(
                f"{job_id} needs what this version does not know ({kept.envelope.needs.labels[LATER]}): replay it with "
                "the version that submitted it.",
                job=job_id,
            )
        lane = lane_of(request_of(kept.envelope))
        return await self._move(
            "replay", job_id, operation, reason, lane_given=pack([lane_key(lane), sealed(sealed_lane(lane))])
        )

    async def wake(self, job_id: str, *, operation: str, reason: str = "") -> JobState:
        """Make a waiting or scheduled job ready now; see the port."""
        return await self._move("wake", job_id, operation, reason)

    async def purge(self, job_id: str, *, operation: str, reason: str = "") -> None:
        """Remove a job that has ended, with all that is kept of it; see the port."""
        await self._move("purge", job_id, operation, reason)

    async def _move(self, verb: str, job_id: str, operation: str, reason: str, **more: bytes) -> JobState:
        queue, seq = _taken_apart(job_id)
        name = f"{verb}:{seq}:{operation}"
        code, *rest = cast(
            "list[int]", await self._library.call(verb, queue, seq=seq, operation=name, reason=reason, **more)
        )
        if code == _GONE:
            raise _not_found(job_id)
        if code == _NO_LANE:
            raise QueueFullError(f"{queue} has reached its lanes", retry_after=_LANES_RETRY, queue=queue, limit="lanes")
        state = layout.STATES[rest[0] - 1] if rest else JobState.CANCELLED
        if code == _WRONG_STATE:
            raise StateConflictError(f"{job_id} is {state}: {_NEEDS[verb]}", job=job_id, state=state.value)
        return state


_NEEDS: Final = {
    "cancel": "it has ended already",
    "replay": "only a dead job is replayed",
    "wake": "only a scheduled or waiting job is woken",
    "purge": "only a job that has ended is removed",
}


def _decoded(queue: str, entries: Sequence[bytes]) -> list[Event]:
    """Return the events of stream entries given as id, packed entry, ..."""
    return [
        event
        for entry, packed in zip(entries[::2], entries[1::2], strict=True)
        for event in read_events(queue, entry.decode(), packed)
    ]


def _life(word: str) -> Life:
    epoch, _, after = word.partition(":")
    return Life(epoch=int(epoch), after=int(after))


def _taken_apart(job_id: str) -> tuple[str, str]:
    """Return queue and number; `NotFoundError` for what no broker ever gave out as an id."""
    queue, seq = split_id(job_id)
    if (
        not queue
        or not seq
        or queue == REGISTRY_TAG
        or "{" in queue
        or "}" in queue
        or id_of(place_of(queue), seq) != job_id
    ):
        raise _not_found(job_id)
    return queue, seq


def _not_found(job_id: str) -> NotFoundError:
    return NotFoundError(f"no job is named {job_id!r}, or it is no longer kept", job=job_id)

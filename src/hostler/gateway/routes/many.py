"""Actions on many jobs: by id, by filter, all of them; and the dead."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from hostler.contracts.api import (
    Action,
    ActionItem,
    ActionReport,
    ActionVerb,
    JobFilter,
    Listing,
    Selection,
)
from hostler.contracts.job import Job, JobState
from hostler.gateway.operation import Answer, Call, Nothing, Operation, Reply
from hostler.gateway.problems import problem
from hostler.gateway.rooms import Rooms
from hostler.gateway.shapes import DeadQuery
from hostler.kernel.errors import HostlerError, InvalidError, NotFoundError, StateConflictError, UnknownQueueError
from hostler.policy.lifecycle import TERMINAL
from hostler.ports.broker import Desk

APPLIES: Final[dict[ActionVerb, frozenset[JobState]]] = {
    ActionVerb.CANCEL: frozenset(JobState) - TERMINAL,
    ActionVerb.RETRY: frozenset({JobState.DEAD}),
    ActionVerb.PURGE: TERMINAL,
}
"""States that each verb can do something with."""
_RESULTS: Final[dict[ActionVerb, frozenset[JobState]]] = {
    ActionVerb.CANCEL: frozenset({JobState.CANCELLED}),
    ActionVerb.RETRY: frozenset({JobState.READY, JobState.RUNNING}),
    ActionVerb.PURGE: frozenset(),
}
"""Where the verb leads: a job that is there may be so by this very operation, sent before; the desk decides."""
_PAGE: Final = 100
_AT_ONCE: Final = 16
"""Jobs that one action works on at the same time: the engine makes their writes durable together."""
States = frozenset[JobState]


class ManyRoutes:
    """The handlers of `/v1/jobs/actions` and `/v1/dead`."""

    def __init__(self, rooms: Rooms) -> None:
        self._desk = rooms.desk

    async def act_on_jobs(self, call: Call, _query: Nothing, body: Action) -> Answer:
        """Cancel, replay or purge many jobs; `dry_run` only says which."""
        return Answer(body=await _act(self._desk, body.verb, body, APPLIES[body.verb], call.operation))

    async def list_dead(self, _call: Call, query: DeadQuery, _body: None) -> Answer:
        """List dead jobs, newest first, with all their attempts."""
        jobs, following = await self._desk.find(query.filter(), cursor=query.cursor, limit=query.limit)
        return Answer(body=Listing(items=jobs, next=following))

    async def replay_dead(self, call: Call, _query: Nothing, body: Selection) -> Answer:
        """Make dead jobs ready again, each as a new generation with fresh budgets."""
        return Answer(body=await _act(self._desk, ActionVerb.RETRY, body, frozenset({JobState.DEAD}), call.operation))

    async def purge_dead(self, call: Call, _query: Nothing, body: Selection) -> Answer:
        """Remove dead jobs with all that is kept of them."""
        return Answer(body=await _act(self._desk, ActionVerb.PURGE, body, frozenset({JobState.DEAD}), call.operation))

    def operations(self) -> tuple[Operation[Any, Any], ...]:
        """Return the routes."""
        report = {200: Reply(about="What was done, job by job.", type=ActionReport)}
        return (
            Operation(
                method="POST",
                path="/v1/jobs/actions",
                handler=self.act_on_jobs,
                body=Action,
                replies=report,
                errors=(UnknownQueueError,),
            ),
            Operation(
                method="GET",
                path="/v1/dead",
                handler=self.list_dead,
                query=DeadQuery,
                replies={200: Reply(about="One page of dead jobs.", type=Listing[Job])},
                errors=(UnknownQueueError,),
                tag="dead",
            ),
            Operation(
                method="POST",
                path="/v1/dead/replay",
                handler=self.replay_dead,
                body=Selection,
                replies=report,
                errors=(UnknownQueueError,),
                tag="dead",
            ),
            Operation(
                method="POST",
                path="/v1/dead/purge",
                handler=self.purge_dead,
                body=Selection,
                replies=report,
                errors=(UnknownQueueError,),
                tag="dead",
            ),
        )


async def _act(desk: Desk, verb: ActionVerb, wanted: Selection, applies: States, operation: str) -> ActionReport:
    if sum((bool(wanted.ids), wanted.filter is not None, wanted.all)) != 1:
        raise InvalidError("Say which jobs: exactly one of ids, filter and all.", field="filter")
    following = None
    if wanted.ids:
        found = [await _look(desk, verb, job_id, applies) for job_id in dict.fromkeys(wanted.ids)]
    else:
        jobs, following = await _matching(desk, wanted.filter or JobFilter(), wanted, applies)
        found = [ActionItem(id=job.id, state=job.state) for job in jobs]
    if not wanted.dry_run:
        room = asyncio.Semaphore(_AT_ONCE)

        async def done(item: ActionItem) -> ActionItem:
            async with room:
                return item if item.problem else await _do(desk, verb, item.id, wanted.reason, operation)

        found = await asyncio.gather(*(done(item) for item in found))
    failed = sum(item.problem is not None for item in found)
    return ActionReport(
        verb=verb,
        dry_run=wanted.dry_run,
        matched=len(found),
        done=0 if wanted.dry_run else len(found) - failed,
        failed=failed,
        items=tuple(found),
        next=following,
    )


async def _look(desk: Desk, verb: ActionVerb, job_id: str, applies: States) -> ActionItem:
    """Return a job by id, with a problem when it is not there or the verb does nothing with it."""
    try:
        job = await desk.get(job_id)
    except NotFoundError as error:
        if verb is ActionVerb.PURGE:
            return ActionItem(id=job_id)
        return ActionItem(id=job_id, problem=problem(error))
    if job.state in applies or job.state in _RESULTS[verb]:
        return ActionItem(id=job_id, state=job.state)
    conflict = StateConflictError(f"{job_id} is {job.state}; {verb} does nothing with that here.", job=job_id)
    return ActionItem(id=job_id, state=job.state, problem=problem(conflict))


async def _matching(desk: Desk, which: JobFilter, wanted: Selection, applies: States) -> tuple[list[Job], str | None]:
    if which == JobFilter() and not wanted.all:
        raise InvalidError('An empty filter means every job; say "all": true if you mean that.', field="filter")
    states = applies & set(which.states) if which.states else applies
    if not states:
        raise InvalidError(
            f"filter.states: this verb does something with {', '.join(sorted(applies))} only.", field="filter.states"
        )
    narrowed = msgspec.structs.replace(which, states=tuple(sorted(states)))
    found: list[Job] = []
    cursor = wanted.cursor
    while True:
        jobs, cursor = await desk.find(narrowed, cursor=cursor, limit=min(_PAGE, wanted.limit - len(found)))
        found.extend(jobs)
        if cursor is None or len(found) >= wanted.limit:
            return found, cursor


async def _do(desk: Desk, verb: ActionVerb, job_id: str, reason: str, operation: str) -> ActionItem:
    """Do it to one job, under an operation id of its own that follows from the call's."""
    own = f"{operation}:{job_id}"
    moves: dict[ActionVerb, Callable[[], Awaitable[JobState | None]]] = {
        ActionVerb.CANCEL: lambda: desk.cancel(job_id, operation=own, reason=reason),
        ActionVerb.RETRY: lambda: desk.replay(job_id, operation=own, reason=reason),
        ActionVerb.PURGE: lambda: desk.purge(job_id, operation=own, reason=reason),
    }
    try:
        return ActionItem(id=job_id, state=await moves[verb]())
    except HostlerError as error:
        if error.status >= 500:  # noqa: PLR2004 - not this job's fault: the whole call may be sent again
            raise
        return ActionItem(id=job_id, problem=problem(error))

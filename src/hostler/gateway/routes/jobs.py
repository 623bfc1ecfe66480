"""Jobs: submit, list, look, follow, cancel, replay."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec
from litestar.types import Receive

from hostler.contracts.api import Batch, BatchAnswer, BatchItem, Because, Listing, Moved
from hostler.contracts.event import Timeline
from hostler.contracts.explain import Explanation
from hostler.contracts.job import INLINE_LIMIT, Job, JobRequest, JobState, Submitted
from hostler.contracts.reference import payload_reference
from hostler.gateway.bodies import OPERATION_ID, decode
from hostler.gateway.follow import Story, ended, unless_gone
from hostler.gateway.operation import EVENTS, PICTURE, Answer, Call, Nothing, Operation, Reply
from hostler.gateway.problems import as_hostler_error, problem
from hostler.gateway.rooms import Rooms
from hostler.gateway.routes.blobs import content_of
from hostler.gateway.shapes import EventsQuery, JobQuery, JobsQuery, ResultQuery
from hostler.kernel.errors import (
    CapacityError,
    HostlerError,
    IdempotencyConflictError,
    InvalidError,
    NotFoundError,
    PlannedKindError,
    QueueFullError,
    StateConflictError,
    TooLargeError,
    UnknownKindError,
    UnknownQueueError,
    reroutable,
)

_BATCH_ITEM: Final = "jobs"
_EVENT_ID: Final = re.compile(r"(?:(?P<epoch>[0-9]{1,16})-)?(?P<offset>[0-9]{1,16})")
"""Of an event stream; numbers up to 2**53."""
_SHOWN: Final[Mapping[str, str]] = MappingProxyType(
    {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
)
"""With a picture that a service made: it is looked at, and nothing else is done with it."""


_ELSEWHERE: Final = 8
"""Other operations that lead jobs without a key to another shard than one that is full or away; each is as likely to
lead to any."""


class JobRoutes:
    """The handlers of `/v1/jobs`, one job at a time."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._desk = rooms.desk

    async def submit_job(self, call: Call, _query: Nothing, body: JobRequest) -> Answer:
        """Submit a job.

        It is durable once this answers. With an idempotency key that was seen, the first job comes back
        with 200. A payload over 256 KiB goes to `/v1/blobs` first; the payload is then `{"$blob": {...}}`.
        """
        await self._judge(body, where="")
        (outcome,) = await self._submit(call, [body])
        if not isinstance(outcome, Submitted):
            raise as_hostler_error(outcome)
        job = await self._desk.get(outcome.id, payload=True)
        return Answer(body=job, status=201 if outcome.created else 200, headers={"Location": f"/v1/jobs/{job.id}"})

    async def submit_batch(self, call: Call, _query: Nothing, body: Batch) -> Answer:
        """Submit many jobs; each is judged by itself and gets an answer in its place."""
        items: list[BatchItem | None] = [None] * len(body.jobs)
        good: list[tuple[int, JobRequest]] = []
        for index, sealed in enumerate(body.jobs):
            where = f"{_BATCH_ITEM}[{index}]"
            try:
                request: JobRequest = decode(bytes(sealed), JobRequest, where=where)
                await self._judge(request, where=f"{where}.")
            except InvalidError as error:
                items[index] = BatchItem(problem=problem(error))
            else:
                good.append((index, request))
        if good:
            outcomes = await self._submit(call, [request for _, request in good])
            for (index, _), outcome in zip(good, outcomes, strict=True):
                items[index] = _batch_item(outcome)
        return Answer(body=BatchAnswer(items=tuple(item for item in items if item is not None)))

    async def _submit(self, call: Call, requests: Sequence[JobRequest]) -> Sequence[Submitted | Exception]:
        """Store jobs. An operation that was made here is repeated by nobody, so what it can, it leads elsewhere."""
        # The number of jobs is part of the operation: an id used for another batch must not get answers short.
        answers = list(await self._desk.submit(requests, operation=f"{call.operation}:{len(requests)}"))
        for turn in range(0 if OPERATION_ID in call.request.headers else _ELSEWHERE):
            places = [place for place, answer in enumerate(answers) if reroutable(answer)]
            if not places:
                break
            operation = f"{call.operation}:{len(places)}:{turn}"
            again = await self._desk.submit([requests[place] for place in places], operation=operation)
            for place, answer in zip(places, again, strict=True):
                answers[place] = answer
        return answers

    async def _judge(self, request: JobRequest, *, where: str) -> None:
        """Refuse what the broker cannot see to be wrong."""
        if request.webhook is not None:
            raise InvalidError(
                "Webhooks are not served by this version; follow the job's events instead.", field=f"{where}webhook"
            )
        size = len(bytes(request.payload))
        if size > INLINE_LIMIT:
            raise TooLargeError(
                f"The payload has {size} bytes, {INLINE_LIMIT} is the most. PUT it to /v1/blobs/{{sha256}} and "
                'submit {"$blob": {"sha256": ..., "size": ...}} as the payload.',
                field=f"{where}payload",
                limit=INLINE_LIMIT,
            )
        ref = payload_reference(request.payload)
        if ref is None:
            return
        stored = await self._rooms.blobs.size(ref.sha256)
        if stored != ref.size:
            found = "is not in the blob store" if stored is None else f"has {stored} bytes there"
            raise InvalidError(f"The blob {ref.sha256} {found}; upload it first.", field=f"{where}payload.$blob")

    async def list_jobs(self, _call: Call, query: JobsQuery, _body: None) -> Answer:
        """List jobs, newest first."""
        jobs, following = await self._desk.find(query.filter(), cursor=query.cursor, limit=query.limit)
        return Answer(body=Listing(items=jobs, next=following))

    async def get_job(self, call: Call, query: JobQuery, _body: None) -> Answer:
        """Look at one job; with `wait`, answer once it has ended or the time is up."""
        return Answer(body=await self._ended(call, query.wait, payload=query.payload))

    async def get_timeline(self, call: Call, _query: Nothing, _body: None) -> Answer:
        """Tell what happened to a job, in order."""
        return Answer(body=await self._desk.timeline(call.path["id"]))

    async def explain_job(self, call: Call, _query: Nothing, _body: None) -> Answer:
        """Say why a job is where it is: per need who lacks what, its place in the line, an estimate."""
        return Answer(body=await self._desk.explain(call.path["id"]))

    async def get_result(self, call: Call, query: ResultQuery, _body: None) -> Answer:
        """Return the result as the connector or handler sealed it, also one that lies in the blob store.

        409 while the job has not ended, and when it ended without a result.
        """
        job = await self._ended(call, query.wait, payload=False)
        if job.state is not JobState.SUCCEEDED:
            advice = "its error says why" if job.state.terminal else "wait for its end with ?wait=seconds"
            raise StateConflictError(
                f"{job.id} is {job.state}: there is no result; {advice}.", job=job.id, state=str(job.state)
            )
        if job.result_ref is not None:
            return await content_of(self._rooms.blobs, job.result_ref.sha256, media_type=job.result_ref.media_type)
        return Answer(body=bytes(job.result))

    async def get_preview(self, call: Call, _query: Nothing, _body: None) -> Answer:
        """Return the latest picture of running work, where its service shows any.

        It is PNG, JPEG or WebP, gone after a minute without another and when the attempt ends. `progress.preview` of
        the job and of its events is the picture's number: ask again when it changes.
        """
        found = await self._desk.preview(call.path["id"])
        return Answer(body=found.data, media_type=found.media_type, headers=_SHOWN)

    async def follow_job(self, call: Call, query: EventsQuery, _body: None) -> Answer:
        """Stream a job's events until it has ended (server-sent events).

        Each has its epoch and offset as `id`; `Last-Event-ID` resumes behind one without gap or double. A `gap` event
        says that older ones are no longer kept; `reset`, that the engine lost all that was told behind the offset
        `after` (a fail-over, a restored backup), and what follows came instead. A comment comes at least every 15 s.
        """
        after, epoch = _last_event_id(call) if "last-event-id" in call.request.headers else (query.after or 0, None)
        job = await self._desk.get(call.path["id"])
        self._rooms.hub.judge()
        frames: AsyncIterator[bytes] = Story(self._desk, self._rooms.hub, job, after=after, epoch=epoch).told()
        return Answer(
            stream=frames, media_type=EVENTS, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )

    async def cancel_job(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Cancel a job: at once unless it runs; a running one is asked to stop and says `running` until it did."""
        state = await self._desk.cancel(call.path["id"], operation=call.operation, reason=body.reason)
        return Answer(body=Moved(id=call.path["id"], state=state))

    async def retry_job(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Make a dead job ready again, as a new generation with fresh budgets."""
        state = await self._desk.replay(call.path["id"], operation=call.operation, reason=body.reason)
        return Answer(body=Moved(id=call.path["id"], state=state))

    async def _ended(self, call: Call, wait: float | None, *, payload: bool) -> Job:
        within = min(wait or 0.0, self._rooms.settings.gateway.long_poll_max)
        work = ended(self._desk, self._rooms.hub, call.path["id"], within=within, payload=payload)
        if within <= 0:
            return await work
        job = await unless_gone(asyncio.create_task(work), asyncio.create_task(_gone(call.request.receive)))
        return job or await self._desk.get(call.path["id"], payload=payload)

    def operations(self) -> tuple[Operation[Any, Any], ...]:
        """Return the routes."""
        return (*self._submitting(), *self._looking(), *self._watching(), *self._changing())

    def _submitting(self) -> tuple[Operation[Any, Any], ...]:
        return (
            Operation(
                method="POST",
                path="/v1/jobs",
                handler=self.submit_job,
                body=JobRequest,
                replies={
                    201: Reply(about="The job, stored durably.", type=Job, headers=("Location",)),
                    200: Reply(about="The first job: its idempotency key was seen.", type=Job, headers=("Location",)),
                },
                errors=(
                    UnknownKindError,
                    PlannedKindError,
                    UnknownQueueError,
                    IdempotencyConflictError,
                    QueueFullError,
                    CapacityError,
                ),
            ),
            Operation(
                method="POST",
                path="/v1/jobs/batch",
                handler=self.submit_batch,
                body=Batch,
                replies={200: Reply(about="One answer for each job.", type=BatchAnswer)},
            ),
        )

    def _looking(self) -> tuple[Operation[Any, Any], ...]:
        return (
            Operation(
                method="GET",
                path="/v1/jobs",
                handler=self.list_jobs,
                query=JobsQuery,
                replies={200: Reply(about="One page of jobs.", type=Listing[Job])},
                errors=(UnknownQueueError,),
            ),
            Operation(
                method="GET",
                path="/v1/jobs/{id:str}",
                handler=self.get_job,
                query=JobQuery,
                replies={200: Reply(about="The job.", type=Job)},
                errors=(NotFoundError, CapacityError),
            ),
            Operation(
                method="GET",
                path="/v1/jobs/{id:str}/timeline",
                handler=self.get_timeline,
                replies={200: Reply(about="Its events.", type=Timeline)},
                errors=(NotFoundError,),
            ),
            Operation(
                method="GET",
                path="/v1/jobs/{id:str}/explain",
                handler=self.explain_job,
                replies={200: Reply(about="Why it is where it is.", type=Explanation)},
                errors=(NotFoundError,),
            ),
        )

    def _watching(self) -> tuple[Operation[Any, Any], ...]:
        return (
            Operation(
                method="GET",
                path="/v1/jobs/{id:str}/result",
                handler=self.get_result,
                query=ResultQuery,
                replies={200: Reply(about="The result, any JSON.", type=msgspec.Raw)},
                errors=(NotFoundError, StateConflictError, CapacityError),
            ),
            Operation(
                method="GET",
                path="/v1/jobs/{id:str}/preview",
                handler=self.get_preview,
                replies={200: Reply(about="The picture.", media_type=PICTURE)},
                errors=(NotFoundError,),
            ),
            Operation(
                method="GET",
                path="/v1/jobs/{id:str}/events",
                handler=self.follow_job,
                query=EventsQuery,
                replies={200: Reply(about="A stream of events.", media_type=EVENTS)},
                errors=(NotFoundError, CapacityError),
            ),
        )

    def _changing(self) -> tuple[Operation[Any, Any], ...]:
        conflict = (NotFoundError, StateConflictError)
        because: dict[str, Any] = {"body": Because, "body_optional": True}
        return (
            Operation(
                method="POST",
                path="/v1/jobs/{id:str}/cancel",
                handler=self.cancel_job,
                replies={200: Reply(about="Its state now.", type=Moved)},
                errors=conflict,
                **because,
            ),
            Operation(
                method="POST",
                path="/v1/jobs/{id:str}/retry",
                handler=self.retry_job,
                replies={200: Reply(about="Its state now.", type=Moved)},
                errors=conflict,
                **because,
            ),
        )


def _batch_item(outcome: Submitted | Exception) -> BatchItem:
    if isinstance(outcome, Submitted):
        return BatchItem(id=outcome.id, created=outcome.created)
    error: HostlerError = as_hostler_error(outcome)
    return BatchItem(problem=problem(error))


def _last_event_id(call: Call) -> tuple[int, int | None]:
    """Return offset and epoch of the event that was heard last; a mere offset is believed to be of this epoch."""
    found = _EVENT_ID.fullmatch(call.request.headers["last-event-id"].strip())
    if found is None:
        raise InvalidError(
            "Last-Event-ID: expected the id of an event of this stream, like 42-7.", field="header.Last-Event-ID"
        )
    return int(found["offset"]), None if found["epoch"] is None else int(found["epoch"])


async def _gone(receive: Receive) -> None:
    """Return once the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass

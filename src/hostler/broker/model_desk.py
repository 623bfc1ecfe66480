"""The model's side for whoever submits and looks."""

import hashlib
from collections.abc import Sequence
from datetime import datetime

import msgspec

from hostler.broker.model_life import ModelLife
from hostler.broker.model_state import JobRecord, Kept, QueueRecord, seconds
from hostler.contracts.api import EVERY_JOB, JobFilter
from hostler.contracts.event import Page, Timeline
from hostler.contracts.explain import Explanation, Holding, Lacking
from hostler.contracts.fence import CLAIMS, attempt_of
from hostler.contracts.job import Job, JobRequest, JobState, Submitted
from hostler.contracts.offer import Pool
from hostler.contracts.preview import Preview, no_preview
from hostler.contracts.queue import KindSpec
from hostler.kernel.errors import (
    CapacityError,
    HostlerError,
    IdempotencyConflictError,
    InvalidError,
    PlannedKindError,
    QueueFullError,
    StateConflictError,
    UnknownKindError,
)
from hostler.policy.affinity import affinity_key
from hostler.policy.finding import matches
from hostler.policy.lanes import lane_key, lane_of
from hostler.policy.lifecycle import Verb
from hostler.policy.matching import lacks, problems
from hostler.policy.obstacles import Survey
from hostler.policy.suspicion import said_of

S = JobState
FIRST_NUMBER = 100_000_000_001
"""All numbers have as many digits, so that ids sort as text in the order of their submit."""
FULL_RETRY = 1.0
"""Seconds after which a submit that found no room may be tried again."""


class ModelDesk(ModelLife):
    """Implements `ports.broker.Desk`."""

    async def submit(self, requests: Sequence[JobRequest], *, operation: str) -> tuple[Submitted | Exception, ...]:
        """Store jobs; one answer each."""
        now = self._now()
        known = self._answered(f"submit:{operation}", now)
        if known is not None:
            return tuple(known.answer)
        answers: list[Submitted | Exception] = []
        for request in requests:
            try:
                answers.append(self._submit(request, now))
            except HostlerError as error:
                answers.append(error)
        self._remember(f"submit:{operation}", tuple(answers), now)
        return tuple(answers)

    async def get(self, job_id: str, *, payload: bool = False) -> Job:
        """Return one job."""
        queue, job = self._job(job_id)
        return self._view(queue, job, payload=payload)

    async def find(
        self, which: JobFilter = EVERY_JOB, *, cursor: str | None = None, limit: int = 50
    ) -> tuple[tuple[Job, ...], str | None]:
        """Return one page of jobs, newest first."""
        names = sorted(self._queues) if which.queue is None else [which.queue]
        shown = (self._view(self._queue(name), job) for name in names for job in self._queue(name).jobs.values())
        found = [job for job in shown if matches(job, which)]
        found.sort(key=lambda job: (job.created_at, job.queue, int(job.id.rpartition(".")[2])), reverse=True)
        start = int(cursor or 0)
        more = start + limit < len(found)
        return tuple(found[start : start + limit]), str(start + limit) if more else None

    async def timeline(self, job_id: str) -> Timeline:
        """Return the events of one job."""
        queue, _ = self._job(job_id)
        events = tuple(event for event in queue.events if event.job == job_id)
        return Timeline(events=events, complete=bool(events) and events[0].type == Verb.SUBMIT)

    async def preview(self, job_id: str) -> Preview:
        """Return the latest picture of running work."""
        _, job = self._job(job_id)
        if job.preview is None or job.preview.until <= self._now():
            raise no_preview(job_id)
        return job.preview.answer

    async def explain(self, job_id: str) -> Explanation:
        """Say why the job is where it is."""
        queue, job = self._job(job_id)
        now = self._now()
        line = sorted(
            (other for other in queue.jobs_in(S.READY) if other.request.tenant == job.request.tenant),
            key=lambda other: (other.arrival, other.number),
        )
        ahead = line.index(job) if job.state is S.READY else None
        waits = job.live and job.state is not S.RUNNING
        missing = self._lacking(job, now) if waits else ()
        workers = [record.worker for record in self._live_workers(now)] if waits else []
        survey = Survey(job.lane, workers, now=now)
        return Explanation(
            state=job.state,
            unworkable=self._is_unworkable(queue, job),
            needs=missing,
            position=None if ahead is None else ahead + 1,
            ahead=ahead,
            estimate_s=None,
            reasons=(*self._reasons(queue, job), *(survey.sentences() if job.state is S.READY else ())),
            endpoints=survey.endpoints,
            kept_out=survey.kept_out(),
            candidates=survey.candidates(),
        )

    async def cancel(self, job_id: str, *, operation: str, reason: str = "") -> JobState:
        """Cancel a job, or ask a running one to stop."""
        queue, job = self._job(job_id)
        now = self._now()
        known = self._answered(f"cancel:{job_id}:{operation}", now)
        if known is not None:
            return JobState(known.answer)
        if job.state.terminal and job.state is not S.CANCELLED:
            raise StateConflictError(f"{job_id} is {job.state} already", job=job_id, state=str(job.state))
        if job.state is S.RUNNING and job.cancel_asked is None:
            job.cancel_asked = now
            queue.emit(now, Verb.CANCEL, job, reason=reason)
        elif job.live and job.state is not S.RUNNING:
            self._end(queue, job, now, Verb.CANCEL, S.CANCELLED, reason=reason)
        self._remember(f"cancel:{job_id}:{operation}", job.state, now)
        return job.state

    async def replay(self, job_id: str, *, operation: str, reason: str = "") -> JobState:
        """Make a dead job ready again."""
        queue, job = self._job(job_id)
        now = self._now()
        known = self._answered(f"replay:{job_id}:{operation}", now)
        if known is not None:
            return JobState(known.answer)
        if job.state is not S.DEAD:
            raise StateConflictError(f"{job_id} is {job.state}, not dead", job=job_id, state=str(job.state))
        job.generation += 1
        job.lane = lane_of(job.request)
        job.attempts_used = job.crashes = job.overloads = 0
        job.down.clear()
        job.finished_at = job.error = job.cancel_asked = job.queue_until = None
        queue.count("replayed")
        self._ready(queue, job, now, Verb.REPLAY, reason=reason)
        self._remember(f"replay:{job_id}:{operation}", job.state, now)
        return job.state

    async def wake(self, job_id: str, *, operation: str, reason: str = "") -> JobState:
        """Make a waiting or scheduled job ready now."""
        queue, job = self._job(job_id)
        now = self._now()
        known = self._answered(f"wake:{job_id}:{operation}", now)
        if known is not None:
            return JobState(known.answer)
        if job.state not in (S.WAITING, S.SCHEDULED):
            raise StateConflictError(f"{job_id} is {job.state}: it does not wait", job=job_id, state=str(job.state))
        self._ready(queue, job, now, Verb.WAKE, reason=reason)
        self._remember(f"wake:{job_id}:{operation}", job.state, now)
        return job.state

    async def purge(self, job_id: str, *, operation: str, reason: str = "") -> None:
        """Remove a job that has ended."""
        now = self._now()
        if self._answered(f"purge:{job_id}:{operation}", now) is not None:
            return
        queue, job = self._job(job_id)
        if job.live:
            raise StateConflictError(f"{job_id} is {job.state}: it has not ended", job=job_id, state=str(job.state))
        queue.emit(now, "purge", job, reason=reason)
        self._forget(queue, job)
        self._remember(f"purge:{job_id}:{operation}", None, now)

    async def events(self, queue: str, *, after: int, limit: int = 1000, wait: float = 0.0) -> Page:
        """Return events with offsets above `after`; the model never waits."""
        del wait
        record = self._queue(queue)
        kept = record.events[0].offset if record.events else record.offset + 1
        found = tuple(event for event in record.events if event.offset > after)[:limit]
        return Page(
            stream=queue, epoch=1, events=found, next=found[-1].offset if found else after, gap=after + 1 < kept
        )

    # submit

    def _submit(self, request: JobRequest, now: datetime) -> Submitted:
        kind = self._kind(request)
        queue = self._queue(request.queue or kind.queue)
        wrong = problems(request.needs, request.avoid)
        if wrong:
            raise InvalidError(f"{wrong[0][0]}: {wrong[0][1]}", field=wrong[0][0])
        if request.delay is not None and request.run_at is not None:
            raise InvalidError("give delay or run_at, not both", field="run_at")
        if request.deadline is not None and request.deadline <= now:
            raise InvalidError("the deadline has passed", field="deadline")
        first = self._seen(queue, request, now)
        if first is not None:
            queue.count("deduplicated")
            return Submitted(id=first, created=False)
        self._admit(queue, request)
        return Submitted(id=self._store(queue, request, now).id, created=True)

    def _kind(self, request: JobRequest) -> KindSpec:
        kind = self._kinds.get(request.kind)
        if kind is None:
            raise UnknownKindError(f"no kind is named {request.kind!r}", field="kind", kind=request.kind)
        if kind.planned:
            raise PlannedKindError(f"{request.kind!r} is planned: nothing runs it yet", field="kind", kind=kind.name)
        return kind

    def _seen(self, queue: QueueRecord, request: JobRequest, now: datetime) -> str | None:
        if request.idempotency_key is None:
            return None
        known = queue.idempotency.get((request.tenant, request.idempotency_key))
        if known is None or known.until <= now:
            return None
        first, digest = known.answer
        if digest != body_digest(request):
            raise IdempotencyConflictError(
                "this idempotency key was seen with another body", job=first, field="idempotency_key"
            )
        return first

    def _admit(self, queue: QueueRecord, request: JobRequest) -> None:
        if queue.draining:
            raise CapacityError(f"{queue.spec.name} is being drained", retry_after=30.0, queue=queue.spec.name)
        limits, live = queue.spec.limits, [job for job in queue.jobs.values() if job.live]
        tenant = sum(1 for job in live if job.request.tenant == request.tenant)
        used = sum(job.size for job in live)
        lanes = {job.lane_key for job in live} | {lane_key(lane_of(request))}
        for what, limit, would_be in (
            ("depth", limits.depth, len(live) + 1),
            ("bytes", limits.bytes, used + len(bytes(request.payload))),
            ("tenant_depth", limits.tenant_depth, tenant + 1),
            ("lanes", limits.lanes, len(lanes)),
        ):
            if limit is not None and would_be > limit:
                raise QueueFullError(
                    f"{queue.spec.name} has reached its {what}", retry_after=FULL_RETRY, limit=what, value=limit
                )

    def _store(self, queue: QueueRecord, request: JobRequest, now: datetime) -> JobRecord:
        queue.numbers += 1
        queue.clock = max(queue.clock + 1, int(now.timestamp() * 1_000_000))
        due = now + seconds(request.delay) if request.delay else request.run_at
        later = due is not None and due > now
        start = due if due is not None and later else now
        wait = request.timeouts.queue
        wait = self._kinds[request.kind].timeouts.queue if wait is None else wait
        job = JobRecord(
            id=f"{queue.spec.name}.{FIRST_NUMBER + queue.numbers - 1}",
            number=queue.numbers,
            fence=queue.life * CLAIMS,
            queue=queue.spec.name,
            request=request,
            lane=lane_of(request),
            state=S.SCHEDULED,
            created_at=now,
            arrival=queue.clock - int(request.priority * queue.spec.head_start * 1_000_000),
            ready_at=start,
            due=due if later else None,
            deadline=request.deadline,
            queue_until=None if wait is None else start + seconds(wait),
            affinity=affinity_key(request, self._kinds[request.kind]),
        )
        queue.jobs[job.id] = job
        queue.move(now, job, Verb.SUBMIT, S.SCHEDULED if later else S.READY)
        queue.count("submitted")
        if request.idempotency_key is not None:
            queue.idempotency[request.tenant, request.idempotency_key] = Kept(
                answer=(job.id, body_digest(request)), until=now + seconds(queue.spec.retention.idempotency)
            )
        return job

    # views

    def _is_unworkable(self, queue: QueueRecord, job: JobRecord) -> bool:
        return job.state is S.READY and job.lane_key in queue.unworkable

    def _lacking(self, job: JobRecord, now: datetime) -> tuple[Lacking, ...]:
        missing: dict[str, tuple[object, list[Holding]]] = {}
        for record in self._live_workers(now):
            own = {"slots": Pool(id=record.worker.id, total=record.worker.slots)}
            for key, wanted, has in lacks(job.lane, record.worker.offers, worker=record.worker.id, pools=own):
                missing.setdefault(key, (wanted, []))[1].append(Holding(worker=record.worker.id, has=has))
        return tuple(Lacking(key=key, wanted=wanted, lacking=tuple(who)) for key, (wanted, who) in missing.items())

    def _reasons(self, queue: QueueRecord, job: JobRecord) -> list[str]:
        reasons: list[str] = []
        if self._is_unworkable(queue, job):
            reasons.append("no live worker with a healthy endpoint can serve it")
        if queue.paused:
            reasons.append(f"the queue {queue.spec.name} is paused")
        if queue.draining:
            reasons.append(f"the queue {queue.spec.name} is being drained")
        if job.due is not None:
            reasons.append(f"it waits until {job.due.isoformat()}")
        if job.waiting_for is not None:
            reasons.append(f"it waits for: {job.waiting_for}")
        if job.state is S.READY and job.crashes:
            reasons.append(said_of(job.crashes))
        return reasons

    def _view(self, queue: QueueRecord, job: JobRecord, *, payload: bool = False) -> Job:
        request = job.request
        return Job(
            id=job.id,
            kind=request.kind,
            queue=job.queue,
            state=job.state,
            tenant=request.tenant,
            priority=request.priority,
            attempt=attempt_of(job.fence),
            generation=job.generation,
            created_at=job.created_at,
            ready_at=job.ready_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            deadline=job.deadline,
            progress=job.progress,
            worker=job.worker,
            service=request.needs.service or self._kinds[request.kind].service,
            result=job.result,
            result_ref=job.result_ref,
            error=job.error,
            attempts=tuple(job.attempts),
            resources=job.lane.needs.amounts,
            labels=request.labels,
            needs=request.needs,
            avoid=job.lane.avoid,
            unworkable=self._is_unworkable(queue, job),
            cancel_requested=job.cancel_asked is not None,
            waiting_for=job.waiting_for,
            payload=request.payload if payload else msgspec.UNSET,
        )


def body_digest(request: JobRequest) -> bytes:
    """Return what two submits with one key must share."""
    return hashlib.sha256(msgspec.json.encode(request, order="sorted")).digest()

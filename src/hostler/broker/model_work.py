"""The model's side for workers: claim by brute force, renew, progress, settle."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from hostler.broker.model_life import ModelLife
from hostler.broker.model_room import Choice, Room, wants_of
from hostler.broker.model_state import STRIDE, JobRecord, Kept, LeaseRecord, QueueRecord, seconds
from hostler.contracts.failure import Failure
from hostler.contracts.job import JobState, Progress
from hostler.contracts.lease import (
    Again,
    ClaimRequest,
    Die,
    Hold,
    Lease,
    LeaseRef,
    Renewal,
    Settled,
    Settlement,
    Stopped,
    Succeed,
    Update,
)
from hostler.contracts.preview import PREVIEW_LIFE
from hostler.contracts.queue import Demand
from hostler.kernel.units import Json
from hostler.policy.balance import Way, admits, best, standings_of
from hostler.policy.lifecycle import Verb
from hostler.policy.matching import fits
from hostler.policy.sharding import shard_of

S = JobState


class ModelWork(ModelLife):
    """Implements `ports.broker.Broker`."""

    async def claim(self, request: ClaimRequest, *, operation: str) -> tuple[Lease, ...]:
        """Lease the best jobs that this worker fits."""
        queue, now = self._queue(request.queue), self._now()
        known = queue.claims.get(operation)
        if known is not None and known.until > now:
            return tuple(lease for lease in known.answer if self._held(queue, lease.job_id, lease.fence))
        queue.hear(now)
        self._wake_due(queue, now)
        self._expire(queue, now)
        room = Room(self._taken(queue), beside=request.suspicion)
        leases: list[Lease] = []
        while len(leases) < request.limit and not (queue.paused or queue.draining):
            chosen = self._choose(queue, request, room, now)
            if chosen is None:
                break
            room.take(chosen)
            leases.append(self._grant(queue, chosen, request, now))
        queue.claims[operation] = Kept(answer=tuple(leases), until=now + seconds(queue.spec.retention.operations))
        return tuple(leases)

    async def wait_for_work(self, queues: Sequence[str], worker: str, *, timeout: float) -> bool:
        """Tell whether anything is ready; the model never waits."""
        del worker, timeout
        return any(self._queue(name).jobs_in(S.READY) for name in queues)

    async def demand(self, queue: str) -> tuple[Demand, ...]:
        """Return what waits for models, lane by lane."""
        record, now = self._queue(queue), self._now()
        running = self._keys_running(record)
        found: dict[str, Demand] = {}
        for job in () if record.paused or record.draining else record.jobs_in(S.READY):
            key = job.lane_key
            if job.lane.needs.models and not _key_is_full(record, job, running):
                known = found.get(key, Demand(lane=job.lane, waiting=0, oldest=0.0))
                age = (now - (job.ready_at or now)).total_seconds()
                found[key] = Demand(lane=job.lane, waiting=known.waiting + 1, oldest=max(known.oldest, age))
        return tuple(found.values())

    async def renew(self, worker: str, leases: Sequence[LeaseRef]) -> Renewal:
        """Extend these leases."""
        now = self._now()
        lost: list[LeaseRef] = []
        stop: list[LeaseRef] = []
        ends: list[datetime] = []
        drained: set[str] = set()
        for ref in leases:
            found = self._find_held(ref.job_id, ref.fence, worker)
            if found is None:
                lost.append(ref)
                continue
            queue, job = found
            queue.hear(now)
            lease = self._lease(job)
            lease.ends = max(lease.ends, now + seconds(lease.seconds))
            ends.append(lease.ends)
            if job.cancel_asked is not None:
                stop.append(ref)
            if queue.draining:
                drained.add(job.queue)
        return Renewal(
            lost=tuple(lost), cancelled=tuple(stop), expires_at=min(ends, default=None), drained=tuple(sorted(drained))
        )

    async def progress(self, worker: str, updates: Sequence[Update]) -> tuple[LeaseRef, ...]:
        """Store progress, remote ids, checkpoints and previews."""
        now = self._now()
        stale: list[LeaseRef] = []
        for update in updates:
            found = self._find_held(update.job_id, update.fence, worker)
            if found is None:
                stale.append(LeaseRef(job_id=update.job_id, fence=update.fence))
                self._reject(update.job_id, update.fence, worker, now)
                continue
            queue, job = found
            job.remote = update.remote if update.remote is not None else job.remote
            job.remote_endpoint = update.remote_endpoint if update.remote_endpoint is not None else job.remote_endpoint
            job.checkpoint = update.checkpoint or job.checkpoint
            if update.preview is not None:
                job.preview = Kept(answer=update.preview, until=now + seconds(PREVIEW_LIFE))
            if update.progress is not None:
                job.progress = update.progress
                queue.emit(now, Verb.PROGRESS, job, worker=worker, **_shown(update.progress))
        return tuple(stale)

    async def settle(self, worker: str, settlements: Sequence[Settlement]) -> tuple[Settled, ...]:
        """End attempts, in the order given."""
        now = self._now()
        return tuple(self._settle(worker, settlement, now) for settlement in settlements)

    # order

    def _choose(self, queue: QueueRecord, request: ClaimRequest, room: Room, now: datetime) -> Choice | None:
        """Return the best job that this worker may run now."""
        return next(self._eligible(queue, request, room, now), None)

    def _eligible(self, queue: QueueRecord, request: ClaimRequest, room: Room, now: datetime) -> Iterator[Choice]:
        """Yield the jobs that this worker may run now, best first; big ones that wait keep their room."""
        running = self._keys_running(queue)
        for job in sorted(queue.jobs_in(S.READY), key=lambda one: self._rank(queue, one)):
            if _key_is_full(queue, job, running):
                continue
            shunned = request.worker in job.lane.avoid.shunned
            if shunned and self._others_serve(job.lane, now):
                continue
            if room.passes(job, self._suspicion(job), now):
                continue
            yield from self._placed(queue, job, request, room, now)

    def _placed(
        self, queue: QueueRecord, job: JobRecord, request: ClaimRequest, room: Room, now: datetime
    ) -> Iterator[Choice]:
        short: list[tuple[str, str]] = []
        roomy: list[tuple[Choice, Way]] = []
        lane, judged = job.lane_key, False
        home = queue.home(job, now)
        standings = standings_of(request)
        for index, offer in enumerate(() if lane in room.blocked else request.offers):
            if fits(job.lane, (offer,), worker=request.worker, pools=request.pools) is None:
                continue
            judged = True
            wants = wants_of(job, request, offer)
            missing = room.short(wants)
            short.extend(missing)
            if not missing and admits(job.lane, offer.endpoint, standings[index]):
                roomy.append(
                    (Choice(job, index, wants, self._suspicion(job)), room.way(job.lane, offer, standings[index], home))
                )
        if roomy:
            yield roomy[best([way for _, way in roomy])][0]
            return
        if not judged:
            return
        room.blocked.add(lane)
        waited = now - (job.ready_at or now)
        if waited >= seconds(queue.spec.reserve_after):
            room.reserve(short)

    def _rank(self, queue: QueueRecord, job: JobRecord) -> tuple[int, str, int, int]:
        passed = max(queue.passes.get(job.request.tenant, 0), queue.virtual)
        return passed, job.request.tenant, job.arrival, job.number

    def _keys_running(self, queue: QueueRecord) -> dict[str, int]:
        running: dict[str, int] = {}
        for job in queue.jobs_in(S.RUNNING):
            key = job.request.concurrency_key
            if key is not None:
                running[key] = running.get(key, 0) + 1
        return running

    def _grant(self, queue: QueueRecord, chosen: Choice, request: ClaimRequest, now: datetime) -> Lease:
        job, index, wants, _ = chosen
        tenant = job.request.tenant
        queue.virtual = max(queue.passes.get(tenant, 0), queue.virtual)
        queue.passes[tenant] = queue.virtual + STRIDE // queue.spec.weights.get(tenant, 1)
        offer = request.offers[index]
        length = queue.spec.lease if request.lease_s is None else request.lease_s
        job.fence += 1
        job.lease = LeaseRecord(
            worker=request.worker,
            seconds=length,
            ends=now + seconds(length),
            began=now,
            taken=tuple((pool.id, name, amount) for pool, name, amount in wants),
        )
        job.worker, job.endpoint = request.worker, offer.endpoint
        job.started_at = now
        job.queue_until = None
        job.progress = None
        near: dict[str, Json] = {}
        if job.affinity is not None and offer.endpoint is not None:
            near = {"affinity": True} if queue.home(job, now) == offer.endpoint else {}
            until = now + seconds(queue.spec.retention.affinity)
            queue.homes[job.affinity] = Kept(answer=offer.endpoint, until=until)
        queue.move(now, job, Verb.CLAIM, S.RUNNING, worker=request.worker, **near)
        queue.count("claimed")
        return self._as_lease(job, index, now)

    def _as_lease(self, job: JobRecord, index: int, now: datetime) -> Lease:
        policy = self._policy(job)
        lease = self._lease(job)
        return Lease(
            job_id=job.id,
            kind=job.request.kind,
            queue=job.queue,
            fence=job.fence,
            generation=job.generation,
            attempts_used=job.attempts_used,
            attempts_max=policy.attempts,
            crashes=job.crashes,
            crashes_max=policy.crashes,
            overloads=job.overloads,
            payload=job.request.payload,
            lane=job.lane,
            offer=index,
            lease_s=lease.seconds,
            expires_at=lease.ends,
            now=now,
            deadline=job.deadline,
            timeouts=job.request.timeouts,
            tenant=job.request.tenant,
            labels=job.request.labels,
            remote=job.remote,
            remote_endpoint=job.remote_endpoint,
            checkpoint=job.checkpoint,
            history=tuple(job.attempts),
        )

    # leases

    def _held(self, queue: QueueRecord, job_id: str, fence: int) -> bool:
        job = queue.jobs.get(job_id)
        return job is not None and job.lease is not None and job.fence == fence

    def _find_held(self, job_id: str, fence: int, worker: str) -> tuple[QueueRecord, JobRecord] | None:
        queue = self._queues.get(shard_of(job_id))
        job = queue.jobs.get(job_id) if queue else None
        if queue is None or job is None or job.lease is None:
            return None
        return (queue, job) if job.fence == fence and job.lease.worker == worker else None

    def _reject(self, job_id: str, fence: int, worker: str, now: datetime) -> None:
        queue = self._queues.get(shard_of(job_id))
        job = queue.jobs.get(job_id) if queue else None
        if queue is not None and job is not None and fence not in job.rejected:
            job.rejected.add(fence)
            queue.count("rejected")
            queue.emit(now, Verb.REJECT, job, worker=worker, fence=fence)

    def _settle(self, worker: str, settlement: Settlement, now: datetime) -> Settled:
        found = self._find_held(settlement.job_id, settlement.fence, worker)
        if found is None:
            queue = self._queues.get(shard_of(settlement.job_id))
            job = queue.jobs.get(settlement.job_id) if queue else None
            if job is not None and job.settled == _mark(settlement):
                return Settled(job_id=settlement.job_id, accepted=True, state=str(job.state))
            self._reject(settlement.job_id, settlement.fence, worker, now)
            return Settled(
                job_id=settlement.job_id,
                accepted=False,
                state=str(job.state) if job else "gone",
                reason="the lease is no longer held",
            )
        queue, job = found
        job.settled = _mark(settlement)
        job.endpoint = settlement.endpoint or job.endpoint
        self._apply(queue, job, settlement, worker, now)
        return Settled(job_id=job.id, accepted=True, state=str(job.state))

    def _apply(self, queue: QueueRecord, job: JobRecord, settlement: Settlement, worker: str, now: datetime) -> None:
        ending = settlement.ending
        if job.cancel_asked is not None:
            self._stop(queue, job, worker, now, getattr(ending, "failure", None))
            return
        match ending:
            case Succeed():
                self._close_attempt(job, now, "finish")
                job.result, job.result_ref, job.error = ending.result, ending.ref, None
                self._end(queue, job, now, Verb.FINISH, S.SUCCEEDED, worker=worker)
            case Again():
                self._again(queue, job, ending, worker, now)
            case Hold():
                self._close_attempt(job, now, "wait", failure=ending.failure)
                queue.move(now, job, Verb.WAIT, S.WAITING, worker=worker)
                job.waiting_for = ending.reason
                job.due = job.ready_at = None if ending.until is None else now + seconds(ending.until)
            case Die():
                self._close_attempt(job, now, "fail", failure=ending.failure, counted=True)
                self._end(queue, job, now, Verb.FAIL, S.DEAD, worker=worker)
            case Stopped():
                self._stop(queue, job, worker, now, None)

    def _stop(self, queue: QueueRecord, job: JobRecord, worker: str, now: datetime, failure: Failure | None) -> None:
        self._close_attempt(job, now, "cancel", failure=failure)
        self._end(queue, job, now, Verb.CANCEL, S.CANCELLED, worker=worker)

    def _again(self, queue: QueueRecord, job: JobRecord, ending: Again, worker: str, now: datetime) -> None:
        policy = self._policy(job)
        spent = ending.counted and job.attempts_used + 1 >= policy.attempts
        overrun = ending.overload and job.overloads + 1 > policy.overloads
        if ending.overload or ending.counted:  # what used no attempt says nothing of the service's room
            job.overloads = job.overloads + 1 if ending.overload else 0
        if spent or overrun:
            self._close_attempt(job, now, "fail", failure=ending.failure, counted=ending.counted)
            self._end(queue, job, now, Verb.FAIL, S.DEAD, worker=worker)
            return
        self._close_attempt(job, now, "retry", failure=ending.failure, counted=ending.counted)
        queue.count("retried")
        if ending.lane is not None:
            job.lane = ending.lane
        if ending.delay > 0:
            queue.move(now, job, Verb.RETRY, S.SCHEDULED, worker=worker, delay=ending.delay)
            job.due = job.ready_at = now + seconds(ending.delay)
        else:
            self._ready(queue, job, now, Verb.RETRY, worker=worker)


def _key_is_full(queue: QueueRecord, job: JobRecord, running: Mapping[str, int]) -> bool:
    key = job.request.concurrency_key
    return key is not None and running.get(key, 0) >= queue.spec.limits.key_running


def _mark(settlement: Settlement) -> tuple[int, str]:
    """Return what makes an ending the same: its fence and its kind."""
    return settlement.fence, type(settlement.ending).__name__


def _shown(progress: Progress) -> dict[str, object]:
    shown: dict[str, object] = msgspec.to_builtins(progress)
    return shown

"""One full example of every message shape that crosses a process or outlives one."""

from datetime import UTC, datetime

import msgspec
from msgspec import Raw

from hostler.contracts import event, explain, job, lease, needs, problem, queue, result, service, worker
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.offer import Offer, Pool
from hostler.contracts.timeouts import Timeouts

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 3, 5, tzinfo=UTC)

NEEDS = needs.Needs(
    service="simulation",
    models=("tiny",),
    labels={"tier": "gold"},
    versions={"engine": ">=1"},
    isolation="process",
    amounts={"slots": 1.0},
)
AVOID = needs.Avoid(
    service="other",
    models=("huge",),
    labels={"zone": "a"},
    versions={"engine": "<0.5"},
    isolation="none",
    workers=("w1",),
    shunned=("w2",),
)
FAILURE = Failure(
    class_=FailureClass.TIMEOUT, message="no byte for 120 s", stage=Stage.IDLE, retry_after=2.5, details={"status": 503}
)
TIMEOUTS = Timeouts(queue=60.0, connect=5.0, load=300.0, first_byte=120.0, idle=120.0, run=900.0)
LANE = needs.Lane(kind="image.generate", needs=NEEDS, avoid=AVOID)
BLOB = job.BlobRef(sha256="0" * 64, size=300_000, media_type="image/png")
ATTEMPT = job.Attempt(
    number=1,
    generation=1,
    worker="w1",
    endpoint="e1",
    started_at=AT,
    ended_at=LATER,
    outcome="retry",
    error=FAILURE,
    counted=True,
    remote="r1",
)
PROGRESS = job.Progress(fraction=0.5, stage="sampling", message="step 5 of 10", eta_s=2.0, text="half")
OFFER = Offer(
    kinds=("image.generate",),
    service="simulation",
    endpoint="e1",
    models=("tiny",),
    labels={"tier": "gold"},
    versions={"engine": "1.2"},
    isolation=("none", "process"),
    pools={"slots": Pool(id="e1", total=4.0, free=3.0)},
)

SAMPLES: dict[str, msgspec.Struct] = {
    "job_request": job.JobRequest(
        kind="image.generate",
        payload=Raw(b'{"prompt":"a lighthouse"}'),
        queue="image",
        needs=NEEDS,
        avoid=AVOID,
        priority=80,
        run_at=AT,
        deadline=LATER,
        idempotency_key="order-7",
        tenant="acme",
        concurrency_key="user-7",
        timeouts=TIMEOUTS,
        webhook="https://example.com/hook",
        labels={"team": "a"},
    ),
    "job": job.Job(
        id="image.100000000001",
        kind="image.generate",
        queue="image",
        state=job.JobState.DEAD,
        tenant="acme",
        priority=80,
        attempt=1,
        generation=1,
        created_at=AT,
        ready_at=AT,
        started_at=AT,
        finished_at=LATER,
        deadline=LATER,
        progress=PROGRESS,
        worker="w1",
        service="simulation",
        result=Raw(b"null"),
        result_ref=BLOB,
        error=job.JobError(class_="timeout:idle", message="no byte for 120 s", details={"status": 503}),
        attempts=(ATTEMPT,),
        resources={"slots": 1.0},
        labels={"team": "a"},
        needs=NEEDS,
        avoid=AVOID,
        unworkable=False,
        payload=Raw(b'{"prompt":"a lighthouse"}'),
    ),
    "submitted": job.Submitted(id="image.100000000001", created=True),
    "lane": LANE,
    "failure": FAILURE,
    "progress": PROGRESS,
    "attempt": ATTEMPT,
    "lease": lease.Lease(
        job_id="image.100000000001",
        kind="image.generate",
        queue="image",
        fence=2,
        generation=1,
        attempts_used=1,
        attempts_max=5,
        crashes=0,
        overloads=0,
        payload=Raw(b"{}"),
        lane=LANE,
        offer=0,
        lease_s=10.0,
        expires_at=LATER,
        now=AT,
        deadline=LATER,
        timeouts=TIMEOUTS,
        tenant="acme",
        labels={"team": "a"},
        remote="r1",
        remote_endpoint="e1",
        checkpoint=Raw(b'{"step":5}'),
        history=(ATTEMPT,),
    ),
    "claim_request": lease.ClaimRequest(
        queue="image", worker="w1", limit=4, offers=(OFFER,), pools={"slots": Pool(id="w1", total=8.0)}, lease_s=10.0
    ),
    "update": lease.Update(
        job_id="image.100000000001",
        fence=2,
        progress=PROGRESS,
        remote="r1",
        remote_endpoint="e1",
        checkpoint=Raw(b'{"step":5}'),
    ),
    "settle_succeed": lease.Settlement(
        job_id="image.100000000001", fence=2, ending=lease.Succeed(result=Raw(b"{}"), ref=BLOB), endpoint="e1"
    ),
    "settle_again": lease.Settlement(
        job_id="image.100000000001", fence=2, ending=lease.Again(failure=FAILURE, delay=1.5, overload=True, lane=LANE)
    ),
    "settle_hold": lease.Settlement(
        job_id="image.100000000001", fence=2, ending=lease.Hold(reason="auth", failure=FAILURE, until=60.0)
    ),
    "settle_die": lease.Settlement(job_id="image.100000000001", fence=2, ending=lease.Die(failure=FAILURE)),
    "settle_stopped": lease.Settlement(job_id="image.100000000001", fence=2, ending=lease.Stopped()),
    "event": event.Event(
        offset=7,
        at=AT,
        type="claim",
        job="image.100000000001",
        state=job.JobState.RUNNING,
        attempt=2,
        worker="w1",
        data={"endpoint": "e1"},
    ),
    "explanation": explain.Explanation(
        state=job.JobState.READY,
        unworkable=True,
        needs=(explain.Lacking(key="labels.tier", wanted="gold", lacking=(explain.Holding(worker="w1", has=None),)),),
        position=3,
        ahead=2,
        estimate_s=4.0,
        reasons=("no live worker has labels.tier=gold",),
    ),
    "queue_spec": queue.QueueSpec(name="image", about="images", weights={"acme": 3}),
    "kind_spec": queue.KindSpec(
        name="image.generate",
        queue="image",
        service="simulation",
        payload={"type": "object"},
        result={"type": "object"},
        retry=queue.RetryPolicy(attempts=3),
        timeouts=TIMEOUTS,
        declared_by="simulation-http",
    ),
    "kept_result": result.Kept(result=Raw(b'{"n":1}'), ref=BLOB),
    "worker": worker.Worker(
        id="w1",
        state=worker.WorkerState.BUSY,
        machine="m1",
        pid=42,
        version="0.1.0",
        slots=8,
        running=1,
        queues=("image",),
        offers=(OFFER,),
        started_at=AT,
        seen_at=AT,
        expires_at=LATER,
        loop_age=0.1,
        settings="abc",
        jobs=("image.100000000001",),
    ),
    "service_call": service.ServiceCall(
        job_id="image.100000000001",
        fence=2,
        kind="image.generate",
        payload=Raw(b"{}"),
        timeouts=TIMEOUTS,
        deadline=LATER,
    ),
    "problem": problem.Problem(
        type="urn:hostler:error:queue-full",
        title="Queue full",
        status=429,
        code="queue-full",
        retry="later",
        detail="the queue is full",
        request_id="r1",
        retry_after=1.0,
    ),
}

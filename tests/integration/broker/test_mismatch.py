"""A job that no worker can be kept away from has a budget all the same."""

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.queue import KindSpec, Limits, RetryPolicy
from hostler.policy.retry import after_failure, returns
from hostler.testing.bench import Bench

KIND = KindSpec(name="work.do", retry=RetryPolicy(overloads=3))
LACKS = Failure(class_=FailureClass.CAPABILITY_MISMATCH, message="no such model")


async def refuse(bench: Bench, worker: str) -> bool:
    """Let a worker claim and find that it lacks something; False when there is nothing to claim."""
    leases = await bench.claim(worker=worker)
    for lease in leases:
        ending = after_failure(
            LACKS,
            policy=KIND.retry,
            attempts_used=lease.attempts_used,
            overloads=lease.overloads,
            dice=lambda: 0.0,
            others_fit=True,
            lane=lease.lane,
            worker=worker,
            came_back=returns(lease, worker),
        )
        assert (await bench.settle(lease, ending, worker=worker)).accepted
    return bool(leases)


async def test_a_worker_that_lacks_something_never_gets_the_job_again_while_there_is_room_for_a_lane(
    bench: Bench,
) -> None:
    (job,) = await bench.submit(kind=KIND)
    assert await refuse(bench, "w1")
    assert await bench.claim(worker="w1") == ()
    assert (await bench.take(worker="w2")).job_id == job


async def test_a_job_goes_round_a_queue_without_room_for_a_lane_as_often_as_it_may_be_overloaded_and_is_then_dead(
    bench: Bench,
) -> None:
    await bench.configure(limits=Limits(lanes=1))
    (job,) = await bench.submit(kind=KIND)
    rounds = 0
    while await refuse(bench, "w1"):
        rounds += 1
        assert rounds <= 10
    assert await bench.state(job) == "dead"
    assert rounds == KIND.retry.overloads + 2
    record = await bench.record(job)
    assert (record.attempts, record.crashes) == (1, 0)
    dead = (await bench.events())[-1]
    assert dead.type == "fail"
    assert dead.data["class"] == "capability_mismatch"
    assert "all the lanes it may have" in dead.data["message"]


async def test_two_workers_that_lack_something_share_the_budget(bench: Bench) -> None:
    await bench.configure(limits=Limits(lanes=1))
    (job,) = await bench.submit(kind=KIND)
    rounds = 0
    while await refuse(bench, f"w{rounds % 2}"):
        rounds += 1
        assert rounds <= 10
    assert await bench.state(job) == "dead"

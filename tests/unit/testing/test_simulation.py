"""Stories of workers and gateways on a virtual clock: promises are kept, stories repeat themselves and find breaks."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hostler.broker.model import ModelBroker
from hostler.contracts.event import Event
from hostler.contracts.lease import Again
from hostler.gateway.follow import Story as FollowedJob
from hostler.gateway.hub import Subscription
from hostler.gateway.tail import Tails
from hostler.testing.simulation.loop import StalledError, VirtualLoop
from hostler.testing.simulation.plot import FAULTS, plot
from hostler.testing.simulation.story import tell
from hostler.worker.aside import Aside, Unanswered
from hostler.worker.attempt import Attempt
from hostler.worker.heartbeat import Heartbeat

MOST = 300
"""Seeds within which a broken promise has to be found."""
PLAY = (sys.executable, "-m", "hostler.testing.simulation")


def test_stories_with_and_without_faults_keep_every_promise() -> None:
    told = [tell(plot(seed)) for seed in range(16)]

    assert [one.findings for one in told if one.findings] == []
    assert min(one.jobs for one in told) > 0
    assert sum(one.claims for one in told) > sum(one.jobs for one in told)  # faults struck, work was begun again
    assert sum(one.heard for one in told) > 100  # and gateways told of it


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_thousands_of_stories_keep_every_promise() -> None:
    done = subprocess.run([*PLAY, "--seeds", "5000"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_plots_draw_every_kind_of_fault_and_some_have_none() -> None:
    plots = [plot(seed) for seed in range(200)]

    assert {fault.kind for each in plots for fault in each.faults} == set(FAULTS)
    assert 20 < sum(not each.faults for each in plots) < 90


def test_a_seed_tells_the_same_story_again_in_another_process_too() -> None:
    seed = next(seed for seed in range(100) if len(plot(seed).faults) > 2)
    here = tell(plot(seed))

    assert tell(plot(seed)).digest == here.digest
    for hashes in ("0", "3"):  # the order of sets of words: these two tell apart the names of the queues
        environment = {**os.environ, "PYTHONHASHSEED": hashes}
        words = [*PLAY, "--seeds", "1", "--first", str(seed), "--processes", "1"]
        said = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        assert f"digest {here.digest}" in said.stdout


def test_another_seed_tells_another_story() -> None:
    assert len({tell(plot(seed)).digest for seed in range(5)}) == 5


def accept_any_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whoever ever held a job settle it."""

    def find(model: ModelBroker, job_id: str, fence: int, worker: str) -> Any:
        del fence, worker
        queue, job = model._job(job_id)  # pyright: ignore[reportPrivateUsage] - broken on purpose
        return None if job.lease is None else (queue, job)

    monkeypatch.setattr(ModelBroker, "_find_held", find)


def never_renew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beat without renewing leases."""

    async def renew(_: Heartbeat, __: object) -> None: ...

    monkeypatch.setattr(Heartbeat, "_renew", renew)


def nothing(*_: object) -> None:
    """Do nothing."""


def forget_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do again what was done, when it is asked for again."""
    monkeypatch.setattr(ModelBroker, "_answered", nothing)


def never_reap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave lost leases where they are."""
    monkeypatch.setattr(ModelBroker, "_reap", nothing)


def leave_work_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave something running beside every attempt that has to stop."""
    halt = Attempt.halt

    async def leave(attempt: Attempt) -> None:
        asyncio.get_running_loop().create_task(asyncio.sleep(1e6))  # not waiting: virtual time
        await halt(attempt)

    monkeypatch.setattr(Attempt, "halt", leave)


def resume_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on one event too late for a reader that comes back."""
    begin = FollowedJob.__init__

    def skip(self: FollowedJob, *words: Any, after: int, **named: Any) -> None:
        begin(self, *words, after=after + (after > 0), **named)

    monkeypatch.setattr(FollowedJob, "__init__", skip)


def keep_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop what comes while a reader has not taken what came before."""
    push = Subscription.push

    def drop(subscription: Subscription, event: Event) -> None:
        if not subscription._events:  # pyright: ignore[reportPrivateUsage] - broken on purpose
            push(subscription, event)

    monkeypatch.setattr(Subscription, "push", drop)


def read_on_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the readers of streams running when a gateway stops."""

    async def stop(_: Tails) -> None: ...

    monkeypatch.setattr(Tails, "stop", stop)


def retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not let a retry wait."""
    again = ModelBroker._again  # pyright: ignore[reportPrivateUsage] - broken on purpose

    def hurry(model: ModelBroker, queue: Any, job: Any, ending: Again, *rest: Any) -> None:
        again(model, queue, job, msgspec.structs.replace(ending, delay=0.0), *rest)

    monkeypatch.setattr(ModelBroker, "_again", hurry)


def never_count_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep attempts in a job's history, and do not count them."""
    close = ModelBroker._close_attempt  # pyright: ignore[reportPrivateUsage] - broken on purpose

    def forget(model: ModelBroker, job: Any, *rest: Any, **named: Any) -> None:
        used = job.attempts_used
        close(model, job, *rest, **named)
        job.attempts_used = used

    monkeypatch.setattr(ModelBroker, "_close_attempt", forget)


def leave_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never come back to a queue whose server was away."""

    async def wait(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Aside, "_ask", wait)


def test_a_queue_whose_server_is_away_is_set_aside_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    put, back = Aside.put, list[bool]()

    def note(aside: Aside, claim: Unanswered) -> None:
        back.append(claim.doubtful)
        put(aside, claim)

    monkeypatch.setattr(Aside, "put", note)
    struck = [each for each in map(plot, range(200)) if "queue away" in {fault.kind for fault in each.faults}]

    assert [told.findings for told in map(tell, struck) if told.findings] == []
    assert set(back) == {True, False}  # claims whose answer broke off, and claims that nobody took


@pytest.mark.parametrize(
    ("breaks", "needed"),
    [
        (accept_any_fence, "freeze"),
        (never_renew, None),
        (forget_operations, None),
        (never_reap, "kill"),
        (leave_work_behind, None),
        (resume_behind, None),
        (keep_one_event, None),
        (read_on_after_the_end, None),
        (retry_at_once, None),
        (never_count_attempts, None),
        (leave_aside, "queue away"),
    ],
)
def test_a_broken_part_is_found(
    breaks: Callable[[pytest.MonkeyPatch], None], needed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plots = (plot(seed) for seed in range(MOST))
    fitting = (each for each in plots if needed is None or needed in {fault.kind for fault in each.faults})
    breaks(monkeypatch)

    assert any(tell(each).findings for each in fitting)


def run(what: Callable[[VirtualLoop], Any], seed: int = 1) -> Any:
    """Run something on a loop of its own."""
    loop = VirtualLoop(seed)
    try:
        return loop.run_until_complete(what(loop))
    finally:
        loop.end()


def test_an_hour_passes_at_once() -> None:
    async def wait(loop: VirtualLoop) -> float:
        await asyncio.sleep(3600)  # not waiting: virtual time
        return loop.time()

    assert run(wait) == pytest.approx(3600, abs=1)


def test_what_one_owner_does_keeps_its_order_and_seeds_choose_between_owners() -> None:
    async def count(loop: VirtualLoop) -> list[str]:
        seen: list[str] = []

        async def steps(name: str) -> None:
            for number in range(5):
                seen.append(f"{name}{number}")
                await asyncio.sleep(0)

        await asyncio.wait([loop.start(steps(name), name) for name in "abc"])
        return seen

    orders = {tuple(run(count, seed)) for seed in range(10)}

    assert len(orders) > 5
    for order in orders:
        assert all([each for each in order if each[0] == name] == [f"{name}{n}" for n in range(5)] for name in "abc")


def test_a_frozen_owner_does_nothing_and_goes_on_when_it_is_thawed() -> None:
    async def freeze(loop: VirtualLoop) -> float:
        async def sleeper() -> float:
            await asyncio.sleep(1)  # not waiting: virtual time
            return loop.time()

        task = loop.start(sleeper(), "frozen")
        await asyncio.sleep(0.5)  # not waiting: virtual time
        loop.freeze("frozen")
        await asyncio.sleep(10)  # not waiting: virtual time
        assert not task.done()
        loop.thaw("frozen")
        return await task

    assert run(freeze) == pytest.approx(10.5, abs=0.1)


def test_waiting_for_what_can_never_come_is_told() -> None:
    async def wait(loop: VirtualLoop) -> None:
        await loop.create_future()

    with pytest.raises(StalledError):
        run(wait)

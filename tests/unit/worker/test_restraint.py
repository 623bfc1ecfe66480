"""What counts as a repeat, what one costs, and what becomes of a job that there is no repeat for."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import Raw

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import Attempt
from hostler.contracts.lease import Again, Die, Lease, LeaseRef
from hostler.contracts.needs import Avoid, Lane, Needs
from hostler.contracts.service import Failed, ServiceCall
from hostler.contracts.timeouts import Timeouts
from hostler.dispatch.repeats import Repeats
from hostler.policy.budget import FLOOR, SPAN
from hostler.ports.connector import Connector
from hostler.testing.clock import FakeClock, SeededDice
from hostler.worker.reports import Reports
from hostler.worker.restraint import Restraint
from hostler.worker.runs import ServiceRun, Tools
from hostler.worker.stages import StageWatch, complete

C = FailureClass
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALL = int(FLOOR * SPAN)


def failed(class_: FailureClass, **more: Any) -> Attempt:
    facts: dict[str, Any] = {"outcome": "retry", "generation": 1, "error": Failure(class_=class_, message="no"), **more}
    return Attempt(number=1, worker="w", endpoint="lamp", started_at=NOW, ended_at=NOW, **facts)


def lease(*history: Attempt) -> Lease:
    return Lease(
        job_id="image.1",
        kind="image.generate",
        queue="image",
        fence=1,
        generation=1,
        attempts_used=0,
        attempts_max=5,
        crashes=0,
        overloads=0,
        payload=b"{}",  # pyright: ignore[reportArgumentType] - sealed, and nobody opens it here
        lane=Lane(kind="image.generate", needs=Needs(), avoid=Avoid()),
        lease_s=10.0,
        expires_at=NOW,
        now=NOW,
        deadline=None,
        timeouts=Timeouts(),
        tenant="default",
        labels={},
        remote=None,
        history=history,
    )


class House:
    """A service's budget on a clock in our hands."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.repeats = Repeats("simulation", clock=self.clock, dice=SeededDice())

    def restraint(self, *history: Attempt) -> Restraint:
        return Restraint(lease(*history), endpoint="lamp", gauge=None, repeats=self.repeats)

    def granted(self, *history: Attempt, tries: int = 3 * ALL) -> int:
        """Return how many attempts with this history are begun, one after the other."""
        return sum(self.restraint(*history).judge(None) is None for _ in range(tries))


@pytest.mark.parametrize("class_", [C.TRANSIENT, C.TIMEOUT, C.INTERNAL, C.OUT_OF_MEMORY, C.LOST])
def test_what_failed_and_is_tried_again_costs_a_repeat(class_: FailureClass) -> None:
    assert House().granted(failed(class_)) == ALL


@pytest.mark.parametrize(
    "earlier",
    [
        failed(C.OVERLOADED),
        failed(C.CAPABILITY_MISMATCH),
        failed(C.AUTH, outcome="wait"),
        failed(C.LOST, outcome="reap"),
        failed(C.TRANSIENT, generation=0),
    ],
)
def test_what_the_service_put_off_a_worker_lost_or_an_operator_replays_costs_none(earlier: Attempt) -> None:
    assert House().granted(earlier) == 3 * ALL


def test_first_calls_earn_repeats() -> None:
    house = House()
    assert house.granted(tries=100) == 100
    assert house.granted(failed(C.TRANSIENT)) == ALL + 20


def test_a_repeat_that_works_costs_nothing() -> None:
    house = House()
    for _ in range(3 * ALL):
        restraint = house.restraint(failed(C.TRANSIENT))
        assert restraint.judge(None) is None
        restraint.went_well()
    assert not house.repeats.spent


def test_a_first_call_that_works_gives_nothing_back() -> None:
    house = House()
    assert house.granted(failed(C.TRANSIENT)) == ALL
    for _ in range(4):
        restraint = house.restraint()
        restraint.judge(None)
        restraint.went_well()
    assert house.repeats.spent


class Refused:
    """A connector that has no turn for any call."""

    name = service = endpoint = "lamp"

    async def submit(self, call: ServiceCall) -> Failed:
        return Failed(failure=Failure(class_=C.OVERLOADED, message="used up", details={"unsent": True}))


class Tried:
    """One attempt, as those see it who do its work."""

    def __init__(self, house: House, *history: Attempt) -> None:
        self.lease = lease(*history)
        self.ref = LeaseRef(job_id=self.lease.job_id, fence=1)
        self.tools = cast("Tools", SimpleNamespace(clock=house.clock))
        self.reports = cast("Reports", SimpleNamespace())
        self.timeouts = complete(Timeouts(), Timeouts(), service=True)
        self.stages = StageWatch(self.timeouts, started=house.clock.monotonic(), ends=None, service=True)

    async def payload(self) -> Raw:
        return Raw(b"{}")

    def progressed(self, news: object) -> None:
        raise AssertionError(news)


async def refused(house: House, *history: Attempt) -> None:
    """Try what a limit of ours does not let through."""
    run = ServiceRun(cast("Connector", Refused()), house.restraint(*history))
    outcome = await run.run(Tried(house, *history))
    assert isinstance(outcome, Failed)
    assert outcome.failure.unsent


async def test_what_was_never_sent_earns_no_repeat_and_costs_none() -> None:
    house = House()
    for _ in range(50):
        await refused(house)
        await refused(house, failed(C.TRANSIENT))
    assert house.granted(failed(C.TRANSIENT)) == ALL


def test_a_job_without_a_repeat_goes_back_unsent_and_never_for_long() -> None:
    house = House()
    house.granted(failed(C.TRANSIENT))
    refrained = house.restraint(failed(C.TRANSIENT)).judge(None)
    assert refrained is not None
    assert refrained.failure.class_ is C.TRANSIENT
    assert refrained.failure.message.startswith("not begun: the retry budget of simulation is used up: again in")
    assert SPAN / 2 <= refrained.again_in < SPAN
    assert not refrained.elsewhere
    house.clock.advance(SPAN)
    put_off = failed(C.TRANSIENT, error=refrained.failure)
    assert house.restraint(failed(C.TRANSIENT), put_off).judge(None) is None


def test_with_nothing_left_the_next_try_of_what_failed_comes_later_and_says_why() -> None:
    house = House()
    ending = Again(failure=Failure(class_=C.TRANSIENT, message="it broke"), delay=0.1)
    assert house.restraint().slowed(ending) is ending
    house.granted(failed(C.TRANSIENT))
    slowed = house.restraint().slowed(ending)
    assert isinstance(slowed, Again)
    assert slowed.failure is not None
    assert slowed.delay >= SPAN / 2
    assert slowed.failure.message.startswith("it broke; the retry budget of simulation is used up: again in")
    assert slowed.counted
    late = Again(failure=Failure(class_=C.TRANSIENT, message="x" * 2_000), delay=300.0)
    slowed = house.restraint().slowed(late)
    assert isinstance(slowed, Again)
    assert slowed.failure is not None
    assert (slowed.delay, len(slowed.failure.message)) == (300.0, 2_000)


def test_what_ends_for_good_or_says_itself_when_to_come_back_is_left_as_it_is() -> None:
    house = House()
    house.granted(failed(C.TRANSIENT))
    busy = Again(failure=Failure(class_=C.OVERLOADED, message="full"), delay=0.1, overload=True)
    dead = Die(failure=Failure(class_=C.TRANSIENT, message="it broke"))
    back = Again(failure=None, counted=False)
    assert [house.restraint().slowed(ending) for ending in (busy, dead, back)] == [busy, dead, back]

"""A broker and the model, asked the same: what they say must be the same."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from hostler.chaos.check import Submission, Terms, Told, Verdict, check
from hostler.contracts.lease import Lease, Settlement
from hostler.contracts.offer import Offer, Pool, Standing
from hostler.contracts.queue import KindSpec, QueueSpec
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.errors import HostlerError
from hostler.testing.broker_house import FOREVER, BrokerHarness
from hostler.testing.clock import FakeClock
from hostler.testing.machine_compare import all_events, all_jobs, job_facts, stats_facts, story
from hostler.testing.machine_model import JudgingModel

QUEUE = "main"
GPU = Pool(id="gpu0", total=24)
WORKERS: dict[str, tuple[int, tuple[Offer, ...]]] = {
    "w1": (3, (Offer(kinds=("work", "once"), models=("m1",), pools={"gpu": GPU}),)),
    "w2": (4, (Offer(kinds=("work",), models=("m1", "m2"), pools={"gpu": GPU}),)),
    "w3": (2, (Offer(kinds=("work",), healthy=False), Offer(kinds=("once",), models=("m2",)))),
    "w4": (
        4,
        (
            Offer(kinds=("work",), endpoint="e1", models=("m1", "m2"), pools={"slots": Pool(id="e1", total=2)}),
            Offer(kinds=("work", "once"), endpoint="e2", models=("m1",), pools={"slots": Pool(id="e2", total=3)}),
        ),
    ),
    "w5": (
        4,
        (
            Offer(kinds=("work",), endpoint="e3", models=("m2",), pools={"slots": Pool(id="e3", total=4)}),
            Offer(kinds=("work",), endpoint="e1", models=("m1", "m2"), pools={"slots": Pool(id="e1", total=2)}),
        ),
    ),
}
"""Slots and offers of each worker."""
STANDINGS: dict[str, tuple[Standing, ...]] = {
    "w4": (Standing(weight=1.7, loaded=("m1",), swaps=("m2",)), Standing(loaded=("m1",), swaps=())),
    "w5": (Standing(), Standing(weight=1.7, loaded=("m1",))),
}
"""How the offers of those with several endpoints stand."""

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]


REMEMBERED = 6.0
"""Seconds for which it is known where a session ran."""
CRASHES = 3
"""Losses that end a job of most kinds."""
UNTENDED = 4.0
"""Seconds that may pass without upkeep."""


class Twins:
    """Both sides, with one clock."""

    def __init__(self, real: BrokerHarness, run: Run) -> None:
        self.real = real
        self.run = run
        self.clock = FakeClock(real.now())
        self.model = JudgingModel(self.clock)
        self.limits: dict[str, int] = {}
        self.submitted: list[Submission] = []
        self.told: list[Told] = []
        self._numbers = 0
        self._untended = 0.0

    def open(self) -> None:
        """Declare queue and kinds, and let the workers live."""
        self.both("declare_queue", self.queue())
        for name, attempts, crashes in (("work", 3, CRASHES), ("once", 1, 2)):
            retry = {"attempts": attempts, "crashes": crashes, "overloads": 2}
            self.both("declare_kind", msgspec.convert({"name": name, "queue": QUEUE, "retry": retry}, KindSpec))
        for worker in WORKERS:
            self.announce(worker)

    def both(self, verb: str, *args: Any, **named: Any) -> Any:
        """Ask both the same; they must give the same answer or the same error. Returns the answer."""
        ours = self.ask(self.model, verb, *args, **named)
        theirs = self.ask(self.side(verb), verb, *args, **named)
        assert ours == theirs, f"{verb}{args}{named}: the model says {ours!r}, the broker {theirs!r}"
        return theirs

    def ask(self, side: object, verb: str, *args: Any, **named: Any) -> Any:
        """Ask one side; an error of ours is an answer."""
        try:
            return (self.at_once if side is self.model else self.run)(getattr(side, verb)(*args, **named))
        except HostlerError as error:
            return type(error)

    def side(self, verb: str) -> object:
        """Return the part of the broker under test that has this verb."""
        parts = (self.real.broker, self.real.desk, self.real.foreman, self.real.registry)
        return next(part for part in parts if hasattr(part, verb))

    def at_once(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the model, which never waits."""
        try:
            work.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("the model waits for something")

    def operation(self) -> str:
        """Return an operation id that was never used."""
        self._numbers += 1
        return f"op-{self._numbers}"

    def queue(self) -> QueueSpec:
        """Return the queue's row with the limits of now."""
        row = {
            "name": QUEUE,
            "cancel_grace": 5.0,
            "reserve_after": 5.0,
            "limits": self.limits,
            "weights": {"a": 2},
            "retention": {"affinity": REMEMBERED},
        }
        return msgspec.convert(row, QueueSpec)

    def announce(self, worker: str) -> None:
        """Let a worker live for as long as the run lasts."""
        slots, offers = WORKERS[worker]
        now = self.real.now()
        announced = Worker(
            id=worker,
            state=WorkerState.READY,
            machine="here",
            pid=1,
            version="1",
            slots=slots,
            running=0,
            queues=(QUEUE,),
            offers=offers,
            started_at=now,
            seen_at=now,
            expires_at=now,
            loop_age=0.0,
        )
        for side in (self.model, self.real.registry):
            self.ask(side, "announce", announced, ttl=FOREVER)

    def both_settle(self, worker: str, settlements: list[Settlement]) -> list[tuple[str, bool, str]]:
        """Settle on both sides; reasons are each adapter's own words."""
        answers = [
            [(one.job_id, one.accepted, one.state) for one in settled]
            for settled in (
                self.at_once(self.model.settle(worker, settlements)),
                self.run(self.real.broker.settle(worker, settlements)),
            )
        ]
        assert answers[0] == answers[1], f"{worker} settles {settlements}: model {answers[0]}, broker {answers[1]}"
        return answers[1]

    def advance(self, seconds: float) -> None:
        """Move both clocks; upkeep is never left out for long, as in a system that runs."""
        self._untended += seconds
        self.run(_awaited(self.real.advance(seconds)))
        self.clock.advance(seconds)
        if self._untended > UNTENDED:
            self.tick()

    def tick(self) -> None:
        """Let both do their upkeep."""
        self._untended = 0.0
        while self.run(self.real.foreman.tick(QUEUE)).more:
            pass
        self.at_once(self.model.tick(QUEUE))

    def promote(self) -> None:
        """Let both make ready what is due."""
        self.run(self.real.foreman.promote(QUEUE))
        self.at_once(self.model.promote(QUEUE))

    def compare(self) -> None:
        """Compare every job and counter, and ask the broker for its own audit."""
        theirs = {job: job_facts(seen) for job, seen in self.run(all_jobs(self.real.desk, QUEUE)).items()}
        ours = {job: job_facts(seen) for job, seen in self.at_once(all_jobs(self.model, QUEUE)).items()}
        assert theirs.keys() == ours.keys()
        for job, facts in ours.items():
            assert theirs[job] == facts, f"{job}: {difference(facts, theirs[job])}"
        said, true = (
            stats_facts(self.run(self.real.foreman.stats(QUEUE))),
            stats_facts(self.at_once(self.model.stats(QUEUE))),
        )
        assert said == true, difference(true, said)
        assert self.run(self.real.foreman.audit(QUEUE)) == ()

    def close(self) -> None:
        """Compare what happened to each job, and judge the broker's history by itself."""
        theirs, ours = self.run(all_events(self.real.desk, QUEUE)), self.at_once(all_events(self.model, QUEUE))
        told_by_broker, told_by_model = story(theirs), story(ours)
        for job, events in told_by_model.items():
            assert told_by_broker.get(job) == events, f"{job}: model {events}, broker {told_by_broker.get(job)}"
        assert told_by_broker.keys() == told_by_model.keys()
        verdict = self.judge()
        assert verdict.clean, str(verdict)

    def judge(self) -> Verdict:
        """Judge the history of the broker under test by itself."""
        terms = Terms(
            slots={worker: slots for worker, (slots, _) in WORKERS.items()},
            offers={worker: offers for worker, (_, offers) in WORKERS.items()},
            attempts=3,
            crashes=CRASHES,
            weights={"a": 2},
        )
        return check(
            self.run(all_events(self.real.desk, QUEUE)),
            submitted=self.submitted,
            final=self.run(all_jobs(self.real.desk, QUEUE)),
            told=self.told,
            stats=self.run(self.real.foreman.stats(QUEUE)),
            audit=self.run(self.real.foreman.audit(QUEUE)),
            terms=terms,
        )


def lease_facts(one: Lease) -> tuple[Any, ...]:
    """Return what is promised about a lease."""
    return (
        one.job_id,
        one.fence,
        one.generation,
        one.offer,
        one.attempts_used,
        one.crashes,
        one.overloads,
        one.remote,
        one.lane,
        one.expires_at,
        [attempt.number for attempt in one.history],
    )


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Return in which facts two sides differ."""
    names = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    return "; ".join(f"{name}: model {ours.get(name)!r}, broker {theirs.get(name)!r}" for name in sorted(names))


async def _awaited(work: Awaitable[None]) -> None:
    await work

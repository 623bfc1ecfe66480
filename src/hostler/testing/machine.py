"""A state machine that drives a broker and the model side by side, over every verb, and compares all they say.

    class MyMachine(BrokerMachine):
        def open(self) -> BrokerHarness: ...      # a fresh broker whose clock the test holds
        def run(self, work): ...                  # run a coroutine on the loop of that broker

    run_state_machine_as_test(MyMachine)

Needs Hypothesis. After each run the recorded history is judged as well.
"""

from abc import abstractmethod
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hostler.chaos.check import Submission, Told
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import JobRequest, Progress, Submitted
from hostler.contracts.lease import (
    Again,
    ClaimRequest,
    Die,
    Ending,
    Hold,
    Lease,
    LeaseRef,
    Settlement,
    Stopped,
    Succeed,
    Suspicion,
    Update,
)
from hostler.contracts.offer import Pool
from hostler.policy.affinity import LABEL
from hostler.policy.lanes import derive, shun
from hostler.testing.broker_house import BrokerHarness, request
from hostler.testing.machine_twins import QUEUE, STANDINGS, WORKERS, Twins, lease_facts

T = TypeVar("T")
WORDS = Failure(class_=FailureClass.TRANSIENT, message="it broke")
FULL = Failure(class_=FailureClass.OVERLOADED, message="no room")

needs = st.sampled_from(
    [{}, {}, {}, {"models": ("m1",)}, {"models": ("m2",)}, {"amounts": {"slots": 2}}, {"amounts": {"gpu": 12}}]
)
requests = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["work", "work", "once"]),
        "needs": needs,
        "priority": st.sampled_from([0, 50, 50, 51, 100]),
        "tenant": st.sampled_from(["a", "b", "c"]),
        "concurrency_key": st.sampled_from([None, None, None, None, "k1", "k2"]),
        "idempotency_key": st.sampled_from([None, None, None, "i1", "i2"]),
        "delay": st.sampled_from([None, None, None, None, None, 0.0, 2.0, 15.0]),
        "deadline": st.sampled_from([None, None, None, None, None, None, 1.0, 9.0]),
        "wait": st.sampled_from([None, None, None, None, None, 4.0]),
        "labels": st.sampled_from([{}, {}, {LABEL: "s1"}, {LABEL: "s2"}]),
        "payload": st.sampled_from([1, 2]),
    }
)
SUCCEEDED = Succeed(result=msgspec.Raw(b'{"ok":true}'))
endings = st.sampled_from(
    [
        SUCCEEDED,
        Again(failure=WORDS),
        Again(failure=WORDS, delay=2.0),
        Again(failure=WORDS, delay=12.0, counted=False),
        Again(failure=FULL, counted=False, overload=True),
        Again(failure=None, counted=False),
        Hold(reason="a person"),
        Hold(reason="quota", failure=WORDS, until=6.0),
        Die(failure=WORDS),
        Stopped(),
    ]
)
indexes = st.integers(min_value=0, max_value=30)


class WorkerMachine(RuleBasedStateMachine):
    """The half that submits and works."""

    twins: Twins

    @abstractmethod
    def open(self) -> BrokerHarness:
        """Return a fresh, empty broker."""

    @abstractmethod
    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine where the broker lives."""

    @initialize()
    def begin(self) -> None:
        self.leases: list[tuple[str, Lease]] = []
        self.jobs: list[str] = []
        self.twins = Twins(self.open(), self.run)
        self.twins.open()

    # verbs

    @rule(some=st.lists(requests, min_size=1, max_size=6))
    def submit(self, some: list[dict[str, Any]]) -> None:
        asked = [self.request_of(one) for one in some]
        operation = self.twins.operation()
        ours = self.twins.at_once(self.twins.model.submit(asked, operation=operation))
        theirs = self.twins.run(self.twins.real.desk.submit(asked, operation=operation))
        again = self.twins.run(self.twins.real.desk.submit(asked, operation=operation))
        got, due = [_answer(one) for one in theirs], [_answer(one) for one in ours]
        assert got == due, f"{asked}: broker {got}, model {due}"
        if all(isinstance(one, Submitted) for one in theirs):
            assert theirs == again
        for answer, what in zip(theirs, asked, strict=True):
            if isinstance(answer, Submitted):
                self.twins.submitted.append(Submission(id=answer.id, created=answer.created, request=what))
                self.jobs.append(answer.id)

    def request_of(self, one: dict[str, Any]) -> JobRequest:
        """Return a request from what was drawn."""
        facts = {name: value for name, value in one.items() if value is not None}
        wait, deadline = facts.pop("wait", None), facts.pop("deadline", None)
        if wait is not None:
            facts["timeouts"] = {"queue": wait}
        if deadline is not None and facts.get("idempotency_key") is None:
            facts["deadline"] = self.twins.real.now() + timedelta(seconds=deadline)
        return request(facts.pop("kind"), **facts)

    @rule(
        worker=st.sampled_from(sorted(WORKERS)),
        limit=st.integers(1, 5),
        free=st.sampled_from([None, None, 1]),
        beside=st.sampled_from(Suspicion),
    )
    def take(self, worker: str, limit: int, free: int | None, beside: Suspicion) -> None:
        self.claim(worker, limit, free, beside)

    @rule()
    def take_all(self) -> None:
        for worker in sorted(WORKERS):
            self.claim(worker, 5, None)

    @rule(worker=st.sampled_from(sorted(WORKERS)), some=st.lists(endings, min_size=1, max_size=3))
    def take_and_end(self, worker: str, some: list[Ending]) -> None:
        held = len(self.leases)
        self.claim(worker, 5, None)
        for (holder, lease), ending in zip(self.leases[held:], some, strict=False):
            self.end(holder, lease, ending)

    @rule(session=st.sampled_from(["s1", "s2"]), tenant=st.sampled_from(["a", "b"]))
    def move_a_session(self, session: str, tenant: str) -> None:
        """Fill the endpoint where a session is, so that its next job runs elsewhere, and the one after that as well."""
        one: dict[str, Any] = {
            "kind": "work",
            "needs": {"models": ("m2",)},
            "priority": 100,
            "tenant": tenant,
            "payload": 1,
        }
        one["labels"] = {LABEL: session}
        held = len(self.leases)
        self.submit([one, one])
        self.claim("w4", 2, None)
        self.submit([one])
        self.claim("w5", 1, None)
        for worker, lease in self.leases[held:]:
            self.end(worker, lease, SUCCEEDED)
        self.submit([one])
        self.claim("w5", 1, None)

    def claim(self, worker: str, limit: int, free: int | None, beside: Suspicion = Suspicion.NONE) -> None:
        """Claim on both sides: the same jobs, in the same order, and a replay of the call gives them again."""
        slots, offers = WORKERS[worker]
        pools = {"slots": Pool(id=worker, total=slots, free=free)}
        wanted = ClaimRequest(
            queue=QUEUE,
            worker=worker,
            limit=limit,
            offers=offers,
            standings=STANDINGS.get(worker, ()),
            pools=pools,
            suspicion=beside,
        )
        operation = self.twins.operation()
        theirs = self.twins.run(self.twins.real.broker.claim(wanted, operation=operation))
        self.twins.model.expect([lease.job_id for lease in theirs])
        ours = self.twins.at_once(self.twins.model.claim(wanted, operation=operation))
        got, due = [lease_facts(one) for one in theirs], [lease_facts(one) for one in ours]
        assert got == due, f"{worker} of {limit}: broker {got}, model {due}"
        again = self.twins.run(self.twins.real.broker.claim(wanted, operation=operation)) if theirs else theirs
        assert [(one.job_id, one.fence) for one in again] == [(one.job_id, one.fence) for one in theirs]
        self.leases.extend((worker, lease) for lease in theirs)

    @precondition(lambda self: self.leases)
    @rule(which=st.lists(indexes, min_size=1, max_size=4))
    def renew(self, which: list[int]) -> None:
        worker = self.pick_lease(which[0])[0]
        mine = [one for n in which for holder, one in [self.pick_lease(n)] if holder == worker]
        refs = list(dict.fromkeys((one.job_id, one.fence) for one in mine))
        self.twins.both("renew", worker, [LeaseRef(job_id=job, fence=fence) for job, fence in refs])

    @precondition(lambda self: self.leases)
    @rule(which=indexes, fraction=st.sampled_from([None, 0.25, 0.5]))
    def progress(self, which: int, fraction: float | None) -> None:
        worker, lease = self.pick_lease(which)
        progress = None if fraction is None else Progress(fraction=fraction)
        update = Update(job_id=lease.job_id, fence=lease.fence, progress=progress, remote=f"r{lease.fence}")
        self.twins.both("progress", worker, [update])

    @precondition(lambda self: self.leases)
    @rule(which=indexes, ending=endings, move=st.sampled_from([None, None, "shun", "exclude"]))
    def settle(self, which: int, ending: Ending, move: str | None) -> None:
        worker, lease = self.pick_lease(which)
        if isinstance(ending, Again) and move is not None:
            place = WORKERS[worker][1][lease.offer or 0].endpoint or worker
            lane = shun(lease.lane, place) if move == "shun" else derive(lease.lane, exclude=place)
            ending = msgspec.structs.replace(ending, lane=lane)
        self.end(worker, lease, ending)

    def end(self, worker: str, lease: Lease, ending: Ending) -> None:
        """End an attempt on both sides."""
        settlement = Settlement(job_id=lease.job_id, fence=lease.fence, ending=ending)
        (settled,) = self.twins.both_settle(worker, [settlement])
        delay = ending.delay if isinstance(ending, Again) else None
        self.twins.told.append(Told(job=lease.job_id, fence=attempt_of(lease.fence), accepted=settled[1], delay=delay))

    def pick_lease(self, which: int) -> tuple[str, Lease]:
        """Return one of the leases, rather a recent one."""
        return self.leases[-1 - which % len(self.leases)]


class BrokerMachine(WorkerMachine):
    """Drives both; subclass it with `open` and `run`."""

    @precondition(lambda self: self.jobs)
    @rule(which=indexes, verb=st.sampled_from(["cancel", "cancel", "replay", "replay", "wake", "purge"]))
    def act(self, which: int, verb: str) -> None:
        self.ask_for(verb, self.jobs[-1 - which % len(self.jobs)])

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 4), ending=endings)
    def cancel_what_runs(self, which: int, ending: Ending) -> None:
        worker, lease = self.pick_lease(which)
        self.ask_for("cancel", lease.job_id)
        self.end(worker, lease, ending)

    def ask_for(self, verb: str, job: str) -> None:
        """Ask for a move of a job, twice with one operation id."""
        operation = self.twins.operation()
        first = self.twins.both(verb, job, operation=operation, reason="asked")
        if not isinstance(first, type):
            again = self.twins.ask(self.twins.side(verb), verb, job, operation=operation, reason="asked")
            assert again == first

    @rule(verb=st.sampled_from(["pause", "drain"]), open_again=st.sampled_from([True, True, True, False]))
    def close_for_a_while(self, verb: str, open_again: bool) -> None:  # noqa: FBT001 - drawn by name
        self.twins.both(verb, QUEUE, operation=self.twins.operation(), reason="because")
        self.claim("w1", 3, None)
        if open_again:
            self.resume()

    @rule()
    def resume(self) -> None:
        self.twins.both("resume", QUEUE, operation=self.twins.operation(), reason="because")

    @rule(depth=st.sampled_from([None, None, 4, 12]), tenant_depth=st.sampled_from([None, None, 3]))
    def limit(self, depth: int | None, tenant_depth: int | None) -> None:
        limits = {"depth": depth, "tenant_depth": tenant_depth}
        self.twins.limits = {name: value for name, value in limits.items() if value is not None}
        self.twins.both("declare_queue", self.twins.queue())

    @rule(seconds=st.sampled_from([0.001, 0.6, 0.6, 1.5, 3.0, 4.5]))
    def pass_time(self, seconds: float) -> None:
        self.twins.advance(seconds)
        self.twins.tick()

    @rule(seconds=st.sampled_from([0.001, 0.6, 3.0]))
    def promote(self, seconds: float) -> None:
        self.twins.advance(seconds)
        self.twins.promote()

    @rule()
    def lose_leases(self) -> None:
        for _ in range(5):
            self.twins.advance(2.5)
            self.twins.tick()

    @rule(seconds=st.sampled_from([0.2, 1.0]))
    def advance_only(self, seconds: float) -> None:
        self.twins.advance(seconds)

    # what must hold

    @invariant()
    def they_agree(self) -> None:
        if hasattr(self, "twins"):
            self.twins.compare()

    def teardown(self) -> None:
        if hasattr(self, "twins"):
            self.twins.close()


def _answer(one: Submitted | Exception) -> object:
    return (one.id, one.created) if isinstance(one, Submitted) else type(one)

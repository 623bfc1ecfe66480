"""The judge of histories: a true history is clean, and each seeded wrong one is caught under its own name."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from hostler.broker.model import ModelBroker
from hostler.chaos.check import Effect, Submission, Terms, Told, Verdict, check
from hostler.contracts.api import JobFilter
from hostler.contracts.event import Event
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import Attempt, Job, JobRequest, JobState
from hostler.contracts.lease import Hold
from hostler.contracts.offer import Offer
from hostler.contracts.queue import KindSpec
from hostler.testing.broker import BrokerHarness, House
from hostler.testing.broker_house import QUEUE, request
from hostler.testing.clock import FakeClock

START = datetime(2026, 1, 1, tzinfo=UTC)
J = "q.1"
K = "q.2"


class Tape:
    """A history written by hand."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.at = START

    def later(self, seconds: float) -> "Tape":
        self.at += timedelta(seconds=seconds)
        return self

    def add(self, job: str | None, type_: str, state: str | None = None, **more: Any) -> "Tape":
        self.events.append(
            Event(
                offset=len(self.events) + 1,
                at=self.at,
                type=type_,
                job=job,
                state=JobState(state) if state else None,
                attempt=more.pop("fence", None),
                worker=more.pop("worker", None),
                data=more,
            )
        )
        return self

    def submit(self, job: str = J) -> "Tape":
        return self.add(job, "submit", "ready", fence=0)

    def claim(self, job: str = J, fence: int = 1, worker: str = "w") -> "Tape":
        return self.add(job, "claim", "running", fence=fence, worker=worker)

    def finish(self, job: str = J, fence: int = 1, worker: str = "w") -> "Tape":
        return self.add(job, "finish", "succeeded", fence=fence, worker=worker)

    def reap(self, job: str = J, fence: int = 1, worker: str = "w") -> "Tape":
        return self.add(job, "reap", "ready", fence=fence, worker=worker)

    def check(self, **more: Any) -> Verdict:
        return check(self.events, **more)


def submitted(job: str = J, *, created: bool = True, **fields: Any) -> Submission:
    return Submission(id=job, created=created, request=request("k", **fields))


def job_of(job: str, state: str, *attempts: Attempt) -> Job:
    facts = {"id": job, "kind": "k", "queue": "q", "state": state, "tenant": "default", "priority": 50}
    facts |= {"attempt": 1, "generation": 1, "created_at": START.isoformat(), "progress": None}
    facts |= dict.fromkeys(("ready_at", "started_at", "finished_at", "deadline", "worker", "service", "result"))
    facts |= {"result_ref": None, "error": None, "attempts": [], "resources": {}, "labels": {}}
    facts |= {"needs": {}, "avoid": {}, "unworkable": False}
    return msgspec.structs.replace(msgspec.json.decode(msgspec.json.encode(facts), type=Job), attempts=attempts)


def attempt(number: int, outcome: str = "retry", *, counted: bool = True) -> Attempt:
    failure = Failure(class_=FailureClass.TRANSIENT, message="x")
    return Attempt(
        number=number,
        generation=1,
        worker="w",
        started_at=START,
        ended_at=START,
        outcome=outcome,
        error=failure,
        counted=counted,
    )


async def test_a_true_history_of_every_verb_is_clean() -> None:
    clock = FakeClock()
    broker = ModelBroker(clock)

    async def advance(seconds: float) -> None:
        clock.advance(seconds)

    async def restart() -> None:
        broker.restart()

    harness = BrokerHarness(
        broker=broker, desk=broker, foreman=broker, registry=broker, now=clock.now, advance=advance, restart=restart
    )
    house = House(harness)
    await house.open()
    asked: list[JobRequest] = [
        request(priority=n % 7 * 10, tenant=("a", "b")[n % 2], concurrency_key="k" if n % 5 == 0 else None)
        for n in range(40)
    ]
    ids = await house.submit_all(asked)
    await house.foreman.pause(QUEUE, operation="p")
    await house.foreman.resume(QUEUE, operation="r")
    leases = list(await house.claim(12, worker="w1"))
    await house.fail(leases[0], delay=2.0)
    await house.end(leases[1], Hold(reason="x", until=3.0))
    await house.desk.cancel(leases[2].job_id, operation="c")
    for lease in leases[2:8]:
        await house.end(lease)
    await house.pass_time(15.0)
    await house.drain_line(worker="w2")
    page, _ = await house.desk.find(JobFilter(queue=QUEUE), limit=100)
    events = (await house.desk.events(QUEUE, after=0)).events
    verdict = check(
        events,
        submitted=[Submission(id=str(one), request=what) for one, what in zip(ids, asked, strict=True)],
        final={job.id: job for job in page},
        told=[Told(job=leases[3].job_id, fence=1, accepted=True)],
        effects=[Effect(job=leases[3].job_id, fence=1)],
        stats=await house.foreman.stats(QUEUE),
        audit=(),
        terms=Terms(
            slots={"w1": 12, "w2": 64},
            offers={"w1": (Offer(kinds=("work",)),), "w2": (Offer(kinds=("work",)),)},
            depth=40,
            tenant_depth=20,
            attempts=5,
            crashes=3,
            backoff_cap=300.0,
        ),
    )
    assert verdict.clean, verdict
    assert verdict.unjudged == ()
    assert len(verdict.judged) == 16


SEEDED: dict[str, tuple[str, Callable[[], Verdict]]] = {
    "an acknowledged job that never happened": (
        "S1",
        lambda: Tape().submit().check(submitted=[submitted(), submitted(K)]),
    ),
    "an acknowledged job that cannot be read at the end": (
        "S1",
        lambda: Tape().submit().check(submitted=[submitted()], final={}),
    ),
    "a job that nobody submitted": ("S2", lambda: Tape().submit().submit(K).check(submitted=[submitted()])),
    "an effect for a job that never was": (
        "S2",
        lambda: Tape().submit().check(submitted=[submitted()], effects=[Effect(job=K, fence=1)]),
    ),
    "a result that is recorded twice": ("S3", lambda: Tape().submit().claim().finish().finish().check()),
    "a job that runs again after its end": (
        "S3",
        lambda: Tape().submit().claim().finish().claim(fence=2).check(),
    ),
    "an offset that is missing": (
        "S4",
        lambda: check([*Tape().submit().events, msgspec.structs.replace(Tape().submit(K).events[0], offset=3)]),
    ),
    "a finish of a job that nobody claimed": ("S4", lambda: Tape().submit().finish().check()),
    "time that steps back": ("S4", lambda: Tape().submit().later(-5).submit(K).check()),
    "two leases for one job": ("S5", lambda: Tape().submit().claim().claim(fence=2, worker="v").check()),
    "a worker with one slot and two jobs": (
        "S5",
        lambda: Tape().submit().submit(K).claim().claim(K).check(terms=Terms(slots={"w": 1})),
    ),
    "two jobs of one concurrency key at once": (
        "S5",
        lambda: (
            Tape()
            .submit()
            .submit(K)
            .claim()
            .claim(K)
            .check(submitted=[submitted(concurrency_key="c"), submitted(K, concurrency_key="c")])
        ),
    ),
    "a fence that does not rise": ("S6", lambda: Tape().submit().claim().reap().claim(fence=1).check()),
    "a late worker whose result is accepted": (
        "S6",
        lambda: Tape().submit().claim().reap().claim(fence=2, worker="v").finish(fence=1, worker="w").check(),
    ),
    "another worker's result under the right fence": ("S6", lambda: Tape().submit().claim().finish(worker="v").check()),
    "a worker that was told yes and nothing happened": (
        "S6",
        lambda: Tape().submit().claim().check(told=[Told(job=J, fence=1, accepted=True)]),
    ),
    "an effect under an older fence": (
        "S7",
        lambda: (
            Tape()
            .submit()
            .claim()
            .reap()
            .claim(fence=2)
            .check(effects=[Effect(job=J, fence=2), Effect(job=J, fence=1)])
        ),
    ),
    "more effects than attempts": (
        "S7",
        lambda: Tape().submit().claim().check(effects=[Effect(job=J, fence=1), Effect(job=J, fence=1)]),
    ),
    "a success that no service knows of": (
        "S7",
        lambda: (
            Tape()
            .submit()
            .claim()
            .finish()
            .check(submitted=[submitted()], effects=[], terms=Terms(effectful=frozenset({"k"})))
        ),
    ),
    "a sixth attempt": (
        "S8",
        lambda: (
            Tape()
            .submit()
            .check(final={J: job_of(J, "ready", *(attempt(n) for n in range(1, 7)))}, terms=Terms(attempts=5))
        ),
    ),
    "a fourth crash": (
        "S8",
        lambda: (
            Tape()
            .submit()
            .check(
                final={J: job_of(J, "ready", *(attempt(n, "reap", counted=False) for n in range(1, 5)))},
                terms=Terms(crashes=3),
            )
        ),
    ),
    "a retry before its time": (
        "S8",
        lambda: (
            Tape()
            .submit()
            .claim()
            .add(J, "retry", "scheduled", fence=1, worker="w", delay=8.0)
            .later(2.0)
            .add(J, "wake", "ready", fence=1)
            .check(final={})
        ),
    ),
    "a retry before the time that its worker asked for": (
        "S8",
        lambda: (
            Tape()
            .submit()
            .claim()
            .add(J, "retry", "scheduled", fence=1, worker="w")
            .later(2.0)
            .add(J, "wake", "ready", fence=1)
            .check(told=[Told(job=J, fence=1, accepted=True, delay=8.0)])
        ),
    ),
    "a retry at once, of which its worker asked that it wait": (
        "S8",
        lambda: (
            Tape()
            .submit()
            .claim()
            .add(J, "retry", "ready", fence=1, worker="w")
            .check(told=[Told(job=J, fence=1, accepted=True, delay=8.0)])
        ),
    ),
    "a backoff beyond its cap": (
        "S8",
        lambda: (
            Tape()
            .submit()
            .claim()
            .add(J, "retry", "scheduled", fence=1, worker="w", delay=800.0)
            .check(terms=Terms(backoff_cap=300.0))
        ),
    ),
    "one key that made two jobs": (
        "S9",
        lambda: (
            Tape()
            .submit()
            .later(60.0)
            .submit(K)
            .check(submitted=[submitted(idempotency_key="i"), submitted(K, idempotency_key="i")])
        ),
    ),
    "a job that went to a worker without its model": (
        "S10",
        lambda: (
            Tape()
            .submit()
            .claim()
            .check(
                submitted=[submitted(needs={"models": ("flux",)})],
                terms=Terms(offers={"w": (Offer(kinds=("k",), models=("sdxl",)),)}),
            )
        ),
    ),
    "a job that went to a worker that it avoids": (
        "S10",
        lambda: (
            Tape()
            .submit()
            .claim()
            .check(
                submitted=[submitted(avoid={"workers": ("w",)})],
                terms=Terms(offers={"w": (Offer(kinds=("k",)),)}),
            )
        ),
    ),
    "a later job that goes first": (
        "S11",
        lambda: Tape().submit().submit(K).claim(K).check(submitted=[submitted(), submitted(K)]),
    ),
    "a less urgent job that goes first": (
        "S11",
        lambda: Tape().submit().submit(K).claim().check(submitted=[submitted(priority=10), submitted(K, priority=90)]),
    ),
    "a tenant that takes every turn": (
        "S11",
        lambda: (
            Tape()
            .submit("q.1")
            .submit("q.2")
            .submit("q.3")
            .claim("q.1")
            .claim("q.2")
            .check(submitted=[submitted("q.1", tenant="a"), submitted("q.2", tenant="a"), submitted("q.3", tenant="b")])
        ),
    ),
    "an audit that found a difference": ("S12", lambda: Tape().submit().check(audit=["one job in two indexes"])),
    "a dead job that was not kept": (
        "S13",
        lambda: Tape().submit().claim().add(J, "fail", "dead", fence=1, worker="w").check(final={}),
    ),
    "a job whose record says otherwise": (
        "S13",
        lambda: Tape().submit().claim().check(final={J: job_of(J, "ready")}),
    ),
    "a cancelled job that completes": (
        "S14",
        lambda: Tape().submit().claim().add(J, "cancel", fence=1).finish().check(),
    ),
    "a cancelled job that is run again": (
        "S14",
        lambda: Tape().submit().claim().add(J, "cancel", fence=1).reap().check(),
    ),
    "a queue that is deeper than its limit": (
        "S15",
        lambda: Tape().submit().submit(K).check(terms=Terms(depth=1)),
    ),
    "a tenant that is deeper than its limit": (
        "S15",
        lambda: Tape().submit().submit(K).check(submitted=[submitted(), submitted(K)], terms=Terms(tenant_depth=1)),
    ),
    "a claim while the queue is paused": ("S17", lambda: Tape().submit().add(None, "pause").claim().check()),
}


@pytest.mark.parametrize("seed", SEEDED)
@pytest.mark.row("000:48")
def test_a_seeded_wrong_history_is_caught_under_its_name(seed: str) -> None:
    invariant, judge = SEEDED[seed]
    verdict = judge()
    assert invariant in verdict.broken(), verdict
    finding = next(one for one in verdict.findings if one.invariant == invariant)
    assert finding.sentence


async def test_counters_that_disagree_with_the_events_are_caught() -> None:
    clock = FakeClock()
    broker = ModelBroker(clock)
    await broker.declare_kind(msgspec.convert({"name": "k", "queue": "q"}, type=KindSpec))
    await broker.submit([request("k")], operation="1")
    events = (await broker.events("q", after=0)).events
    stats = await broker.stats("q")
    assert check(events, stats=stats).clean
    for wrong in (
        msgspec.structs.replace(stats, ready=2),
        msgspec.structs.replace(stats, totals={**stats.totals, "submitted": 2}),
    ):
        assert check(events, stats=wrong).broken() == ("S12",)


def test_what_was_not_recorded_is_named_and_not_taken_as_good() -> None:
    verdict = Tape().submit().check()
    assert verdict.clean
    assert set(verdict.unjudged) == {"S1", "S2", "S7", "S8", "S9", "S10", "S11", "S12", "S13", "S15"}


def test_an_answer_that_was_never_seen_excuses_one_unknown_job_and_no_second() -> None:
    tape = Tape().submit().submit(K)
    terms = Terms(unknown_submits=1)
    assert tape.check(submitted=[submitted()], terms=terms).clean
    assert tape.submit("q.3").check(submitted=[submitted()], terms=terms).broken() == ("S2",)


def test_a_key_may_make_a_new_job_after_its_window() -> None:
    tape = Tape().submit().later(3601.0).submit(K)
    assert tape.check(submitted=[submitted(idempotency_key="i"), submitted(K, idempotency_key="i")]).clean


def test_an_ending_that_a_worker_sends_again_with_another_delay_changes_nothing() -> None:
    tape = Tape().submit().claim().add(J, "retry", "scheduled", fence=1, worker="w").later(2.0)
    tape = tape.add(J, "wake", "ready", fence=1)
    first = Told(job=J, fence=1, accepted=True, delay=2.0)
    assert tape.check(told=[first, Told(job=J, fence=1, accepted=True, delay=8.0)]).clean
    assert tape.check(told=[Told(job=J, fence=1, accepted=True, delay=8.0), first]).broken() == ("S8",)

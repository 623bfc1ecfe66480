"""What keeps endpoints from a job, from hand-made reports: pauses end, old facts say so, two views are one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from hostler.contracts.explain import Obstacle
from hostler.contracts.needs import Lane, Needs
from hostler.contracts.offer import Offer, Pool
from hostler.contracts.service import BreakerMode, Cooling, Endpoint, EndpointState, Traffic
from hostler.contracts.worker import Worker, WorkerState
from hostler.policy.obstacles import Survey

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
LANE = Lane(kind="draw", needs=Needs(amounts={"slots": 1.0}))


def seen(name: str, **facts: Any) -> Endpoint:
    plain = Endpoint(
        id=name,
        service="s",
        connector="s-http",
        url="http://h",
        protocol="http",
        state=EndpointState.READY,
        message="",
        seen_at=NOW,
    )
    return msgspec.structs.replace(plain, **facts)


def worker(name: str, *endpoints: Endpoint, age: float = 1.0, **facts: Any) -> Worker:
    """Return a worker that reported `age` seconds ago and serves these."""
    offers = tuple(
        Offer(kinds=("draw",), endpoint=one.id, pools={"slots": Pool(id=f"{one.id}/slots", total=4.0)})
        for one in endpoints
    )
    record = Worker(
        id=name,
        state=WorkerState.READY,
        machine="m",
        pid=1,
        version="1",
        slots=4,
        running=0,
        queues=("q",),
        offers=offers,
        endpoints=endpoints,
        started_at=NOW,
        seen_at=NOW - timedelta(seconds=age),
        expires_at=NOW,
        loop_age=0.0,
    )
    return msgspec.structs.replace(record, **facts)


def survey(*workers: Worker, lane: Lane = LANE, **more: Any) -> Survey:
    return Survey(lane, workers, now=NOW, **more)


def test_a_pause_ends_on_the_engines_clock_whatever_the_last_report_says() -> None:
    open_ = Traffic(breaker=BreakerMode.OPEN, breaker_s=4.0)
    cooled = Traffic(cooled_s=4.0, cooled_by=Cooling.ASKED)
    found = survey(worker("w", seen("a", traffic=open_), seen("b", traffic=cooled), age=3.0))
    assert found.kept_out() == {Obstacle.BREAKER: 1, Obstacle.COOLING: 1}
    assert [one.hindrances[0].until for one in found.candidates()] == [NOW + timedelta(seconds=1)] * 2
    later = survey(worker("w", seen("a", traffic=open_), seen("b", traffic=cooled), age=5.0))
    assert (later.kept_out(), later.open) == ({}, 2)


def test_facts_older_than_a_few_seconds_say_how_old_they_are() -> None:
    paused = seen("a", paused="a new fan")
    assert survey(worker("w", paused, age=3.0)).sentences()[1] == "a (by w): an operator paused it: a new fan"
    assert survey(worker("w", paused, age=8.0)).sentences()[1].endswith("(as w reported 8 s ago)")


def test_an_endpoint_that_one_worker_can_use_is_not_kept_out_whatever_another_sees() -> None:
    broken = seen("a", traffic=Traffic(breaker=BreakerMode.OPEN, breaker_s=9.0))
    both = survey(worker("w1", broken), worker("w2", seen("a")))
    assert (both.endpoints, both.open, both.kept_out(), both.sentences()) == (1, 1, {}, [])
    neither = survey(worker("w1", broken), worker("w2", seen("a"), state=WorkerState.PAUSED))
    assert neither.kept_out() == {Obstacle.WORKER: 1, Obstacle.BREAKER: 1}


def test_a_breaker_that_is_ignored_keeps_nothing_out() -> None:
    forced = Traffic(breaker=BreakerMode.OPEN, breaker_s=9.0, forced=True)
    assert survey(worker("w", seen("a", traffic=forced))).kept_out() == {}


def test_a_breaker_that_tries_out_lets_the_next_one_in_once_its_call_is_over() -> None:
    trying = Traffic(breaker=BreakerMode.HALF_OPEN, in_flight=1)
    idle = Traffic(breaker=BreakerMode.HALF_OPEN)
    assert survey(worker("w", seen("a", traffic=trying))).kept_out() == {Obstacle.BREAKER: 1}
    assert survey(worker("w", seen("a", traffic=idle))).kept_out() == {}


def test_limits_and_empty_accounts_are_quota_and_learned_limits_are_full() -> None:
    limit = Traffic(cooled_s=9.0, cooled_by=Cooling.LIMIT, cooled_why="limit 3/s is used up")
    quota = Traffic(cooled_s=9.0, cooled_by=Cooling.QUOTA)
    learned = Traffic(in_flight=2, limit=2)
    found = survey(worker("w", *(seen(f"e{n}", traffic=one) for n, one in enumerate((limit, quota, learned)))))
    assert found.kept_out() == {Obstacle.QUOTA: 2, Obstacle.FULL: 1}
    assert "limit 3/s is used up" in found.candidates()[0].hindrances[0].words


def test_what_running_jobs_take_is_counted_against_a_shared_amount() -> None:
    two = (worker("w1", seen("a")), worker("w2", seen("a")))
    assert survey(*two, taken={"a/slots|slots": 3.0}).kept_out() == {}
    assert survey(*two, taken={"a/slots|slots": 4.0}).kept_out() == {Obstacle.FULL: 1}


def test_an_endpoint_that_never_answered_is_unhealthy_and_not_short_of_what_it_was_never_asked_for() -> None:
    silent = seen("a", state=EndpointState.UNHEALTHY, message="connection refused")
    offer = Offer(kinds=("draw",), endpoint="a", healthy=False, models_known=False)
    lane = Lane(kind="draw", needs=Needs(models=("flux",)))
    record = worker("w", silent, offers=(offer,))
    assert survey(record, lane=lane).kept_out() == {Obstacle.HEALTH: 1}
    labelled = Lane(kind="draw", needs=Needs(labels={"gpu": "1"}, models=("flux",)))
    assert survey(record, lane=labelled).kept_out() == {Obstacle.HEALTH: 1}
    elsewhere = Lane(kind="draw", needs=Needs(service="t"))
    assert survey(record, lane=elsewhere).kept_out() == {Obstacle.CAPABILITY: 1, Obstacle.HEALTH: 1}
    assert survey(record, lane=elsewhere).candidates() == ()


def test_handlers_of_other_kinds_are_no_endpoints() -> None:
    other = worker("w1", offers=(Offer(kinds=("count",)),))
    mine = worker("w2", offers=(Offer(kinds=("draw",)),), state=WorkerState.DRAINING)
    found = survey(other, mine)
    assert (found.endpoints, found.kept_out()) == (1, {Obstacle.WORKER: 1})
    assert found.sentences()[1] == "handlers of w2: the worker is draining"


def test_an_endpoint_that_keeps_its_model_says_which_one_it_holds() -> None:
    lane = Lane(kind="draw", needs=Needs(models=("b",), amounts={"slots": 1.0}))
    base = worker("w", seen("a", loaded=("a",), may_load=()), seen("c", loaded=("a",), may_load=("b",)))
    offers = tuple(msgspec.structs.replace(offer, models=("a", "b")) for offer in base.offers)
    found = survey(msgspec.structs.replace(base, offers=offers), lane=lane)
    assert (found.kept_out(), found.open) == ({Obstacle.MODEL: 1}, 1)
    (hindrance,) = found.candidates()[0].hindrances
    assert hindrance.words == "it holds one model at a time, now a: b may not be loaded yet"

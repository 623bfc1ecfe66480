"""Which endpoint gets a call: filters with reasons, warmth within a bound, the better of two."""

import math
import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from hostler.contracts.needs import Avoid, Lane, Needs
from hostler.contracts.offer import Offer
from hostler.policy.balance import BOUND, RAMP, Call, Choice, Facts, How, Reason, Standing, Warmth, choose

LANE = Lane(kind="draw", needs=Needs(service="sim", models=("m",)))


def offer(endpoint: str, *, healthy: bool = True, models: tuple[str, ...] = ("m",), kind: str = "draw") -> Offer:
    return Offer(kinds=(kind,), service="sim", endpoint=endpoint, healthy=healthy, models=models)


def call(
    lane: Lane = LANE, *, session: str | None = None, prefix: str | None = None, tried: tuple[str, ...] = ()
) -> Call:
    return Call(lane=lane, worker="w", session=session, prefix=prefix, tried=tried)


def dice(*rolls: float) -> Callable[[], float]:
    left = list(rolls)
    return lambda: left.pop(0)


def picked(standing: dict[str, Standing], the_call: Call | None = None, *rolls: float) -> Choice:
    return choose([offer(name) for name in standing], the_call or call(), Facts(standing=standing), dice(*rolls))


def test_who_lacks_a_need_or_is_avoided_never_gets_it() -> None:
    avoiding = Lane(kind="draw", needs=Needs(models=("m",)), avoid=Avoid(labels={"zone": "b"}))
    offers = [offer("other", kind="speak"), offer("bare", models=()), offer("good")]
    choice = choose(offers, call(avoiding), Facts(), dice())
    assert (choice.endpoint, choice.how) == ("good", How.ONLY)
    assert choice.reasons == {"capability": 2}
    assert [one.detail for one in choice.judged] == ["kind", "models", ""]


def test_every_obstacle_has_a_reason_of_its_own_and_is_counted() -> None:
    offers = [offer(name) for name in ("paused", "cooled", "full", "out", "out2", "well", "well2")]
    offers += [offer("ill", healthy=False), offer("other", models=())]
    standing = {
        "paused": Standing(paused="an operator stopped it"),
        "cooled": Standing(cooled=7.0),
        "full": Standing(limit=2, outstanding=2),
        "out": Standing(out=True, out_for=4.0),
        "out2": Standing(out=True, out_for=9.0),
    }
    choice = choose(offers, call(), Facts(standing=standing), dice(0.0, 0.0))
    assert choice.reasons == {"pause": 1, "quota": 1, "room": 1, "breaker": 2, "health": 1, "capability": 1}
    assert choice.endpoint in {"well", "well2"}
    assert not choice.panic


def test_isolation_is_a_reason_of_its_own() -> None:
    lane = Lane(kind="draw", needs=Needs(isolation="container"))
    choice = choose([offer("open")], call(lane), Facts(), dice())
    assert choice.reasons == {"isolation": 1}


def test_with_nobody_left_it_says_when_somebody_will_be_back() -> None:
    standing = {"a": Standing(cooled=7.0), "b": Standing(paused="stopped"), "c": Standing(cooled=3.0)}
    choice = picked(standing)
    assert (choice.endpoint, choice.how, choice.back_in) == (None, How.NOBODY, 3.0)
    assert choose([], call(), Facts(), dice()).endpoint is None
    assert choose([], call(), Facts(), dice()).back_in is None


def test_when_more_than_half_of_those_that_fit_are_out_breakers_are_ignored() -> None:
    out = Standing(out=True, out_for=5.0)
    choice = picked({"a": out, "b": out, "c": Standing(outstanding=50)}, None, 0.0, 0.0)
    assert (choice.panic, choice.endpoint) == (True, "a")
    calm = picked({"a": out, "b": Standing(outstanding=50)})
    assert (calm.panic, calm.endpoint) == (False, "b")
    assert picked({"a": out}).endpoint is None


def test_an_endpoint_that_failed_the_job_is_spared_as_long_as_another_is_left() -> None:
    standing = {"a": Standing(), "b": Standing(outstanding=90)}
    choice = picked(standing, call(tried=("a",)))
    assert (choice.endpoint, choice.reasons) == ("b", {"tried": 1})
    assert picked({"a": Standing()}, call(tried=("a",))).endpoint == "a"


def test_the_warmest_endpoint_goes_first_session_before_prefix_before_model() -> None:
    standing = {name: Standing(slots=4) for name in ("cold", "model", "prefix", "session")}
    standing["model"] = Standing(slots=4, loaded=("m",))
    homes = {(Warmth.SESSION, "s"): "session", (Warmth.PREFIX, "p"): "prefix"}
    offers = [offer(name) for name in standing]
    facts = Facts(standing=standing, homes=homes)
    assert choose(offers, call(session="s", prefix="p"), facts, dice()).endpoint == "session"
    assert choose(offers, call(session="other", prefix="p"), facts, dice()).endpoint == "prefix"
    choice = choose(offers, call(), facts, dice())
    assert (choice.endpoint, choice.how) == ("model", How.WARM)


def test_a_warm_endpoint_gets_no_more_than_a_quarter_over_its_share() -> None:
    warm = Standing(slots=4, outstanding=5, loaded=("m",))
    cold = {name: Standing(slots=4, outstanding=5) for name in ("b", "c", "d")}
    assert picked({"a": warm, **cold}).endpoint == "a"
    overfull = Standing(slots=4, outstanding=8, loaded=("m",))
    assert picked({"a": overfull, **cold}, None, 0.0, 0.0).endpoint == "b"


def test_of_two_the_one_with_less_work_for_its_speed_is_taken() -> None:
    quick, slow = Standing(outstanding=3, latency=1.0), Standing(outstanding=1, latency=3.0)
    assert picked({"slow": slow, "quick": quick}, None, 0.0, 0.0).endpoint == "quick"
    wide = Standing(outstanding=3, slots=8)
    assert picked({"narrow": Standing(outstanding=1), "wide": wide}, None, 0.0, 0.0).endpoint == "wide"


def test_a_new_endpoint_gets_its_share_slowly() -> None:
    old = Standing(outstanding=3, latency=1.0)
    for age, winner in ((0.0, "old"), (RAMP / 6, "old"), (RAMP / 2, "new"), (RAMP, "new")):
        standing = {"old": old, "new": Standing(age=age)}
        assert picked(standing, None, 0.0, 0.0).endpoint == winner


standings = st.builds(
    Standing,
    slots=st.floats(1, 16),
    outstanding=st.integers(0, 40),
    limit=st.none() | st.integers(1, 40),
    latency=st.none() | st.floats(0, 100),
    age=st.floats(0, 60),
    paused=st.none() | st.just("stopped"),
    cooled=st.just(0.0) | st.floats(0.1, 60),
    out=st.booleans(),
    out_for=st.floats(0, 60),
    loaded=st.just(()) | st.just(("m",)),
)
pools = st.dictionaries(st.sampled_from([f"e{n}" for n in range(8)]), standings, max_size=8)


@given(pools, st.integers(0, 2**32), st.lists(st.sampled_from([f"e{n}" for n in range(8)]), max_size=3))
def test_what_is_chosen_has_nothing_against_it_and_everything_is_explained(
    standing: dict[str, Standing], seed: int, tried: list[str]
) -> None:
    roll = random.Random(seed).random
    choice = choose([offer(name) for name in standing], call(tried=tuple(tried)), Facts(standing=standing), roll)
    by_name = {one.endpoint: one for one in choice.judged}
    assert by_name.keys() == standing.keys()
    assert sum(choice.reasons.values()) == sum(one.reason is not None for one in choice.judged)
    fit = [one for one in choice.judged if one.reason is None]
    assert (choice.endpoint is None) == (not fit)
    if choice.endpoint is None:
        return
    chosen, facts = by_name[choice.endpoint], standing[choice.endpoint]
    assert chosen.reason is None
    assert facts.paused is None
    assert facts.cooled == 0.0
    assert facts.limit is None or facts.outstanding < facts.limit
    assert not facts.out or choice.panic
    assert choice.endpoint in choice.compared
    assert all(by_name[other].cost >= chosen.cost for other in choice.compared)
    if choice.how is How.WARM:
        share = (sum(one.outstanding for one in fit if one.reason is None) + 1) * facts.slots
        total = sum(standing[one.endpoint].slots for one in choice.judged if one.reason in {None, Reason.TRIED})
        tried_too = sum(one.outstanding for one in choice.judged if one.reason is Reason.TRIED) * facts.slots
        assert facts.outstanding + 1 <= math.ceil(BOUND * (share + tried_too) / total)


@given(pools)
def test_the_same_facts_and_rolls_give_the_same_choice(standing: dict[str, Standing]) -> None:
    first, second = (picked(standing, None, 0.3, 0.7) for _ in range(2))
    assert first == second

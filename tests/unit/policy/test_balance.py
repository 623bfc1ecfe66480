"""Which of several endpoints gets a job: warmth within a bound, then cost; the same rule as in the engine."""

import random

from hypothesis import given
from hypothesis import strategies as st

from hostler.contracts.lease import ClaimRequest
from hostler.contracts.needs import Avoid, Lane, Needs
from hostler.contracts.offer import Offer, Standing
from hostler.policy.balance import BOUND, Way, admits, best, cost, is_home, is_warm, standings_of

ways = st.builds(
    Way,
    outstanding=st.integers(0, 64).map(lambda n: n * 1000),
    slots=st.integers(1, 64).map(lambda n: n * 1000),
    weight=st.integers(1, 1_000_000),
    warm=st.booleans(),
    home=st.booleans(),
    shunned=st.booleans(),
)


@given(st.lists(ways, min_size=1, max_size=12))
def test_where_the_job_failed_comes_last(some: list[Way]) -> None:
    chosen = some[best(some)]
    assert not chosen.shunned or all(way.shunned for way in some)


@given(st.lists(ways, min_size=1, max_size=12))
def test_a_cold_endpoint_that_is_taken_is_the_cheapest(some: list[Way]) -> None:
    chosen = some[best(some)]
    if not chosen.warm and not chosen.home:
        assert cost(chosen) == min(cost(way) for way in some if way.shunned == chosen.shunned)


@given(st.lists(ways, min_size=2, max_size=12))
def test_a_preferred_endpoint_never_carries_more_than_its_bound(some: list[Way]) -> None:
    chosen = some[best(some)]
    rivals = [way for way in some if way.shunned == chosen.shunned]
    share = (sum(way.outstanding for way in rivals) + 1000) * chosen.slots / sum(way.slots for way in rivals)
    within = chosen.outstanding + 1000 <= BOUND * share + 1000
    assert within or cost(chosen) == min(cost(way) for way in rivals)


@given(st.lists(ways, min_size=1, max_size=12))
def test_where_the_session_ran_goes_before_where_only_the_model_is_warm(some: list[Way]) -> None:
    chosen = some[best(some)]
    rivals = [way for way in some if way.shunned == chosen.shunned]
    share = (sum(way.outstanding for way in rivals) + 1000) / sum(way.slots for way in rivals)
    if any(way.home and way.outstanding + 1000 <= BOUND * share * way.slots for way in rivals):
        assert chosen.home


@given(st.lists(ways, min_size=1, max_size=12), st.randoms())
def test_the_order_of_the_offers_does_not_change_what_it_costs(some: list[Way], chance: random.Random) -> None:
    mixed = list(some)
    chance.shuffle(mixed)
    assert cost(some[best(some)]) == cost(mixed[best(mixed)])


def test_models_in_memory_make_an_endpoint_warm_only_for_a_job_that_names_them() -> None:
    lane = Lane(kind="draw", needs=Needs(models=("a", "b")))
    assert is_warm(lane, Standing(loaded=("b", "a", "c")))
    assert not is_warm(lane, Standing(loaded=("a",)))
    assert not is_warm(Lane(kind="draw"), Standing(loaded=("a",)))


def test_a_model_that_may_not_be_loaded_keeps_a_job_away_and_one_in_memory_does_not() -> None:
    lane = Lane(kind="draw", needs=Needs(models=("a",)))
    assert admits(lane, "e", Standing())
    assert admits(lane, "e", Standing(loaded=("a",), swaps=()))
    assert admits(lane, "e", Standing(loaded=("b",), swaps=("a",)))
    assert not admits(lane, "e", Standing(loaded=("b",), swaps=()))
    assert admits(Lane(kind="draw"), "e", Standing(loaded=("b",), swaps=()))


def test_an_excluded_endpoint_is_not_admitted() -> None:
    lane = Lane(kind="draw", avoid=Avoid(workers=("e",)))
    assert not admits(lane, "e", Standing())
    assert admits(lane, "f", Standing())
    assert admits(lane, None, Standing())


def test_offers_of_which_nothing_is_said_stand_as_usual() -> None:
    offers = (Offer(kinds=("draw",)), Offer(kinds=("speak",)))
    said = Standing(weight=2.0)
    request = ClaimRequest(queue="main", worker="w", limit=1, offers=offers, standings=(said,))
    assert standings_of(request) == (said, Standing())


def test_a_home_is_the_endpoint_of_the_last_job_unless_its_models_have_left_the_memory() -> None:
    lane = Lane(kind="draw", needs=Needs(models=("a",)))
    for standing in (Standing(), Standing(loaded=("a", "b"))):
        assert is_home(lane, standing, endpoint="e", home="e")
        assert not is_home(lane, standing, endpoint="f", home="e")
        assert not is_home(lane, standing, endpoint=None, home=None)
    assert not is_home(lane, Standing(loaded=("b",)), endpoint="e", home="e")
    assert is_home(Lane(kind="draw"), Standing(loaded=()), endpoint="e", home="e")

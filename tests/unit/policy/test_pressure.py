"""Which model an endpoint that holds one at a time loads next."""

import pytest

from hostler.policy.pressure import DWELL, GRUDGE, Line, Loaded, pressure, swap

HERE = Loaded(models=("a",), since=0.0)
LATER = DWELL + 1.0
ABLE = ("a", "b", "c")


def test_pressure_is_ten_for_each_job_and_one_for_each_second_of_the_oldest() -> None:
    assert pressure(Line(waiting=3, oldest=4.0)) == 34.0
    assert pressure(Line(waiting=0, oldest=4.0)) == 0.0
    assert pressure(Line(waiting=6, oldest=4.0), sharers=3) == 24.0


def test_the_most_urgent_model_is_loaded_when_nobody_waits_for_the_present_one() -> None:
    lines = {"b": Line(waiting=1, oldest=1.0), "c": Line(waiting=2, oldest=0.0)}
    assert swap(HERE, lines, able=ABLE, now=0.1) == "c"
    assert swap(Loaded(), lines, able=ABLE, now=0.1) == "c"


def test_a_model_that_jobs_wait_for_stays_its_dwell_and_then_until_another_is_more_urgent() -> None:
    lines = {"a": Line(waiting=1, oldest=0.0), "b": Line(waiting=50, oldest=9.0)}
    assert swap(HERE, lines, able=ABLE, now=DWELL - 0.1) is None
    assert swap(HERE, lines, able=ABLE, now=LATER) == "b"
    even = {"a": Line(waiting=5, oldest=9.0), "b": Line(waiting=5, oldest=9.0)}
    assert swap(HERE, even, able=ABLE, now=LATER) is None


@pytest.mark.parametrize("able", [("a",), ()])
def test_what_the_endpoint_lacks_is_never_loaded(able: tuple[str, ...]) -> None:
    assert swap(HERE, {"b": Line(waiting=9, oldest=9.0)}, able=able, now=LATER) is None


def test_a_model_that_just_failed_to_load_is_not_tried_again_for_a_while() -> None:
    loaded = Loaded(failed={"b": 100.0})
    lines = {"b": Line(waiting=9, oldest=9.0)}
    assert swap(loaded, lines, able=ABLE, now=100.0 + GRUDGE - 1) is None
    assert swap(loaded, lines, able=ABLE, now=100.0 + GRUDGE) == "b"


def test_what_another_endpoint_holds_is_loaded_here_too_once_its_jobs_waited_as_long_as_a_load_takes() -> None:
    here = Loaded(models=("a",), load=5.0)
    assert swap(here, {"b": Line(waiting=9, oldest=4.0, elsewhere=1)}, able=ABLE, now=LATER) is None
    assert swap(here, {"b": Line(waiting=9, oldest=5.0, elsewhere=1)}, able=ABLE, now=LATER) == "b"


def test_jobs_are_shared_by_the_endpoints_that_hold_their_model() -> None:
    three = {"a": Line(waiting=40, oldest=0.0, elsewhere=3), "b": Line(waiting=20, oldest=0.0, elsewhere=0)}
    assert swap(HERE, three, able=ABLE, now=LATER) == "b"
    after = {"a": Line(waiting=40, oldest=0.0, elsewhere=2), "b": Line(waiting=20, oldest=0.0, elsewhere=1)}
    assert swap(HERE, after, able=ABLE, now=LATER) is None

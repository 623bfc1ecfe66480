"""Lanes: equal needs share one, however written; derived lanes are few."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.contracts.job import JobRequest
from hostler.contracts.needs import Avoid, Lane, Needs
from hostler.policy.lanes import WORKERS_MAX, base, derive, lane_key, lane_of, quantise, shun

AMOUNTS = st.floats(min_value=1e-6, max_value=1e15)
WORDS = st.text("abc", min_size=1, max_size=3)


@given(AMOUNTS)
def test_an_amount_is_never_understated_and_grows_by_less_than_a_sixteenth(amount: float) -> None:
    assert amount <= quantise(amount) < amount * (1 + 1 / 16)


@given(AMOUNTS)
def test_rounding_an_amount_again_changes_nothing(amount: float) -> None:
    assert quantise(quantise(amount)) == quantise(amount)


@given(st.integers(min_value=1, max_value=255))
def test_small_whole_amounts_stay_exact(amount: int) -> None:
    assert quantise(amount) == amount


@pytest.mark.parametrize("gib", [1, 2, 6, 8, 12, 16, 24, 48, 80, 96, 128])
def test_round_binary_sizes_stay_exact(gib: int) -> None:
    assert quantise(gib * 2**30) == gib * 2**30


def test_amounts_that_hardly_differ_share_a_lane() -> None:
    keys = {lane_key(lane_of(_request(amounts={"gpu_memory": mib}))) for mib in (8_000, 8_001, 8_100)}
    assert len(keys) == 1


def test_amounts_that_differ_much_do_not() -> None:
    assert lane_key(lane_of(_request(amounts={"g": 8_000}))) != lane_key(lane_of(_request(amounts={"g": 9_000})))


@given(st.permutations(["a", "b", "c"]), st.permutations([("x", "1"), ("y", "2"), ("z", "3")]))
def test_the_order_in_which_needs_are_written_does_not_matter(models: list[str], labels: list[tuple[str, str]]) -> None:
    written = _request(models=tuple(models), labels=dict(labels))
    sorted_ = _request(models=("a", "b", "c"), labels={"x": "1", "y": "2", "z": "3"})
    assert lane_of(written) == lane_of(sorted_)
    raw = Lane(kind="k", needs=written.needs)
    assert lane_key(raw) == lane_key(lane_of(sorted_))


def test_a_lane_always_takes_a_slot_and_saying_so_changes_nothing() -> None:
    assert lane_of(_request()).needs.amounts == {"slots": 1.0}
    assert lane_key(lane_of(_request())) == lane_key(lane_of(_request(amounts={"slots": 1})))


@given(st.sets(WORDS, min_size=1, max_size=4), st.sets(WORDS, min_size=1, max_size=4))
def test_different_needs_have_different_keys(some: set[str], other: set[str]) -> None:
    def key(models: set[str]) -> str:
        return lane_key(lane_of(_request(models=tuple(models))))

    assert (key(some) == key(other)) == (some == other)


def test_a_need_and_the_same_word_to_avoid_are_two_lanes() -> None:
    assert lane_key(Lane(kind="k", needs=Needs(service="s"))) != lane_key(Lane(kind="k", avoid=Avoid(service="s")))


def test_the_key_of_a_lane_survives_its_own_journey_over_the_wire() -> None:
    lane = shun(lane_of(_request(models=("b", "a"), amounts={"tokens": 1234.5})), "w1")
    assert lane_key(msgspec.msgpack.decode(msgspec.msgpack.encode(lane), type=Lane)) == lane_key(lane)


def test_the_key_is_the_same_in_every_version_of_hostler() -> None:
    assert lane_key(Lane(kind="image.generate")) == "5fe5ae7f1db2deb4d8f1"


def test_excluding_a_worker_ends_its_being_shunned() -> None:
    lane = derive(shun(_lane(), "w1"), exclude="w1")
    assert lane is not None
    assert (lane.avoid.workers, lane.avoid.shunned) == (("w1",), ())


def test_a_lane_excludes_eight_workers_and_no_ninth() -> None:
    lane: Lane | None = _lane()
    for number in range(WORKERS_MAX):
        assert lane is not None
        lane = derive(lane, exclude=f"w{number}")
    assert lane is not None
    assert derive(lane, exclude="w0") == lane
    assert derive(lane, exclude="w9") is None


def test_shunning_never_fails_and_never_grows_beyond_eight() -> None:
    lane = _lane()
    for number in range(WORKERS_MAX + 1):
        lane = shun(lane, f"w{number}")
    assert lane.avoid.shunned == (f"w{WORKERS_MAX}",)


def test_a_derived_lane_leads_back_to_its_base() -> None:
    lane = derive(shun(_lane(), "w2"), exclude="w1")
    assert lane is not None
    assert base(lane) == _lane()


def _lane() -> Lane:
    return lane_of(_request(service="simulation"))


def _request(**needs: object) -> JobRequest:
    return JobRequest(kind="k", needs=msgspec.convert(needs, Needs))

"""What follows a failure: the documented table, class by class, and delays inside the policy's bounds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.lease import Again, Die, Ending, Hold, Stopped
from hostler.contracts.needs import Lane
from hostler.contracts.queue import RetryPolicy
from hostler.policy.lanes import derive, shun
from hostler.policy.retry import AUTH_HOLD, QUOTA_HOLD, after_failure, backoff

C = FailureClass
LANE = Lane(kind="k")
COUNTED = (C.TRANSIENT, C.TIMEOUT, C.INTERNAL, C.OUT_OF_MEMORY)


def end(
    class_: FailureClass,
    *,
    used: int = 0,
    overloads: int = 0,
    roll: float = 0.5,
    others_fit: bool = False,
    policy: RetryPolicy | None = None,
    lane: Lane = LANE,
    retry_after: float | None = None,
    losses: int = 0,
    came_back: int = 0,
) -> tuple[Failure, Ending]:
    stage = Stage.IDLE if class_ is C.TIMEOUT else None
    failure = Failure(class_=class_, message="words", stage=stage, retry_after=retry_after)
    ending = after_failure(
        failure,
        policy=policy or RetryPolicy(),
        attempts_used=used,
        overloads=overloads,
        dice=lambda: roll,
        others_fit=others_fit,
        lane=lane,
        worker="w1",
        losses=losses,
        came_back=came_back,
    )
    return failure, ending


@pytest.mark.parametrize("class_", [C.INVALID_INPUT, C.REFUSED, C.POISON])
@pytest.mark.row("003:159")
def test_what_can_never_work_dies_at_once_with_the_services_words(class_: FailureClass) -> None:
    failure, ending = end(class_)
    assert ending == Die(failure=failure)


@pytest.mark.parametrize("class_", COUNTED)
@pytest.mark.row("001:331")
def test_what_may_not_happen_again_is_tried_again_and_counts(class_: FailureClass) -> None:
    failure, ending = end(class_, used=2, roll=0.5)
    assert ending == Again(
        failure=failure, delay=2.0, counted=True, lane=shun(LANE, "w1") if class_ is C.OUT_OF_MEMORY else None
    )


@pytest.mark.parametrize("class_", COUNTED)
def test_the_next_attempt_goes_elsewhere_first_when_another_worker_fits(class_: FailureClass) -> None:
    _, ending = end(class_, others_fit=True)
    assert isinstance(ending, Again)
    assert ending.lane == shun(LANE, "w1")


@pytest.mark.parametrize("class_", COUNTED)
@pytest.mark.row("003:156")
def test_the_sixth_attempt_never_starts(class_: FailureClass) -> None:
    assert isinstance(end(class_, used=3)[1], Again)
    failure, ending = end(class_, used=4)
    assert ending == Die(failure=failure)


@pytest.mark.parametrize("class_", COUNTED)
def test_one_attempt_means_one_attempt(class_: FailureClass) -> None:
    assert isinstance(end(class_, policy=RetryPolicy(attempts=1))[1], Die)


def test_no_room_waits_as_long_as_the_service_said_and_uses_no_attempt() -> None:
    failure, ending = end(C.OVERLOADED, retry_after=17.0, used=4)
    assert ending == Again(failure=failure, delay=17.0, counted=False, overload=True)


def test_no_room_without_a_time_backs_off_by_its_own_count() -> None:
    failure, ending = end(C.OVERLOADED, overloads=4, roll=0.25)
    assert ending == Again(failure=failure, delay=4.0, counted=False, overload=True)


@pytest.mark.row("003:328")
def test_what_a_limit_of_ours_refused_waits_as_told_counts_nowhere_and_is_spread_more_each_time() -> None:
    for refused, after, spread in (
        (0, 17.0, 0.05),
        (3, 17.0, 0.4),
        (50, 17.0, 17.0),
        (50, 0.02, 1.0),  # no longer than the limit is about
        (50, 3600.0, 30.0),
    ):
        failure = Failure(class_=C.OVERLOADED, message="words", retry_after=after, details={"unsent": True})
        ending = after_failure(
            failure,
            policy=RetryPolicy(attempts=1, overloads=1),
            attempts_used=0,
            overloads=1,
            dice=lambda: 0.5,
            others_fit=True,
            lane=LANE,
            worker="w1",
            refused=refused,
        )
        assert ending == Again(failure=failure, delay=after + spread / 2, counted=False)


@pytest.mark.parametrize(("line", "delay"), [("own", 17.0), ("full", 17.0 + 15.0)])
def test_who_has_a_moment_in_a_line_comes_then_and_who_has_none_before_the_line_is_over(
    line: str, delay: float
) -> None:
    details = {"unsent": True, "narrow": True, "line": line}
    failure = Failure(class_=C.OVERLOADED, message="words", retry_after=17.0, details={**details})
    ending = after_failure(
        failure,
        policy=RetryPolicy(),
        attempts_used=0,
        overloads=0,
        dice=lambda: 0.5,
        others_fit=True,
        lane=LANE,
        worker="w1",
        refused=50,
    )
    assert ending == Again(failure=failure, delay=delay, counted=False)


def test_no_room_has_a_budget_of_its_own() -> None:
    policy = RetryPolicy(overloads=3)
    assert isinstance(end(C.OVERLOADED, overloads=2, policy=policy)[1], Again)
    assert isinstance(end(C.OVERLOADED, overloads=3, policy=policy)[1], Die)


def test_a_worker_that_lacks_something_is_excluded_and_no_attempt_is_used() -> None:
    failure, ending = end(C.CAPABILITY_MISMATCH, used=4)
    assert ending == Again(failure=failure, counted=False, lane=derive(LANE, exclude="w1"))


def test_the_ninth_worker_that_lacks_something_ends_the_job() -> None:
    full = msgspec.structs.replace(
        LANE, avoid=msgspec.convert({"workers": [f"v{n}" for n in range(8)]}, type(LANE.avoid))
    )
    failure, ending = end(C.CAPABILITY_MISMATCH, lane=full)
    assert ending == Die(failure=failure)


def test_a_job_that_came_back_to_a_worker_which_lacks_something_has_the_budget_of_overloads() -> None:
    policy = RetryPolicy(overloads=3)
    failure, ending = end(C.CAPABILITY_MISMATCH, came_back=1, overloads=2, policy=policy)
    assert ending == Again(failure=failure, delay=2.0, counted=False, overload=True, lane=derive(LANE, exclude="w1"))
    _, ending = end(C.CAPABILITY_MISMATCH, came_back=4, overloads=3, policy=policy)
    assert isinstance(ending, Die)
    assert ending.failure.class_ is C.CAPABILITY_MISMATCH
    assert ending.failure.message == "words; it came back to w1 4 times, for its queue has all the lanes it may have"


@pytest.mark.parametrize(("class_", "default"), [(C.AUTH, AUTH_HOLD), (C.QUOTA, QUOTA_HOLD)])
def test_a_refused_credential_or_an_empty_account_makes_the_job_wait(class_: FailureClass, default: float) -> None:
    failure, ending = end(class_, used=4)
    assert ending == Hold(reason=f"{class_}: words", failure=failure, until=default)
    _, named = end(class_, retry_after=5.0)
    assert isinstance(named, Hold)
    assert named.until == 5.0


def test_lost_work_is_done_again_and_not_charged() -> None:
    failure, ending = end(C.LOST, used=4, roll=0.0)
    assert ending == Again(failure=failure, counted=False, delay=0.0)


def test_work_that_its_service_loses_every_time_has_the_budget_of_crashes() -> None:
    assert isinstance(end(C.LOST, losses=1)[1], Again)
    failure, ending = end(C.LOST, losses=2)
    assert ending == Die(failure=failure)


def test_cancelled_work_has_stopped() -> None:
    assert end(C.CANCELLED)[1] == Stopped()


@pytest.mark.parametrize("class_", list(C))
def test_every_class_has_an_ending(class_: FailureClass) -> None:
    assert isinstance(end(class_)[1], Ending)


@given(
    n=st.integers(min_value=0, max_value=5_000),
    roll=st.floats(min_value=0, max_value=1, exclude_max=True),
    base=st.floats(min_value=0, max_value=100),
    cap=st.floats(min_value=0, max_value=1_000),
)
@pytest.mark.row("002:54", "003:157")
def test_a_backoff_stays_between_nothing_and_its_ceiling(n: int, roll: float, base: float, cap: float) -> None:
    delay = backoff(n, policy=RetryPolicy(base=base, cap=cap), dice=lambda: roll)
    assert 0.0 <= delay <= min(cap, base * 2.0 ** min(n, 64))


@given(st.integers(min_value=0, max_value=3), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_the_default_delays_double_from_one_second(used: int, roll: float) -> None:
    _, ending = end(C.TRANSIENT, used=used, roll=roll)
    assert isinstance(ending, Again)
    assert ending.delay == pytest.approx(roll * 2**used)


@given(st.floats(min_value=0, max_value=600), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_time_that_the_service_named_is_never_cut_short(named: float, roll: float) -> None:
    for class_ in (*COUNTED, C.LOST, C.OVERLOADED):
        _, ending = end(class_, retry_after=named, roll=roll)
        assert isinstance(ending, Again)
        assert ending.delay >= named

"""Which jobs are equal, and how long one waits for another."""

from datetime import UTC, datetime

import pytest
from msgspec import Raw

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import Attempt
from hostler.contracts.lease import Lease
from hostler.contracts.needs import Lane, Needs
from hostler.contracts.queue import CacheMode, CachePolicy
from hostler.contracts.timeouts import Timeouts
from hostler.policy.caching import LABEL, mode_of, result_key, wait_for, waits_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
FAILURE = Failure(class_=FailureClass.TRANSIENT, message="no")


def key(payload: bytes = b'{"a":1}', kind: str = "draw", **needs: object) -> str:
    return result_key(kind, Raw(payload), Needs(**needs))  # pyright: ignore[reportArgumentType] - what the test says


def test_order_and_blanks_do_not_make_jobs_different() -> None:
    assert key(b'{"a":1,"b":{"c":[1,2.50],"d":"\xc3\xa9"}}') == key(b'{ "b": {"d":"\\u00e9", "c": [1, 2.50]}, "a": 1 }')
    assert key(models=("x", "y")) == key(models=("y", "x"))
    assert key(labels={"tier": "gold"}) == key(amounts={"slots": 2.0})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1}', b'{"a":2}'),
        (b'{"a":1}', b'{"a":"1"}'),
        (b"1.5", b'"1.5"'),
        (b"[1,2]", b"[2,1]"),
        (b"null", b"{}"),
        (b"0.30000000000000001", b"0.30000000000000002"),
        (b"9007199254740992", b"9007199254740993"),
        (b"123456789012345678901234567890", b"123456789012345678901234567891"),
        (b"[" * 9000 + b"1" + b"]" * 9000, b"[" * 9000 + b"2" + b"]" * 9000),
    ],
    ids=range(9),
)
def test_payloads_that_differ_have_different_keys(one: bytes, other: bytes) -> None:
    assert key(one) != key(other)
    assert key(one) == key(one)


def test_kind_service_and_model_are_part_of_the_key_and_the_kind_begins_it() -> None:
    keys = {key(), key(kind="sing"), key(service="a"), key(models=("a",)), key(models=("a", "b"))}
    assert len(keys) == 5
    assert key(kind="image.generate").startswith("image.generate:")


def test_a_label_chooses_the_mode_only_where_the_kind_has_a_cache() -> None:
    policy = CachePolicy()
    assert mode_of(None, {LABEL: "first"}) is CacheMode.BYPASS
    assert mode_of(policy, {}) is CacheMode.FIRST
    assert mode_of(policy, {LABEL: "refresh"}) is CacheMode.REFRESH
    with pytest.raises(ValueError, match="sometimes"):
        mode_of(policy, {LABEL: "sometimes"})


def test_pauses_grow_and_are_no_longer_than_the_flight_holds() -> None:
    assert [wait_for(n, left=30.0) for n in (0, 1, 2, 3)] == [0.25, 0.5, 1.0, 2.0]
    assert wait_for(1000, left=30.0) == 15.0
    assert wait_for(1000, left=4.0) == 4.0
    assert wait_for(0, left=0.0) == 0.25


def test_only_waits_of_this_generation_are_counted() -> None:
    def attempt(generation: int, outcome: str, error: Failure | None = None) -> Attempt:
        return Attempt(
            number=1, generation=generation, worker="w", started_at=AT, ended_at=AT, outcome=outcome, error=error
        )

    history = (attempt(1, "retry"), attempt(2, "retry"), attempt(2, "retry", FAILURE), attempt(2, "reap"))
    lease = Lease(
        job_id="q.1",
        kind="draw",
        queue="q",
        fence=5,
        generation=2,
        attempts_used=0,
        attempts_max=5,
        crashes=0,
        overloads=0,
        payload=Raw(b"null"),
        lane=Lane(kind="draw"),
        lease_s=10.0,
        expires_at=AT,
        now=AT,
        deadline=None,
        timeouts=Timeouts(),
        tenant="default",
        labels={},
        remote=None,
        history=history,
    )
    assert waits_of(lease) == 1

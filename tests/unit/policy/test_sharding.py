"""Which shard a job goes to."""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hostler.contracts.job import JobRequest
from hostler.contracts.queue import SHARDS_MAX, Limits, QueueSpec, Retention
from hostler.policy.sharding import home_of, ordering_key, place_of, shard_for, shards_of, share_of, spread_of

KEYS = st.text(max_size=40)


def job(**more: Any) -> JobRequest:
    return JobRequest(kind="work", payload=Raw(b"null"), **more)


def test_a_queue_without_other_shards_is_called_by_its_name_alone() -> None:
    assert shards_of(QueueSpec(name="image")) == ("image",)


def test_a_shard_is_called_by_its_queue_and_number_and_the_first_lies_where_the_queue_did() -> None:
    names = shards_of(QueueSpec(name="image", shards=3))
    assert names == ("image~0", "image~1", "image~2")
    assert [place_of(name) for name in names] == ["image", "image~1", "image~2"]
    assert {home_of(name) for name in names} == {"image"}
    assert place_of("image~10") == "image~10"


@given(KEYS, st.integers(1, SHARDS_MAX))
def test_a_key_belongs_to_one_shard_of_those_that_there_are(key: str, number: int) -> None:
    assert 0 <= shard_for(key, number) < number


@given(KEYS, st.integers(1, SHARDS_MAX - 1))
def test_with_one_shard_more_a_key_stays_or_moves_to_the_new_one(key: str, number: int) -> None:
    assert shard_for(key, number + 1) in {shard_for(key, number), number}


def test_keys_are_spread_evenly() -> None:
    found = Counter(shard_for(f"operation:submit:{number}:0", 8) for number in range(8000))
    assert len(found) == 8
    assert all(850 <= count <= 1150 for count in found.values())


def test_where_a_key_belongs_is_the_same_in_every_version() -> None:
    found = [shard_for(f"concurrency:{key}", 7) for key in ("", "user-1", "user-2", "grün", "x" * 500)]
    assert found == PINNED


PINNED = [4, 4, 5, 6, 5]


def test_a_concurrency_key_goes_before_an_idempotency_key_and_that_before_a_session() -> None:
    every = ordering_key(job(concurrency_key="c", idempotency_key="i"), "a")
    assert every == ordering_key(job(concurrency_key="c"), None)
    assert ordering_key(job(idempotency_key="i"), "a") == ordering_key(job(idempotency_key="i"), None)
    assert ordering_key(job(), "a") not in {None, every}
    assert ordering_key(job(), None) is None


def test_idempotency_keys_are_a_tenants_own_and_concurrency_keys_are_not() -> None:
    assert ordering_key(job(idempotency_key="i", tenant="a"), None) != ordering_key(
        job(idempotency_key="i", tenant="b"), None
    )
    assert ordering_key(job(concurrency_key="c", tenant="a"), None) == ordering_key(
        job(concurrency_key="c", tenant="b"), None
    )


def test_keys_are_spread_over_all_shards_unless_the_row_says_over_fewer() -> None:
    assert spread_of(QueueSpec(name="image", shards=4)) == 4
    assert spread_of(QueueSpec(name="image", shards=4, key_shards=2)) == 2


def test_each_shard_has_an_equal_share_of_what_the_queue_may_hold_rounded_up() -> None:
    row = QueueSpec(
        name="image",
        shards=3,
        limits=Limits(depth=10, bytes=None, tenant_depth=1),
        retention=Retention(terminal_count=100),
    )
    share = share_of(row)
    assert (share.limits.depth, share.limits.bytes, share.limits.tenant_depth) == (4, None, 1)
    assert share.retention.terminal_count == 34
    assert share_of(QueueSpec(name="image")) == QueueSpec(name="image")

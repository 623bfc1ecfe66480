"""Which clusters are used, and what is said of the others."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec
import pytest

from hostler.valkeyio.safety import Facts, Verdict
from hostler.valkeyio.safety_cluster import Member, judge_cluster

SAFE = {
    "maxmemory-policy": "noeviction",
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "auto-aof-rewrite-percentage": "100",
    "min-replicas-to-write": "0",
    "min-replicas-max-lag": "10",
    "cluster-node-timeout": "2000",
    "cluster-replica-validity-factor": "10",
    "cluster-require-full-coverage": "no",
    "repl-ping-replica-period": "10",
}
FACTS = Facts(
    name="valkey",
    version="9.1.2",
    role="master",
    cluster=True,
    functions=True,
    used_memory=0,
    max_memory=0,
    settings=SAFE,
)
NOTHING: Mapping[str, str] = MappingProxyType({})


def member(number: int, settings: Mapping[str, str] = NOTHING, *, replicas: int = 1, silent: bool = False) -> Member:
    more = {name.replace("_", "-"): value for name, value in settings.items()}
    facts = msgspec.structs.replace(FACTS, settings={**SAFE, **more})
    return Member(place=f"h:{number}", slots=f"{number}-{number}", replicas=replicas, facts=None if silent else facts)


def judged(*members: Member, uncovered: int = 0, **settings: str) -> Verdict:
    return judge_cluster(members or [member(number, settings) for number in (1, 2, 3)], uncovered=uncovered)


def test_a_safe_cluster_says_what_a_fail_over_may_lose_and_nothing_else() -> None:
    verdict = judged()
    assert (verdict.impossible, verdict.unsafe, verdict.warnings) == ((), (), ())
    assert "in the last 2 s (`cluster-node-timeout`)" in verdict.promise
    assert "the last 32 s at most" in verdict.promise, "2 s, ten times that, and 10 s between two pings"
    assert "the last 7 s at most" in judged(min_replicas_to_write="1", min_replicas_max_lag="7").promise


def test_what_is_wrong_with_several_primaries_is_said_once_with_all_of_them() -> None:
    verdict = judged(member(1, {"appendfsync": "no"}), member(2), member(3, {"appendfsync": "no"}))
    (reason,) = verdict.unsafe
    assert reason.startswith("of the primary h:1, h:3: `appendfsync` is `no`")
    assert verdict.promise == ""
    assert "of the primary h:1, h:2, h:3" in judged(maxmemory_policy="allkeys-lru").unsafe[0]


def test_a_replica_that_may_take_over_however_old_its_data_is_unsafe_unless_a_primary_alone_stops() -> None:
    assert "CONFIG SET cluster-replica-validity-factor 10" in judged(cluster_replica_validity_factor="0").unsafe[0]
    assert judged(cluster_replica_validity_factor="0", min_replicas_to_write="1").unsafe == ()


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (judged(cluster_require_full_coverage="yes"), "CONFIG SET cluster-require-full-coverage no"),
        (judged(cluster_node_timeout="15000"), "`cluster-node-timeout` is 15 s"),
        (judged(member(1), member(2)), "has 2 primaries"),
        (judged(member(1, replicas=0), member(2), member(3)), "h:1 has no replica"),
        (judged(min_replicas_to_write="1"), "`min-replicas-to-write` is 1: after a fail-over jobs are refused there"),
        (judged(member(1), member(2, silent=True), member(3)), "h:2 does not answer, so queues in its slots (2-2)"),
        (judged(uncovered=7), "7 slots have no primary"),
    ],
)
def test_what_an_operator_should_see_to_is_a_warning(verdict: Verdict, said: str) -> None:
    assert verdict.unsafe == ()
    assert any(said in warning for warning in verdict.warnings), verdict.warnings


def test_a_node_that_can_never_work_is_named() -> None:
    old = msgspec.structs.replace(FACTS, name="redis", version="6.2.0")
    verdict = judged(member(1), member(2), msgspec.structs.replace(member(3), facts=old))
    assert verdict.impossible[0].startswith("of the primary h:3: it is redis 6.2.0")

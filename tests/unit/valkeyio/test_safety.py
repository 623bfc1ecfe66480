"""Which engines are used, and what is said of the others."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.kernel.errors import EngineUnsafeError, EngineVersionError
from hostler.valkeyio.safety import Facts, Watch, admit, judge

SAFE = {
    "maxmemory-policy": "noeviction",
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "auto-aof-rewrite-percentage": "100",
}


def facts(
    *,
    name: str = "valkey",
    version: str = "9.1.2",
    role: str = "master",
    cluster: bool = False,
    functions: bool = True,
    used: int = 0,
    most: int = 0,
    settings: dict[str, str] | None = SAFE,
    replicas: int = 0,
) -> Facts:
    return Facts(
        name=name,
        version=version,
        role=role,
        cluster=cluster,
        functions=functions,
        used_memory=used,
        max_memory=most,
        settings=settings,
        replicas=replicas,
    )


def test_a_safe_engine_has_nothing_said_of_it() -> None:
    verdict = judge(facts())
    assert (verdict.impossible, verdict.unsafe, verdict.warnings) == ((), (), ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maxmemory-policy", "allkeys-lru"),
        ("maxmemory-policy", "volatile-ttl"),
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("appendfsync", "no"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("auto-aof-rewrite-percentage", "0"),
    ],
)
def test_an_unsafe_setting_is_refused_with_its_name_and_the_command_that_mends_it(name: str, value: str) -> None:
    with pytest.raises(EngineUnsafeError) as caught:
        admit(judge(facts(settings=SAFE | {name: value})), url="unix:///s", allow_degraded=False)
    assert f"`{name}` is `{value}`" in caught.value.message
    assert f"CONFIG SET {name}" in caught.value.message
    assert len(judge(facts(settings=SAFE | {name: value})).unsafe) == 1


@pytest.mark.parametrize("name", sorted(SAFE))
def test_a_setting_that_the_server_does_not_tell_counts_as_wrong(name: str) -> None:
    rest = {key: value for key, value in SAFE.items() if key != name}
    assert len(judge(facts(settings=rest)).unsafe) == 1


def test_settings_that_may_not_be_read_are_unsafe_and_say_how_to_allow_it() -> None:
    with pytest.raises(EngineUnsafeError, match=r"config\|get"):
        admit(judge(facts(settings=None)), url="unix:///s", allow_degraded=False)
    admit(judge(facts(settings=None)), url="unix:///s", allow_degraded=True)
    assert len(judge(facts(settings=None)).unsafe) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (facts(version="7.2.4"), "Valkey 8 or Redis 7.0"),
        (facts(name="redis", version="6.2.14"), "Valkey 8 or Redis 7.0"),
        (facts(version="unknown"), "Valkey 8 or Redis 7.0"),
        (facts(role="slave"), "read-only replica"),
        (facts(cluster=True), r"redis\+cluster://HOST:PORT,HOST:PORT"),
        (facts(functions=False), "FCALL"),
    ],
)
def test_what_can_never_work_is_refused_even_when_the_operator_insists(wrong: Facts, said: str) -> None:
    with pytest.raises(EngineVersionError, match=said):
        admit(judge(wrong), url="unix:///s", allow_degraded=True)


@pytest.mark.parametrize("version", ["7.0.15", "7.2", "8.0.1", "8.10.0"])
def test_redis_from_seven_on_is_taken(version: str) -> None:
    assert judge(facts(name="redis", version=version)).impossible == ()


def test_a_nearly_full_memory_is_a_warning_and_no_limit_is_none() -> None:
    assert "90% full" in judge(facts(used=90, most=100)).warnings[0]
    assert judge(facts(used=79, most=100)).warnings == ()
    assert judge(facts(used=10**12, most=0)).warnings == ()


@given(st.dictionaries(st.sampled_from(sorted(SAFE)), st.text(max_size=12)))
def test_only_the_safe_values_are_ever_called_safe(settings: dict[str, str]) -> None:
    verdict = judge(facts(settings=settings))
    wanted = {key: value for key, value in SAFE.items() if key != "auto-aof-rewrite-percentage"}
    safe = all(settings.get(key) == value for key, value in wanted.items())
    rewrites = settings.get("auto-aof-rewrite-percentage", "0") != "0"
    assert (verdict.unsafe == ()) == (safe and rewrites)


GUARDED = SAFE | {"min-replicas-to-write": "1", "min-replicas-max-lag": "10"}
WATCH = Watch(service="stable", primary="h:1", sentinels=3, quorum=2, down_after=2.0, named=3, answering=3)


def test_a_guarded_primary_behind_sentinels_says_what_a_fail_over_may_lose() -> None:
    verdict = judge(facts(settings=GUARDED, replicas=2), WATCH)
    assert (verdict.impossible, verdict.unsafe, verdict.warnings) == ((), (), ())
    assert "in the last 10 s (`min-replicas-max-lag`)" in verdict.promise
    assert "nothing that was acknowledged is lost" in judge(facts(settings=GUARDED)).promise


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (SAFE, "`min-replicas-to-write` is `unknown`"),
        (GUARDED | {"min-replicas-to-write": "0"}, "CONFIG SET min-replicas-to-write 1"),
        (GUARDED | {"min-replicas-max-lag": "0"}, "CONFIG SET min-replicas-max-lag 10"),
    ],
)
def test_a_primary_that_goes_on_alone_is_unsafe_behind_sentinels_only(settings: dict[str, str], said: str) -> None:
    verdict = judge(facts(settings=settings, replicas=2), WATCH)
    assert any(said in reason for reason in verdict.unsafe)
    assert verdict.promise == ""
    assert judge(facts(settings=settings)).unsafe == ()


def test_sentinels_and_replicas_that_are_too_few_are_warnings() -> None:
    watch = msgspec.structs.replace(WATCH, answering=2, trouble="NOQUORUM 1 usable")
    warnings = judge(facts(settings=GUARDED, replicas=1), watch).warnings
    for said in ("no other can be chosen: NOQUORUM 1 usable", "2 of the 3 sentinels", "1 replicas of stable"):
        assert any(said in warning for warning in warnings), said

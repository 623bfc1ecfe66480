"""Whether a cluster keeps what it acknowledged: every primary by itself, and what they are together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from hostler.kernel.units import Seconds
from hostler.valkeyio.safety import (
    COVERAGE,
    MAX_LAG,
    NODE_TIMEOUT,
    PING_PERIOD,
    TO_WRITE,
    VALIDITY,
    Facts,
    Verdict,
    judge,
)

_PRIMARIES_LEAST: Final = 3
"""With fewer no majority is left when one fails."""
_NODE_TIMEOUT_MOST: Final[Seconds] = 5.0


class Member(Struct, frozen=True, kw_only=True):
    """One primary."""

    place: str
    """HOST:PORT."""
    slots: str
    """As `0-99, 200-299`."""
    replicas: int
    """Those that are up, as the cluster says."""
    facts: Facts | None
    """None while it does not answer."""


def judge_cluster(members: Sequence[Member], *, uncovered: int) -> Verdict:
    """Decide purely whether a cluster can be used, and whether safely; `uncovered` slots have no primary."""
    answering = [(member, member.facts) for member in members if member.facts is not None]
    each = [(member.place, judge(facts, in_cluster=True)) for member, facts in answering]
    settings = [(member.place, facts.settings or {}) for member, facts in answering]
    unsafe = [
        *_gathered((place, verdict.unsafe) for place, verdict in each),
        *_gathered((place, _stale(found)) for place, found in settings),
    ]
    warnings = [
        *_gathered((place, verdict.warnings) for place, verdict in each),
        *(_silent(member) for member in members if member.facts is None),
        *_thin(members, settings, uncovered=uncovered),
        *_gathered((place, _slow(found)) for place, found in settings),
    ]
    return Verdict(
        impossible=tuple(_gathered((place, verdict.impossible) for place, verdict in each)),
        unsafe=tuple(unsafe),
        warnings=tuple(warnings),
        promise="" if unsafe else _window([found for _, found in settings]),
    )


def _gathered(said: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Return each sentence once, with all places of which it is said."""
    places: dict[str, list[str]] = {}
    for place, sentences in said:
        for sentence in sentences:
            places.setdefault(sentence, []).append(place)
    return [f"of the primary {', '.join(where)}: {sentence}" for sentence, where in places.items()]


def _stale(settings: Mapping[str, str]) -> list[str]:
    """Say what lets a replica take over however long ago it lost touch."""
    if settings.get(TO_WRITE, "0") != "0" and settings.get(MAX_LAG) != "0":
        return []
    if settings.get(VALIDITY) != "0":
        return []
    reason = (
        f"`{VALIDITY}` is `0` and `{TO_WRITE}` too, so a replica that lost touch long ago may take over, and all that "
        f"was acknowledged since is lost: run `CONFIG SET {VALIDITY} 10` and `CONFIG REWRITE` on each node"
    )
    return [reason]


def _silent(member: Member) -> str:
    return (
        f"the primary {member.place} does not answer, so queues in its slots ({member.slots}) stand still until it or "
        "a replica of it does"
    )


def _thin(
    members: Sequence[Member], settings: Sequence[tuple[str, Mapping[str, str]]], *, uncovered: int
) -> Iterable[str]:
    if uncovered:
        yield f"{uncovered} slots have no primary, so queues there stand still: give them to a node"
    if len(members) < _PRIMARIES_LEAST:
        yield (
            f"the cluster has {len(members)} primaries, and the rest cannot agree on another when one fails: "
            f"{_PRIMARIES_LEAST} are the least"
        )
    needed = {place: int(found.get(TO_WRITE, "0")) for place, found in settings}
    for member in members:
        least = needed.get(member.place, 0)
        if not member.replicas:
            yield (
                f"the primary {member.place} has no replica: should it fail, queues in its slots ({member.slots}) "
                "stand still until it is back; add one"
            )
        elif member.replicas <= least:
            yield (
                f"the primary {member.place} has {member.replicas} replicas, and `{TO_WRITE}` is {least}: after a "
                "fail-over jobs are refused there until another replica is there; add one"
            )


def _slow(settings: Mapping[str, str]) -> Iterable[str]:
    if settings.get(COVERAGE) == "yes":
        yield (
            f"`{COVERAGE}` is `yes`, so all queues stand still while one primary is down: run "
            f"`CONFIG SET {COVERAGE} no` and `CONFIG REWRITE` on each node"
        )
    timeout = _timeout(settings)
    if timeout is not None and timeout > _NODE_TIMEOUT_MOST:
        yield (
            f"`{NODE_TIMEOUT}` is {timeout:g} s, so queues of a primary that fails stand still a little longer than "
            f"that: run `CONFIG SET {NODE_TIMEOUT} 5000` and `CONFIG REWRITE` on each node"
        )


def _window(settings: Sequence[Mapping[str, str]]) -> str:
    """Say what a fail-over may lose where it loses most.

    A primary that is cut off from the majority goes on for one node timeout (cluster specification, "Write safety"). A
    replica that lost touch takes over unless that was longer ago than the validity factor says (`valkey.conf`).
    """
    worst = max(filter(None, map(_timeout, settings)), default=None)
    stale = max((_stale_most(found) for found in settings), key=lambda most: (most is None, most or 0.0))
    cut_off = "?" if worst is None else f"{worst:g}"
    touch = "?" if stale is None else f"{stale:g}"
    return (
        "the fail-over of a primary may lose what no replica of it had received: what was acknowledged in the last "
        f"milliseconds when it dies, in the last {cut_off} s (`{NODE_TIMEOUT}`) when it is cut off, and in the last "
        f"{touch} s at most (`{TO_WRITE}`, `{VALIDITY}`) when its replicas had lost touch before; fences, job numbers "
        "and epochs go on above all that were given"
    )


def _stale_most(settings: Mapping[str, str]) -> Seconds | None:
    """Return how long ago a replica may have lost touch that takes over all the same."""
    if settings.get(TO_WRITE, "0") != "0":
        lag = settings.get(MAX_LAG, "")
        return float(lag) if lag.isdecimal() else None
    timeout, factor = _timeout(settings), settings.get(VALIDITY, "")
    period = settings.get(PING_PERIOD, "")
    if timeout is None or not factor.isdecimal() or not period.isdecimal():
        return None
    return timeout * (int(factor) + 1) + int(period)


def _timeout(settings: Mapping[str, str]) -> Seconds | None:
    found = settings.get(NODE_TIMEOUT, "")
    return int(found) / 1000 if found.isdecimal() else None

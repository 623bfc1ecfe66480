"""Who is compared, and what each gives up."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIDES = Path(__file__).resolve().parent / "sides"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One system."""

    name: str
    side: str
    lock: Path | None
    """Its requirements with hashes; None for what runs in Hostler's own environment."""
    gives_up: str
    """What a job of it lacks in the way that is measured, beside Hostler's."""


def _peer(name: str, gives_up: str) -> Peer:
    word = name.lower()
    return Peer(name=name, side=f"{word}_side", lock=ROOT / f"requirements/peers/{word}.txt", gives_up=gives_up)


PEERS = (
    Peer(name="Hostler", side="hostler_side", lock=None, gives_up="nothing"),
    _peer("Celery", "acknowledged before it runs: lost with its worker; no lease, fence, result, priority, history"),
    _peer("Dramatiq", "no fence, result, priority, history; a dead worker's jobs return by chance of upkeep"),
    _peer("Taskiq", "no renewal, fence, result, priority, delay, retry, history"),
    _peer("SAQ", "no fence, result, priority (on Redis), history"),
    _peer("arq", "no renewal, fence, result, priority, history; a retry for whatever was lost after its whole timeout"),
    _peer("RQ", "no fence, priority, result; one job at a time for each process"),
    _peer("pydocket", "no fence, priority, result, dead letters"),
    _peer("BullMQ", "no fairness, matching, result kept; locks have tokens, not fences"),
    _peer("Huey", "popped before it runs: lost with its worker; no lease, fence, result, history"),
    Peer(
        name="Bare",
        side="bare_side",
        lock=None,
        gives_up="everything: `LPUSH` and `RPOP 64` by hand, a limit and no peer",
    ),
)

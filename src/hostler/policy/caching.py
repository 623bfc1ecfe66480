"""Which jobs are equal, and how a job waits for one that is: pure."""

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Raw

from hostler.contracts.lease import Lease
from hostler.contracts.needs import Needs
from hostler.contracts.queue import CacheMode, CachePolicy
from hostler.kernel.units import Seconds

LABEL: Final = "hostler.cache"
"""A job's label that chooses another mode than its kind's."""
WAIT_FIRST: Final[Seconds] = 0.25
WAIT_MOST: Final[Seconds] = 15.0
"""Longest pause between two questions of a job that waits for an equal one."""

_read: Final = msgspec.json.Decoder(float_hook=Decimal).decode  # a float would make numbers equal that are not
_write: Final = msgspec.json.Encoder(order="sorted", decimal_format="number").encode


def result_key(kind: str, payload: Raw, needs: Needs) -> str:
    """Return `<kind>:<hash>`, the same for equal jobs: order of keys and blanks in the payload do not count.

    A number counts as it is written, so `1.0` is not `1`: that costs a run, never a wrong answer. Of the needs,
    service and models count. A payload in the blob store counts by its reference.
    """
    words: tuple[Any, ...] = (kind, needs.service, sorted(needs.models), Raw(_canonical(bytes(payload))))
    return f"{kind}:{hashlib.sha256(msgspec.json.encode(words)).hexdigest()}"


def mode_of(policy: CachePolicy | None, labels: Mapping[str, str]) -> CacheMode:
    """Return what holds for a job; a kind without a cache has none by a label either. `ValueError` for a bad label."""
    if policy is None:
        return CacheMode.BYPASS
    return CacheMode(labels[LABEL]) if LABEL in labels else policy.mode


def waits_of(lease: Lease) -> int:
    """Return how many attempts of this generation ended with neither a result nor a failure: it was sent back."""
    return sum(
        attempt.generation == lease.generation and attempt.outcome == "retry" and attempt.error is None
        for attempt in lease.history
    )


def wait_for(waits: int, *, left: Seconds) -> Seconds:
    """Return how long a job waits that already waited so often, for a flight that holds for `left` seconds."""
    return min(WAIT_FIRST * 2.0 ** min(waits, 16), WAIT_MOST, max(left, WAIT_FIRST))


def _canonical(payload: bytes) -> bytes:
    try:
        return _write(_read(payload))
    except (msgspec.MsgspecError, RecursionError, ArithmeticError):
        return msgspec.json.encode(payload)  # equal only to what has the same bytes

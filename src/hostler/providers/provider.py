"""What a provider is: it loads once, answers in threads of its own, says what it holds, and closes."""

import threading
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from hostler.kernel.units import Bytes, Fraction, Json, Seconds
from hostler.providers.messages import Ask, Reply, Verb


class RefusedError(Exception):
    """The service says no: an HTTP status, a code for programs, a sentence for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: Seconds | None = None,
        facts: dict[str, Json] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.facts = facts or {}


class HaltedError(Exception):
    """The work is no longer wanted: the caller is gone, its time is up, or the service closes."""


class Step(Struct, frozen=True, kw_only=True):
    """Where a load is."""

    phase: str
    """`importing`, `reading`, `training`, or a provider's own word."""
    item: str = ""
    """What of it: a package, a file, an epoch."""
    fraction: Fraction | None = None
    """Share of the whole load that is done."""


class Halt:
    """Tells work in a thread that it is no longer wanted; threads cannot be stopped from outside."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask the work to end at its next check."""
        self._event.set()

    def check(self) -> None:
        """Raise `HaltedError` when the work is no longer wanted; called often enough to end within a second."""
        if self._event.is_set():
            raise HaltedError


class Loading(Halt):
    """What a load reports to; every report is a check as well."""

    def __init__(self, report: Callable[[Step], None]) -> None:
        super().__init__()
        self._report = report

    def step(self, phase: str, item: str = "", *, fraction: Fraction | None = None) -> None:
        """Say where the load is."""
        self.check()
        self._report(Step(phase=phase, item=item, fraction=fraction))


class Provider(Protocol):
    """One capability of a service.

    Every method but the properties runs in a thread of this provider alone and may block it; nothing runs on
    the event loop. `load` is called once at a time and may be called again after it raised or after `close`.
    """

    name: str
    """Part of the path: `/providers/{name}/...`."""
    about: str
    verbs: tuple[Verb, ...]
    slots: int
    """Answers that may be worked out at the same time; 1 unless its parts are safe to share between threads."""

    def load(self, loading: Loading) -> None:
        """Get ready; what it raises is shown to operators. `MissingExtraError` is final, the rest is tried again."""
        ...

    def answer(self, ask: Ask, halt: Halt) -> Reply:
        """Answer one question of its verbs; `RefusedError` for what can never work."""
        ...

    def memory(self) -> Bytes | None:
        """Return the size of what was loaded, as far as it can be counted; None when it cannot."""
        ...

    def close(self) -> None:
        """Let go of what was loaded. Idempotent."""
        ...

"""What a handler is given: its typed payload, and ways to say how far it is."""

import traceback
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from msgspec import Raw

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import Attempt, Progress
from hostler.kernel.units import Json

T_co = TypeVar("T_co", covariant=True)

MESSAGE_LIMIT = 2_000
"""Characters of a failure's message that are kept."""
STACK_FRAMES = 8
"""Innermost frames of a stack excerpt."""


class Failed(Exception):  # noqa: N818 - a verdict that handlers raise: `raise Failed("refused", "...")`
    """Raised by a handler that knows why it cannot go on; the class decides what comes next.

    `failure_class` is a `FailureClass` or its text (`invalid_input`, `transient`, `refused`, ...), `retry_after`
    is in seconds, `details` are JSON facts without secrets. An unknown class is a `ValueError`.
    """

    def __init__(
        self,
        failure_class: FailureClass | str,
        message: str,
        *,
        retry_after: float | None = None,
        details: dict[str, Json] | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = Failure(
            class_=FailureClass(failure_class),
            message=message[:MESSAGE_LIMIT],
            retry_after=retry_after,
            details=details or {},
        )


class Outlet(Protocol):
    """Where a call's words go: the work loop itself, from a thread, or through a pipe from a child process."""

    @property
    def cancelled(self) -> bool:
        """Tell whether somebody asked for this work to stop."""
        ...

    def progress(self, progress: Progress) -> None:
        """Take a progress report; never waits."""
        ...

    def checkpoint(self, value: Raw) -> None:
        """Take a checkpoint; never waits."""
        ...


class CallFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one attempt besides its payload."""

    job_id: str
    kind: str
    attempt: int
    """Counts claims of this job from 1."""
    fence: int
    history: tuple[Attempt, ...] = ()
    """Earlier attempts with class, words and details, so that this one can do better."""
    deadline: datetime | None = None
    checkpoint: bytes | None = None
    """Sealed JSON; bytes, since a frame between processes is MessagePack."""


class Call(Generic[T_co]):
    """One attempt as a handler sees it.

    All methods are plain calls that never wait, and work alike on the loop, in a thread and in a child process.
    """

    def __init__(self, payload: T_co, facts: CallFacts, outlet: Outlet) -> None:
        self._payload = payload
        self._facts = facts
        self._outlet = outlet

    @property
    def payload(self) -> T_co:
        """Return the payload, decoded into the handler's type (plain JSON values where it declares none)."""
        return self._payload

    @property
    def job_id(self) -> str:
        """Return the job's id; opaque."""
        return self._facts.job_id

    @property
    def kind(self) -> str:
        """Return the kind of the job."""
        return self._facts.kind

    @property
    def attempt(self) -> int:
        """Return which claim of the job this is, from 1."""
        return self._facts.attempt

    @property
    def fence(self) -> int:
        """Return the number that rises with every claim: hand it to what must refuse an older attempt."""
        return self._facts.fence

    @property
    def history(self) -> tuple[Attempt, ...]:
        """Return the attempts before this one, oldest first."""
        return self._facts.history

    @property
    def deadline(self) -> datetime | None:
        """Return when the whole job must have ended, if it must."""
        return self._facts.deadline

    @property
    def cancelled(self) -> bool:
        """Tell whether this work was asked to stop; long loops look at it now and then and return."""
        return self._outlet.cancelled

    @property
    def checkpointed(self) -> Any:
        """Return what an earlier attempt saved last with `checkpoint`, as JSON values, or None."""
        saved = self._facts.checkpoint
        return None if saved is None else msgspec.json.decode(saved)

    def progress(
        self,
        *,
        fraction: float | None = None,
        stage: str | None = None,
        message: str | None = None,
        eta_s: float | None = None,
        text: str | None = None,
    ) -> None:
        """Say how far the work is: `fraction` from 0 to 1 (clipped), `eta_s` in seconds, `text` is appended.

        Reports are coalesced: the latest wins, a few a second reach the broker. Counts as a sign of life.
        """
        self._outlet.progress(
            Progress(
                fraction=None if fraction is None else min(1.0, max(0.0, fraction)),
                stage=stage,
                message=message,
                eta_s=None if eta_s is None else max(0.0, eta_s),
                text=text,
            )
        )

    def checkpoint(self, value: object) -> None:
        """Save a JSON value (256 KiB at most) under the lease for the next attempt's `checkpointed`.

        It is stored with the next report, in order and before the attempt's end is recorded; a crash before
        that shows the next attempt the checkpoint before it. `ValueError` when it is too large.
        """
        sealed = msgspec.json.encode(value)
        if len(sealed) > CHECKPOINT_LIMIT:
            raise ValueError(f"a checkpoint of {len(sealed)} bytes is over the limit of {CHECKPOINT_LIMIT}")
        self._outlet.checkpoint(Raw(sealed))


CHECKPOINT_LIMIT = 262_144
"""Bytes of one checkpoint."""


def failure_of(error: BaseException) -> Failure:
    """Return what an exception that escaped from a handler or connector means, with an excerpt of its stack."""
    if isinstance(error, Failed):
        return error.failure
    kind = FailureClass.OUT_OF_MEMORY if isinstance(error, MemoryError) else FailureClass.INTERNAL
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)[-STACK_FRAMES:]
    stack = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    return Failure(class_=kind, message=words[:MESSAGE_LIMIT], details={"type": type(error).__name__, "stack": stack})

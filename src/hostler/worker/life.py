"""The state of one worker: moves by the table, each told to whoever announces it."""

from collections.abc import Callable

import structlog

from hostler.contracts.worker import WorkerState
from hostler.kernel.errors import InternalError
from hostler.policy.lifecycle import WORKER_MOVES

_LOG = structlog.stdlib.get_logger("hostler.worker")


class Life:
    """Holds the state; a move that the table does not know is a defect and raises `InternalError`."""

    def __init__(self, worker: str, moved: Callable[[], None]) -> None:
        self._worker = worker
        self._moved = moved
        self.state = WorkerState.STARTING
        self.reason: str | None = None

    def move(self, to: WorkerState, *, reason: str | None = None) -> None:
        """Go to a state, for a reason that people read; staying where it is is no move."""
        if to is self.state:
            return
        if (self.state, to) not in WORKER_MOVES:
            raise InternalError(f"a worker has no move from {self.state} to {to}")
        _LOG.info("worker", id=self._worker, state=to.value, was=self.state.value, reason=reason)
        self.state, self.reason = to, reason
        self._moved()

    def note(self, reason: str | None) -> None:
        """Say why it is still in this state; the same reason again is no news."""
        if reason != self.reason:
            log = _LOG.info if reason is None else _LOG.warning
            log("worker", id=self._worker, state=self.state.value, reason=reason)
            self.reason = reason
            self._moved()

    def running(self, count: int) -> None:
        """Follow the number of leases: ready and busy are its words, in any other state it changes nothing."""
        if self.state is WorkerState.READY and count:
            self.move(WorkerState.BUSY)
        elif self.state is WorkerState.BUSY and not count:
            self.move(WorkerState.READY)

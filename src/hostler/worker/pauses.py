"""Whether a worker that has started takes no new jobs: an operator said so, or it is not fit for any now."""

from collections.abc import Callable

from hostler.contracts.worker import WorkerState
from hostler.worker.life import Life
from hostler.worker.loop import ClaimLoop

_TAKING = frozenset({WorkerState.READY, WorkerState.BUSY})


class Pauses:
    """Puts both reasons together: it claims while there is none; running jobs go on meanwhile.

    `running` tells how many jobs it has.
    """

    def __init__(self, life: Life, claims: ClaimLoop, running: Callable[[], int]) -> None:
        self._life = life
        self._claims = claims
        self._running = running
        self._told: str | None = None
        self._unfit: str | None = None

    def operator(self, *, pause: bool) -> None:
        """Take in what an operator said; while the worker starts, it holds from when it is ready."""
        self._told = "paused by an operator" if pause else None
        self._settle()

    def unfit(self, reason: str | None) -> None:
        """Take in why it is not fit for jobs, or that it is again (None)."""
        self._unfit = reason
        self._settle()

    def ready(self) -> None:
        """Begin to claim, unless there is a reason not to: the worker has just become ready."""
        self._settle()
        if self._life.state in _TAKING:
            self._claims.open()

    def _settle(self) -> None:
        why = "; ".join(reason for reason in (self._told, self._unfit) if reason is not None)
        if why and self._life.state in _TAKING:
            self._claims.close()
            self._life.move(WorkerState.PAUSED, reason=why)
        elif why and self._life.state is WorkerState.PAUSED:
            self._life.note(why)
        elif self._life.state is WorkerState.PAUSED:
            self._life.move(WorkerState.BUSY if self._running() else WorkerState.READY)
            self._claims.open()

"""What the work loop shows to its heartbeat, which may beat in another thread."""

import threading
from collections import deque

from hostler.contracts.lease import LeaseRef
from hostler.contracts.worker import Worker
from hostler.kernel.units import Seconds

BACKLOG = 64
"""Most state changes that wait for an engine that is away; then the oldest are forgotten."""


class Board:
    """Leases held, the worker's record, and when the loop last turned; every method is safe from any thread."""

    def __init__(self, worker: str, *, now: float) -> None:
        self.worker = worker
        self._lock = threading.Lock()
        self._leases: dict[LeaseRef, tuple[str, Seconds]] = {}
        self._changes: deque[tuple[int, Worker]] = deque(maxlen=BACKLOG)
        self._record: Worker | None = None
        self._count = 0
        self._turned = now

    def turn(self, now: float) -> None:
        """Note that the work loop has turned."""
        self._turned = now

    @property
    def turned(self) -> float:
        """Return when the work loop last turned, monotonic."""
        return self._turned

    def hold(self, ref: LeaseRef, lease_s: Seconds, *, queue: str) -> None:
        """Have this lease renewed from now on."""
        with self._lock:
            self._leases[ref] = queue, lease_s

    def drop(self, ref: LeaseRef) -> None:
        """Have this lease renewed no more; safe to call again."""
        with self._lock:
            self._leases.pop(ref, None)

    @property
    def shortest(self) -> Seconds | None:
        """Return the shortest lease time of those held."""
        with self._lock:
            return min((lease_s for _, lease_s in self._leases.values()), default=None)

    def queues(self) -> tuple[str, ...]:
        """Return the queues of which leases are held, that of the oldest lease first."""
        with self._lock:
            return tuple(dict.fromkeys(queue for queue, _ in self._leases.values()))

    def held(self, queue: str) -> tuple[LeaseRef, ...]:
        """Return the leases held of a queue."""
        with self._lock:
            return tuple(ref for ref, (of, _) in self._leases.items() if of == queue)

    def show(self, record: Worker) -> int:
        """Have this record announced at once, after those before it; returns its number."""
        with self._lock:
            self._record = record
            self._count += 1
            self._changes.append((self._count, record))
            return self._count

    def refresh(self, record: Worker) -> None:
        """Have this record announced with the next beat: it differs in counts only."""
        with self._lock:
            self._record = record

    def next(self) -> tuple[int, Worker] | None:
        """Return the oldest record that is not announced yet; it stays until `announced`."""
        with self._lock:
            return self._changes[0] if self._changes else None

    def announced(self, number: int) -> None:
        """Forget changes up to this number."""
        with self._lock:
            while self._changes and self._changes[0][0] <= number:
                self._changes.popleft()

    @property
    def record(self) -> Worker | None:
        """Return the latest record; None before the first."""
        with self._lock:
            return self._record

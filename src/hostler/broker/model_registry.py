"""The model's side for workers that say that they live."""

from datetime import datetime

import msgspec

from hostler.broker.model_core import ModelCore
from hostler.broker.model_state import WorkerRecord, seconds
from hostler.contracts.worker import Heard, Worker, WorkerState
from hostler.kernel.errors import NotFoundError

GONE_KEPT = 3600.0
"""Seconds for which a lost or stopped worker is still listed."""


class ModelRegistry(ModelCore):
    """Implements `ports.registry.Registry`."""

    async def announce(self, worker: Worker, *, ttl: float = 10.0) -> Heard:
        """Store or renew what a worker offers and how it is."""
        now = self._now()
        ends = now + seconds(ttl)
        known = self._workers.get(worker.id)
        seen = msgspec.structs.replace(worker, seen_at=now, expires_at=ends)
        commands = known.commands if known is not None else []
        self._workers[worker.id] = WorkerRecord(worker=seen, ends=ends, commands=commands)
        self._gone.pop(worker.id, None)
        return Heard(commands=bool(commands), catalogue=str(self._declared))

    async def withdraw(self, worker_id: str, *, state: str = "stopped", reason: str = "") -> None:
        """Forget a worker at once."""
        self._lapse(self._now())
        known = self._workers.pop(worker_id, None)
        if known is not None:
            self._bury(known, WorkerState(state), self._now(), reason or None)

    async def workers(self, *, include_gone: bool = False) -> tuple[Worker, ...]:
        """Return live workers by id."""
        now = self._now()
        self._lapse(now)
        self._gone = {key: gone for key, gone in self._gone.items() if gone.ends + seconds(GONE_KEPT) > now}
        found = {**(self._gone if include_gone else {}), **self._workers}
        return tuple(found[key].worker for key in sorted(found))

    async def command(self, worker_id: str, verb: str, *, reason: str = "") -> None:
        """Ask a worker to pause, resume or drain."""
        del reason
        self._lapse(self._now())
        if worker_id not in self._workers:
            raise NotFoundError(f"no live worker is named {worker_id!r}", worker=worker_id)
        self._workers[worker_id].commands.append(verb)

    async def commands(self, worker_id: str) -> tuple[str, ...]:
        """Take the commands that wait for this worker."""
        known = self._workers.get(worker_id)
        if known is None:
            return ()
        waiting = tuple(known.commands)
        known.commands.clear()
        return waiting

    def _lapse(self, now: datetime) -> None:
        for key, record in list(self._workers.items()):
            if record.ends <= now:
                del self._workers[key]
                self._bury(record, WorkerState.LOST, record.ends)

    def _bury(self, record: WorkerRecord, state: WorkerState, at: datetime, reason: str | None = None) -> None:
        worker = msgspec.structs.replace(record.worker, state=state, reason=reason)
        self._gone[worker.id] = WorkerRecord(worker=worker, ends=at)

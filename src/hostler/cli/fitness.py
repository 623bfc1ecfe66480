"""What a worker process checks before its worker takes jobs, and how one that cannot even be built is shown."""

import os
import secrets
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hostler.kernel.errors import EngineError, HostlerError
from hostler.kernel.settings import WorkerSettings
from hostler.kernel.version import __version__
from hostler.ports.blobs import Blobs

if TYPE_CHECKING:
    from hostler.valkeyio.engine import Engine
    from hostler.worker.fitness import Check


def fitness_checks(engine: "Engine", blobs: Blobs, settings: WorkerSettings) -> tuple[tuple[str, "Check"], ...]:
    """Return the checks that every worker process makes."""
    from hostler.registry.engine import EngineRegistry
    from hostler.worker.fitness import agrees, has_room, stores
    from hostler.worker.system import SystemClock

    return (
        ("blob store", stores(blobs, settings.id or str(os.getpid()))),
        ("clock", agrees(EngineRegistry(engine).now, SystemClock())),
        ("this machine", has_room(settings.slots)),
    )


@asynccontextmanager
async def reporting_failure(engine: "Engine", settings: WorkerSettings) -> AsyncGenerator[None]:
    """Have a worker that could not be built (a handler module, an extra) shown as failed, with the reason."""
    try:
        yield
    except HostlerError as error:
        with suppress(EngineError):  # what broke first is what is raised
            await _show_failed(engine, settings, error.message)
        raise


async def _show_failed(engine: "Engine", settings: WorkerSettings, reason: str) -> None:
    from hostler.contracts.worker import Worker, WorkerState
    from hostler.registry.engine import EngineRegistry

    now = datetime.now(UTC)
    record = Worker(
        id=settings.id or f"worker-{secrets.token_hex(4)}",
        state=WorkerState.STARTING,
        machine=socket.gethostname(),
        pid=os.getpid(),
        version=__version__,
        slots=settings.slots,
        running=0,
        queues=(),
        offers=(),
        started_at=now,
        seen_at=now,
        expires_at=now,
        loop_age=0.0,
        reason=reason,
    )
    registry = EngineRegistry(engine)
    await registry.announce(record)
    await registry.withdraw(record.id, state="failed", reason=reason)

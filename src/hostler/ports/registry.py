"""Who is alive: the promises of the worker registry."""

from typing import Protocol

from hostler.contracts.worker import Worker


class Registry(Protocol):
    """Workers with a lease: they vanish when it lapses."""

    async def announce(self, worker: Worker, *, ttl: float = 10.0) -> None:
        """Store or renew what a worker offers and how it is; it counts as live for `ttl` seconds.

        A change of `state` is one event. Offers decide which lanes it fits from now on.
        """
        ...

    async def withdraw(self, worker_id: str, *, state: str = "stopped") -> None:
        """Forget a worker at once; its leases are not touched. Idempotent."""
        ...

    async def workers(self, *, include_gone: bool = False) -> tuple[Worker, ...]:
        """Return live workers by id; with `include_gone` also those lost or stopped in the last hour."""
        ...

    async def command(self, worker_id: str, verb: str, *, reason: str = "") -> None:
        """Ask a worker to `pause`, `resume` or `drain`; it takes it up within one heartbeat. `NotFoundError`."""
        ...

    async def commands(self, worker_id: str) -> tuple[str, ...]:
        """Take the commands that wait for this worker, oldest first."""
        ...

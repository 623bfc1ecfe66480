"""Who is alive: the promises of the registries of workers and of endpoints."""

from collections.abc import Mapping
from typing import Protocol

from hostler.contracts.service import Census, Enrolment, Shared, Waiting
from hostler.contracts.worker import Heard, Worker


class Registry(Protocol):
    """Workers with a lease: they vanish when it lapses."""

    async def announce(self, worker: Worker, *, ttl: float = 10.0) -> Heard:
        """Store or renew what a worker offers and how it is; it counts as live for `ttl` seconds.

        Returns what is new for it. A change of `state` is one event. Offers decide which lanes it fits from now on.
        """
        ...

    async def withdraw(self, worker_id: str, *, state: str = "stopped", reason: str = "") -> None:
        """Forget a worker at once, for a reason that people read; its leases are not touched. Idempotent."""
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


class EndpointRegistry(Protocol):
    """Endpoints with a lease: they vanish when it lapses. Every change but a renewal is one event of the registry."""

    async def enroll(self, enrolment: Enrolment, *, ttl: float = 10.0) -> bool:
        """Store or renew one endpoint for `ttl` seconds, and tell whether that was news.

        The latest announcement of an id wins.
        """
        ...

    async def leave(self, endpoint: str, *, reason: str = "") -> bool:
        """Forget an endpoint at once; what runs there is not touched. False when it was not there. Idempotent."""
        ...

    async def census(self, *, version: str = "") -> Census:
        """Return all endpoints whose lease holds, by id, and all marks.

        With the `version` of an earlier answer: that answer's content may be left out when nothing changed since
        (then `version` is the same), but ends of leases have moved.
        """
        ...

    async def mark(self, endpoint: str, verb: str, *, reason: str = "") -> bool:
        """`pause` an endpoint, `resume` it, or `reset` its breakers; every worker that follows takes it up.

        Marks are kept by id, whether it is announced or configured. False when it changed nothing. `InvalidError`
        for another verb.
        """
        ...

    async def observed(self, worker: str, endpoint: str, *, was: str, state: str, reason: str = "") -> None:
        """Record as an event that a worker saw an endpoint change: its state, `breaker open`, `cooled`."""
        ...

    async def share(
        self,
        endpoint: str,
        worker: str,
        *,
        coming: str | None,
        loads: tuple[str, ...],
        busy: bool,
        waiting: Mapping[str, Waiting],
        ttl: float = 5.0,
    ) -> Shared:
        """Tell what a worker does at an endpoint that holds one model at a time, and return what all of them told.

        `loads` are the models that it has begun to load since it last said so, `busy` whether it has calls there,
        `waiting` what waits for models and could run there, by model. The first to tell is the keeper, whose `coming`
        is the one that counts, as long as it tells again within `ttl` seconds; then another takes its place. Nobody's
        word is kept longer than that.
        """
        ...

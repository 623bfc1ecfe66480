"""How a service is driven: the promises of a connector."""

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Protocol, Self

from hostler.contracts.queue import KindSpec
from hostler.contracts.service import Probe, RemoteRef, RemoteState, ServiceCall, ServiceCapabilities, Step


class Connector(Protocol):
    """Drives one endpoint of one service over one protocol.

    Opened and closed with `async with`; closing twice is safe and leaves no socket, task or file.
    No verb raises for what a service does wrong: failures are values with a class. An exception that does
    escape is a defect and is recorded as `internal`. Cancelling the task that iterates `observe` stops
    waiting, not the remote work: that is what `cancel` is for.
    """

    name: str
    """Configuration name, `<service>-<transport>`."""
    service: str
    endpoint: str
    """Id of the endpoint; opaque."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return the kinds that this connector can serve, with payload and result types and default timeouts."""
        ...

    async def probe(self) -> Probe:
        """Look at the endpoint now; never raises, never completes or fails a job."""
        ...

    async def capabilities(self) -> ServiceCapabilities:
        """Ask the endpoint what it has; raises `ServiceUnavailableError` when it does not answer."""
        ...

    async def submit(self, call: ServiceCall) -> RemoteRef | Step:
        """Hand the work over, with its fence where the protocol carries one.

        Returns the service's own id, or at once a `Finished`/`Failed` when there is nothing to wait for.
        Ends by the connect timeout.
        """
        ...

    def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        """Follow the work: any number of `Progress` and `Preview`, then exactly one `Finished` or `Failed`.

        Whoever leaves before it has ended, or right after its last step, closes it (`contextlib.aclosing`).
        Resumes by itself over dropped connections where the protocol allows it. Stage timeouts end it as `timeout`.
        """
        ...

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Ask the service about its own job; `UNKNOWN` when it cannot say, never a guess."""
        ...

    async def fetch(self, ref: RemoteRef) -> Step:
        """Return the `Finished` or `Failed` of work that `reconcile` called ended."""
        ...

    async def cancel(self, ref: RemoteRef) -> bool:
        """Stop the work if it is ours; True when the service confirmed that it stopped or had ended."""
        ...

    async def release(self, ref: RemoteRef) -> None:
        """Forget the work: free what connector and service keep for it. Idempotent, never raises."""
        ...

"""The service that a connector is tested on, and what tests do to it."""

import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import SkipTest

from msgspec import Raw

from hostler.contracts.failure import Failure
from hostler.contracts.service import (
    Failed,
    RemoteRef,
    RemoteState,
    ServiceCall,
    Step,
)
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.units import Seconds
from hostler.ports.connector import Connector
from hostler.testing.eventually import eventually

Hook = Callable[[], Awaitable[None]]
LIMITS = Timeouts(connect=5.0, load=10.0, first_byte=10.0, idle=10.0, run=30.0)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something to ask of the service."""

    kind: str
    payload: Any
    job: str = "conformance.1"
    """Whose work it is; a service that remembers jobs must be given one that it does not know."""


@dataclass(frozen=True, kw_only=True)
class ConnectorHarness:
    """A fresh service, and what a test may do to it; a hook that is None skips the promises that need it."""

    build: Callable[[], Connector]
    """A new connector to the service, not opened."""
    unreachable: Callable[[], Connector]
    """One whose endpoint refuses connections."""
    quick: Work
    """Ends well within a second or so."""
    slow: Work
    """Takes at least 3 s unless it is stopped."""
    wrong: Work
    """Does not fit its kind."""
    remembers: bool
    """Whether the service can be asked about a job by somebody who did not submit it."""
    executed: Callable[[], Awaitable[int]] | None = None
    """Executions that the service has begun."""
    busy: Callable[[], Awaitable[int]] | None = None
    """Executions that go on in the service now."""
    silence: Hook | None = None
    """From now on work ends well, but its stream does not say so."""
    cut: Hook | None = None
    """From now on streams are cut while work goes on."""
    hang: Hook | None = None
    """From now on work begins and then stops moving."""
    sick: Hook | None = None
    """From now on health checks fail, and nothing else."""
    full: Hook | None = None
    """From now on the service has no room, and says when to come back."""


def call_of(
    work: Work, *, job: str | None = None, fence: int = 1, timeouts: Timeouts = LIMITS, left: Seconds | None = None
) -> ServiceCall:
    """Return an attempt at a piece of work; `left` are the seconds to its deadline."""
    return ServiceCall(
        job_id=job or work.job,
        fence=fence,
        kind=work.kind,
        payload=Raw(json.dumps(work.payload).encode()),
        timeouts=timeouts,
        deadline=None if left is None else datetime.now(UTC) + timedelta(seconds=left),
    )


async def submitted(connector: Connector, call: ServiceCall) -> RemoteRef:
    """Submit and insist on a reference."""
    ref = await connector.submit(call)
    assert isinstance(ref, RemoteRef), ref
    return ref


async def steps_of(connector: Connector, call: ServiceCall) -> list[Step]:
    """Submit, follow to the end, and return every step."""
    answer = await connector.submit(call)
    if not isinstance(answer, RemoteRef):
        return [answer]
    return [step async for step in connector.observe(call, answer)]


async def failure_of(connector: Connector, call: ServiceCall) -> Failure:
    """Submit, follow to the end, and insist that it failed."""
    end = (await steps_of(connector, call))[-1]
    assert isinstance(end, Failed), end
    return end.failure


def open_files() -> int:
    """Count the files and sockets of this process (0 where the system does not tell)."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0  # noqa: PTH208 - names are all that is counted


def needs(hook: object, what: str) -> None:
    """Skip a promise that this service cannot be made to test."""
    if hook is None:
        raise SkipTest(f"this service has no way to {what}")


async def idle(harness: ConnectorHarness) -> None:
    """Wait until nothing runs in the service."""
    busy = harness.busy
    if busy is not None:

        async def quiet() -> bool:
            return await busy() == 0

        await eventually(quiet)


async def last_of(connector: Connector, call: ServiceCall, ref: RemoteRef) -> Step:
    """Follow to the end and return it."""
    return [step async for step in connector.observe(call, ref)][-1]


async def says(connector: Connector, ref: RemoteRef, state: RemoteState) -> bool:
    """Tell whether `reconcile` says this."""
    return await connector.reconcile(ref) is state


async def do(hook: Hook | None) -> None:
    """Let the service do what a hook is for."""
    if hook is not None:
        await hook()

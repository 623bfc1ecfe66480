"""One submitted job in the hand of a program."""

import time
from collections.abc import AsyncIterator
from typing import Any, Final, TypeVar, overload

import msgspec

from hostler.client.follow import followed
from hostler.client.wire import Wire
from hostler.contracts.api import Because, Moved
from hostler.contracts.event import Event, Timeline
from hostler.contracts.explain import Explanation
from hostler.contracts.job import Job, JobState
from hostler.contracts.preview import Preview, no_preview, preview_of
from hostler.kernel.errors import JobFailedError
from hostler.kernel.units import Seconds

T = TypeVar("T")

POLL: Final[Seconds] = 25.0
"""Longest single wait that is asked of the gateway; longer ones are made of several."""


class JobHandle:
    """A job by its id; every verb asks the gateway anew."""

    def __init__(self, wire: Wire, job_id: str, *, created: bool = True) -> None:
        self._wire = wire
        self.id: Final = job_id
        self.created: Final = created
        """False when the idempotency key was seen and this is the first job."""

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    async def get(self, *, payload: bool = False) -> Job:
        """Return the job as it is now; `NotFoundError`."""
        return await self._wire.read(self._path(), Job, query={"payload": payload})

    async def wait(self, *, timeout: Seconds | None = None) -> Job:
        """Return the job once it has ended; `TimeoutError` after `timeout` seconds."""
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            left = POLL if ends is None else min(POLL, max(0.0, ends - time.monotonic()))
            job = await self._wire.read(self._path(), Job, query={"payload": False, "wait": f"{left:.3f}"}, wait=left)
            if job.state.terminal:
                return job
            if ends is not None and time.monotonic() >= ends:
                raise TimeoutError(f"{self.id} is {job.state} after {timeout:g} s")

    @overload
    async def result(self, *, type: type[T], timeout: Seconds | None = None) -> T: ...

    @overload
    async def result(self, *, timeout: Seconds | None = None) -> Any: ...

    async def result(self, *, type: Any = Any, timeout: Seconds | None = None) -> Any:  # noqa: A002 - reads as asked
        """Wait for the end and return the result, as `type` if given; one in the blob store is fetched.

        `JobFailedError` when it ended otherwise, `TimeoutError` after `timeout` seconds, `msgspec.ValidationError`
        when the result is not of that type.
        """
        job = await self.wait(timeout=timeout)
        if job.state is not JobState.SUCCEEDED:
            why = f": {job.error.message}" if job.error else ""
            raise JobFailedError(
                f"{self.id} is {job.state}{why}",
                job=self.id,
                state=str(job.state),
                error=msgspec.to_builtins(job.error),
            )
        if job.result_ref is None:
            return msgspec.json.decode(job.result, type=type)
        return msgspec.json.decode(await self._wire.read_bytes(self._path("/result")), type=type)

    def follow(self, *, after: int = 0) -> AsyncIterator[Event]:
        """Yield its events until it has ended, from offset `after` on, over broken connections."""
        return followed(self._wire, self.id, after=after)

    async def timeline(self) -> Timeline:
        """Return what happened to it, in order."""
        return await self._wire.read(self._path("/timeline"), Timeline)

    async def preview(self) -> Preview:
        """Return its latest picture while it runs; `NotFoundError` when there is none now."""
        found = preview_of(await self._wire.read_bytes(self._path("/preview")))
        if found is None:
            raise no_preview(self.id)
        return found

    async def explain(self) -> Explanation:
        """Return why it is where it is."""
        return await self._wire.read(self._path("/explain"), Explanation)

    async def cancel(self, *, reason: str = "") -> JobState:
        """Cancel it; a running one says `running` until it did. `StateConflictError` when it ended otherwise."""
        return (await self._wire.change(self._path("/cancel"), Because(reason=reason), Moved)).state

    async def retry(self, *, reason: str = "") -> JobState:
        """Make it ready again if it is dead, as a new generation; `StateConflictError` otherwise."""
        return (await self._wire.change(self._path("/retry"), Because(reason=reason), Moved)).state

    def _path(self, rest: str = "") -> str:
        return f"v1/jobs/{self.id}{rest}"

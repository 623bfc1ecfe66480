"""Work that lives in one request of ours: the answer is the work, and closing the connection ends it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from msgspec import structs

from hostler.connectors.faults import ServiceFaultError, failure
from hostler.contracts.failure import FailureClass
from hostler.contracts.job import Progress
from hostler.contracts.preview import Preview
from hostler.contracts.service import Failed, Finished, RemoteRef, RemoteState, ServiceCall, Step

Report = Callable[[Progress | Preview], None]
Exchange = Callable[[Report], Awaitable[Finished | Failed]]
"""Does the whole request; may raise `ServiceFaultError`, reports progress and previews as it goes."""


KEPT: Final = 256
"""Ended requests that are remembered though nobody released them."""


class DirectCalls:
    """The requests that are under way, each in a task of its own until it is released.

    A new attempt of a job replaces what is left of an earlier one, and of ended requests only the latest
    `KEPT` are remembered. Nobody but this process can know them: `state` of anything else is `UNKNOWN`.
    """

    def __init__(self) -> None:
        self._works: dict[str, _Work] = {}

    def start(self, call: ServiceCall, exchange: Exchange) -> RemoteRef:
        """Begin the request; idempotent by job and fence."""
        ref = RemoteRef(id=f"{call.job_id}/{call.fence}", job_id=call.job_id, fence=call.fence, heritable=False)
        if ref.id in self._works:
            return ref
        earlier = [key for key, work in self._works.items() if work.job == call.job_id and work.end is not None]
        for key in (*earlier, *self._forgettable(set(earlier))):
            del self._works[key]
        self._works[ref.id] = _Work(exchange, job=call.job_id)
        return ref

    def _forgettable(self, besides: set[str]) -> list[str]:
        """Return the oldest of the ended requests that nobody released, when there are too many."""
        if len(self._works) <= KEPT:
            return []
        ended = [key for key, work in self._works.items() if work.end is not None and key not in besides]
        return ended[: max(0, len(ended) - KEPT)]

    async def observe(self, ref: RemoteRef) -> AsyncGenerator[Step]:
        """Yield what is new until the request has ended; text that nobody took yet comes at once."""
        work = self._works.get(ref.id)
        if work is None:
            yield _forgotten(ref)
            return
        while True:
            await work.news.wait()
            for news in work.take():
                yield news
            if work.end is not None:
                yield work.end
                return

    def state(self, ref: RemoteRef) -> RemoteState:
        """Say how the request is."""
        work = self._works.get(ref.id)
        match None if work is None else work.end:
            case None:
                return RemoteState.UNKNOWN if work is None else RemoteState.RUNNING
            case Finished():
                return RemoteState.SUCCEEDED
            case Failed(failure=known) if known.class_ is FailureClass.CANCELLED:
                return RemoteState.CANCELLED
            case Failed():
                return RemoteState.FAILED

    def outcome(self, ref: RemoteRef) -> Finished | Failed:
        """Return how the request ended; `lost` when it is not known here."""
        work = self._works.get(ref.id)
        if work is None or work.end is None:
            return _forgotten(ref)
        return work.end

    async def cancel(self, ref: RemoteRef) -> bool:
        """Close the connection; True when the request was ours and has ended."""
        work = self._works.get(ref.id)
        if work is None:
            return False
        await work.stop()
        return True

    async def release(self, ref: RemoteRef) -> None:
        """Forget the request, and end it if it goes on. Idempotent."""
        work = self._works.pop(ref.id, None)
        if work is not None:
            await work.stop()

    async def close(self) -> None:
        """End and forget them all."""
        works, self._works = tuple(self._works.values()), {}
        await asyncio.gather(*(work.stop() for work in works))


class _Work:
    """One request: its task, the progress and preview that nobody took yet, and its end."""

    def __init__(self, exchange: Exchange, *, job: str) -> None:
        self.job = job
        self.end: Finished | Failed | None = None
        self.news = asyncio.Event()
        self._progress: Progress | None = None
        self._text: list[str] = []
        """Text of progress that nobody took yet."""
        self._preview: Preview | None = None
        self._task = asyncio.create_task(self._run(exchange), name=f"request of {job}")

    def take(self) -> tuple[Progress | Preview, ...]:
        """Take what is new since the last time."""
        progress, preview = self._progress, self._preview
        if progress is not None and self._text and self._text != [progress.text]:
            progress = structs.replace(progress, text="".join(self._text))
        self._progress = self._preview = None
        self._text.clear()
        if self.end is None:
            self.news.clear()
        return tuple(each for each in (progress, preview) if each is not None)

    async def stop(self) -> None:
        """End the request, closing its connection."""
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})
        if self.end is None:  # cancelled before its first step
            self._finish(_cancelled())

    def _report(self, news: Progress | Preview) -> None:
        if isinstance(news, Preview):
            self._preview = news
        else:
            self._progress = news
            if news.text is not None:
                self._text.append(news.text)
        self.news.set()

    async def _run(self, exchange: Exchange) -> None:
        try:
            end = await exchange(self._report)
        except ServiceFaultError as error:
            end = Failed(failure=error.failure)
        except asyncio.CancelledError:
            end = _cancelled()
        except Exception as error:  # noqa: BLE001 - a defect must end this job, not be lost in a task
            end = Failed(failure=failure(FailureClass.INTERNAL, f"{type(error).__name__}: {error}"))
        self._finish(end)

    def _finish(self, end: Finished | Failed) -> None:
        self.end = end
        self.news.set()


def _cancelled() -> Failed:
    return Failed(failure=failure(FailureClass.CANCELLED, "the request was ended by closing its connection"))


def _forgotten(ref: RemoteRef) -> Failed:
    return Failed(
        failure=failure(FailureClass.LOST, f"this process has no request {ref.id}, and the service keeps none")
    )

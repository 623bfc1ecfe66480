"""One prediction: a request that is the work, followed by its events where the model streams."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from hostler.connectors.direct import Report
from hostler.connectors.faults import ServiceFaultError, failure, fault, off_protocol
from hostler.connectors.services.cog.messages import CogResult, LogLine, OutputChunk, PredictionView
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import NO_CODES, HttpStream, HttpTransport, segment
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import Failed, Finished
from hostler.kernel.units import Bytes, Seconds

T = TypeVar("T")

LOGS: Final[Bytes] = 65_536
"""As much of a model's log as a result keeps."""
LINE: Final = 400
"""Characters of a log line that progress shows."""
SETTLED: Final[Seconds] = 1.0
"""After so long a model is taken to have begun, though it said nothing."""
AGAIN: Final[Seconds] = 0.05
"""How often a prediction is told to end."""
ROOM_TRIES: Final = 20
ROOM_PAUSE: Final[Seconds] = 0.1


class Wanted(Struct, frozen=True, kw_only=True):
    """What is asked of the model."""

    body: bytes
    id: str
    """Our name for the prediction, from job and fence."""
    earlier: tuple[str, ...]
    """Predictions of earlier attempts at this job."""
    text: bool
    """Whether the chunks of the output are pieces of one text."""
    refusals: tuple[str, ...]
    """Words in an error by which the model declines."""
    answer_limit: Bytes


class Prediction:
    """Does one prediction; closing its connection cancels it."""

    def __init__(
        self,
        http: HttpTransport,
        wanted: Wanted,
        stages: Stages,
        *,
        timeout: Seconds,
        stop: Seconds,
        stopping: Callable[[], bool],
    ) -> None:
        self._http = http
        self._wanted = wanted
        self._stages = stages
        self._timeout = timeout
        self._stop = stop
        self._stopping = stopping
        """Whether we asked for its end."""
        self._sent = time.monotonic()
        self._began = asyncio.Event()
        """Set by the first word of the model itself."""

    async def run(self, report: Report, *, stream: bool) -> tuple[Finished | Failed, bool]:
        """Return the end and whether the model streams; when it is cancelled, the prediction is stopped first.

        What must end early is cancelled by its name: a service that only sees the connection close may forget
        the prediction and go on with it.
        """
        self._stages.check(Stage.CONNECT, since=time.monotonic())
        work = asyncio.create_task(self._asked(report, stream=stream), name=f"prediction {self._wanted.id}")
        try:
            async with self._stages.within(Stage.RUN):
                await asyncio.wait({work})
        except asyncio.CancelledError:
            gone = await self._stopped()
            words = "the prediction was stopped" if gone else "the service did not confirm that it stopped"
            return Failed(failure=failure(FailureClass.CANCELLED, words, stopped=gone)), stream
        except ServiceFaultError:
            await self._stopped()
            raise
        finally:
            work.cancel()
            await asyncio.wait({work})
            if not work.cancelled():
                work.exception()  # taken note of, also when something else is raised
        return work.result()

    async def _asked(self, report: Report, *, stream: bool) -> tuple[Finished, bool]:
        """Ask, again without events where the model has none, and again when an earlier attempt held the slot."""
        evicted = False
        for _ in range(ROOM_TRIES):
            if not stream:
                words = "the model does not stream: nothing is known until it is done"
                report(Progress(stage="waiting", message=words))
            try:
                return await self._once(report, stream=stream), stream
            except ServiceFaultError as error:
                status = error.failure.details.get("status")
                if stream and status == HTTPStatus.NOT_ACCEPTABLE:
                    stream = False
                elif status == HTTPStatus.CONFLICT and (await self._evicted() or evicted):
                    evicted = True  # its slot becomes free in a moment
                    await asyncio.sleep(ROOM_PAUSE)
                else:
                    raise
        raise fault(FailureClass.OVERLOADED, "the slot of an earlier attempt does not become free")

    async def _once(self, report: Report, *, stream: bool) -> Finished:
        since = self._sent = time.monotonic()
        async with self._http.stream(
            "PUT",
            f"/predictions/{segment(self._wanted.id)}",
            body=self._wanted.body,
            headers={"Accept": "text/event-stream"} if stream else None,
            # A model that does not stream says nothing until it is done: only the whole run can be bounded.
            first_byte=self._stages.left(Stage.FIRST_BYTE)[0] if stream else None,
            silence=None,
            limit=self._wanted.answer_limit,
        ) as answer:
            if not stream or answer.content_type != "text/event-stream" or answer.status != HTTPStatus.OK:
                return self._ended(_decoded(await answer.read(NO_CODES), PredictionView))
            try:
                view = await self._followed(answer, report, since=since)
            except ServiceFaultError:
                await self._stopped()
                raise
            return self._ended(view)

    async def _followed(self, answer: HttpStream, report: Report, *, since: float) -> PredictionView:
        clock = self._stages.clock(Stage.FIRST_BYTE, since=since)
        async with aclosing(answer.sse()) as events, clock:
            async for event in events:
                if event.event == "completed":
                    return _decoded(event.data, PredictionView)
                clock.begin(Stage.IDLE)
                if event.event != "start":
                    self._began.set()
                progress = self._progress(event.event, event.data)
                if progress is not None:
                    report(progress)
        raise off_protocol("the service ended its events without saying how the prediction ended")

    async def _stopped(self) -> bool:
        """Cancel the prediction by its name; True when the service has none of it any more.

        A cancel that comes before the model has begun is lost for good (seen with Cog 0.23.1: it answers 200 and goes
        on to the end), so the first word of the model is waited for, or a second.
        """
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._sent + SETTLED - time.monotonic())):
                    await self._began.wait()
            return await end(self._http, self._wanted.id, within=self._stop)
        except ServiceFaultError:
            return False

    def _progress(self, event: str, data: str) -> Progress | None:
        match event:
            case "start":
                return Progress(stage="processing")
            case "output":
                chunk = _decoded(data, OutputChunk)
                if self._wanted.text and isinstance(chunk.chunk, str):
                    return Progress(stage="processing", text=chunk.chunk)
                return Progress(stage="processing", message=f"output {chunk.index + 1}")
            case "log":
                line = _decoded(data, LogLine).data.strip().rpartition("\n")[2]
                return Progress(stage="processing", message=line[-LINE:])
            case _:  # metrics, and words of later versions
                return None

    def _ended(self, view: PredictionView) -> Finished:
        """Return the result, or raise the fault of a prediction that did not go well: status 200 says nothing."""
        if view.id is not None and view.id != self._wanted.id:
            raise off_protocol(f"the service answered with prediction {view.id!r}")
        match view.status:
            case "succeeded":
                result = CogResult(
                    output=msgspec.json.decode(view.output), logs=(view.logs or "")[-LOGS:], metrics=view.metrics or {}
                )
                return Finished(result=Raw(msgspec.json.encode(result)))
            case "failed":
                raise ServiceFaultError(self._failure(view.error or "the model failed and does not say why"))
            case "canceled" if self._stopping():
                raise fault(FailureClass.CANCELLED, "the service says that it was cancelled")
            case "canceled":
                raise fault(FailureClass.TRANSIENT, "somebody else cancelled the prediction", cancelled=True)
            case _:
                raise off_protocol(f"the service gave an answer to a prediction that is {view.status!r}")

    def _failure(self, words: str) -> Failure:
        """Judge a model's exception: the protocol has no word for its kind, so the text is all there is."""
        lower = words.lower()
        if any(refusal.lower() in lower for refusal in self._wanted.refusals):
            return failure(FailureClass.REFUSED, words, code="failed")
        if "outofmemoryerror" in lower or "out of memory" in lower:
            return failure(FailureClass.OUT_OF_MEMORY, words, code="failed")
        return failure(FailureClass.TRANSIENT, words, code="failed")

    async def _evicted(self) -> bool:
        """Cancel what earlier attempts at this job left; True when there was something."""
        found = False
        for earlier in self._wanted.earlier:
            found = await cancel(self._http, earlier, within=self._timeout) or found
        return found


async def cancel(http: HttpTransport, prediction: str, *, within: Seconds) -> bool:
    """Cancel a prediction; False when the service has none of this name (any more)."""
    answer = await http.call("POST", f"/predictions/{segment(prediction)}/cancel", body=b"{}", within=within)
    if answer.status == HTTPStatus.NOT_FOUND:
        return False
    answer.expect()
    return True


async def end(http: HttpTransport, prediction: str, *, within: Seconds) -> bool:
    """Cancel a prediction until the service has none of this name; False when it still has after so many seconds.

    A cancel that falls between two steps of a model that streams is not heard (seen with Cog 0.23.1): it is told again.
    """
    until = time.monotonic() + within
    while await cancel(http, prediction, within=within):
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(AGAIN)
    return True


def _decoded(data: str | bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service sent what is not its protocol: {error}") from None

"""Work of a described service: accepted and followed, or done in one request."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, contextmanager
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, structs

from hostler.connectors.direct import Report
from hostler.connectors.faults import ServiceFaultError, failure, off_protocol
from hostler.connectors.follow import ENDED, Signal
from hostler.connectors.services.generic.answers import (
    Document,
    accepted,
    progress_of,
    read_document,
    refuse,
    result_of,
    signal_of,
    spoken,
)
from hostler.connectors.services.generic.declared import Types
from hostler.connectors.services.generic.description import (
    Caching,
    Events,
    Follow,
    HttpJsonOptions,
    HttpKind,
    Request,
    Submit,
)
from hostler.connectors.services.generic.templates import Scope, fill, names_in, write_header, write_path
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import Answer, HttpStream, HttpTransport, StreamedAnswer
from hostler.connectors.transports.http_cache import Asked, HttpCache
from hostler.contracts.failure import FailureClass, Stage
from hostler.contracts.service import Failed, Finished, RemoteRef, RemoteState
from hostler.kernel.units import Bytes

CONTENT_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "sse": frozenset({"text/event-stream"}),
    "ndjson": frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"}),
}

OWN: Final = frozenset({"job", "fence"})
"""What is another one for each job and attempt."""


class Ready(Struct, frozen=True, kw_only=True):
    """A request whose names are filled in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    own: frozenset[str] = frozenset()
    """Names of the headers that say which job or attempt it is."""


def ready(request: Request | Submit | Events, scope: Scope) -> Ready:
    """Fill in a request; raises `invalid_input` when the payload lacks what it needs."""
    headers = {name: write_header(value, scope) for name, value in request.headers.items()}
    path = write_path(request.path, scope)
    if isinstance(request, Events):
        return Ready(method="GET", path=path, headers=headers, body=None)
    template = request.body
    if template is UNSET and isinstance(request, Submit) and request.method != "GET":
        template = "{payload}"
    body = None if template is UNSET else msgspec.json.encode(fill(template, scope))
    own = frozenset(name for name, value in request.headers.items() if OWN >= set(names_in(value)) != set())
    return Ready(method=request.method, path=path, headers=headers, body=body, own=own)


@contextmanager
def altering(cache: HttpCache, asked: Ready) -> Generator[None]:
    """Send a request inside; unless it only reads, what is kept of its path is not true afterwards, whatever came."""
    try:
        yield
    finally:
        if asked.method != "GET":
            cache.changed(asked.path)


class JsonWork:
    """One piece of accepted work, as `RemoteWork`; `types` are those that its result must fit one of."""

    def __init__(
        self,
        http: HttpTransport,
        cache: HttpCache,
        ref: RemoteRef,
        *,
        options: HttpJsonOptions,
        follow: Follow,
        types: tuple[Types, ...],
    ) -> None:
        self._http = http
        self._cache = cache
        self._options = options
        self._follow = follow
        self._types = types
        self._scope: Scope = {"id": ref.id, "job": ref.job_id, "fence": ref.fence}

    async def signals(self, cursor: str | None) -> AsyncGenerator[Signal]:
        """Read the stream of events; where there is none, be silent, so that the status is asked."""
        events = self._follow.events
        if events is None:
            await asyncio.Event().wait()
            return
        asked = ready(events, self._scope)
        headers = {"Accept": "text/event-stream" if events.format == "sse" else "application/x-ndjson", **asked.headers}
        if cursor is not None:
            headers["Last-Event-ID"] = cursor
        async with self._http.stream(
            "GET", asked.path, headers=headers, first_byte=self._options.timeout, silence=None
        ) as stream:
            if stream.status in self._follow.gone:
                return
            await expect_stream(stream, events.format, self._options)
            async with aclosing(documents(stream, events.format, last=None)) as found:
                async for document, seen in found:
                    yield signal_of(document.value, self._options.reading, cursor=seen, certain=False)

    async def view(self) -> tuple[Signal, Document | None]:
        """Ask how the work is; `LOST` without a document when the service knows nothing of it."""
        answer = await self.ask(self._follow.status)
        if answer.status in self._follow.gone:
            return Signal(state=RemoteState.LOST), None
        if not answer.ok:
            accepted(answer, self._options.errors)
        found = read_document(answer.body, what="a status")
        word = signal_of(found.value, self._options.reading)
        if word.state not in ENDED:
            refuse(found.value, self._options.errors)
        return word, found

    async def status(self) -> Signal:
        """Ask how the work is."""
        signal, _ = await self.view()
        return signal

    async def outcome(self) -> Finished | Failed:
        """Ask how the work ended; a success without a result that fits is none."""
        signal, found = await self.view()
        match signal.state:
            case RemoteState.SUCCEEDED if found is not None:
                return await self._finished(found)
            case RemoteState.FAILED if found is not None:
                return Failed(
                    failure=spoken(found.value, self._options.errors, words="the service says that it failed")
                )
            case RemoteState.CANCELLED:
                return Failed(failure=failure(FailureClass.CANCELLED, "the service says that it was cancelled"))
            case RemoteState.LOST:
                return Failed(failure=failure(FailureClass.LOST, "the service knows nothing of the work"))
            case _:
                raise off_protocol(f"the service was asked for the end of work that is {signal.state}")

    async def _finished(self, found: Document) -> Finished | Failed:
        if self._follow.result is not None:
            answer = await self.ask(self._follow.result, limit=self._options.answer_limit)
            found = accepted(answer, self._options.errors)
        else:
            refuse(found.value, self._options.errors)
        result = result_of(found, self._options.reading)
        return judged(result, self._types)

    async def take_over(self) -> None:
        """Tell the service that a higher fence holds the work."""
        if self._follow.take_over is not None:
            answer = await self.ask(self._follow.take_over)
            if not answer.ok:
                accepted(answer, self._options.errors)

    async def stop(self) -> bool:
        """Tell the work to stop; True when the service then says that it has ended, or knows nothing of it."""
        if self._follow.cancel is None:
            return False
        answer = await self.ask(self._follow.cancel)
        if answer.status in self._follow.gone:
            return True
        if not answer.ok:
            accepted(answer, self._options.errors)
        signal, _ = await self.view()
        return signal.state in ENDED

    async def release(self) -> None:
        """Let the service forget the work."""
        if self._follow.release is not None:
            await self.ask(self._follow.release)

    async def ask(self, request: Request, *, limit: Bytes | None = None) -> Answer:
        """Send one of the requests about this work."""
        asked = ready(request, self._scope)
        with altering(self._cache, asked):
            return await self._http.call(
                asked.method,
                asked.path,
                headers=asked.headers,
                body=asked.body,
                within=self._options.timeout,
                limit=self._options.answer_limit if limit is None else limit,
            )


class Exchange:
    """Work that is one request: its answer, whole or in events, is the end."""

    def __init__(
        self,
        http: HttpTransport,
        cache: HttpCache,
        stages: Stages,
        asked: Ready,
        *,
        kind: HttpKind,
        options: HttpJsonOptions,
    ) -> None:
        self._http = http
        self._cache = cache
        self._stages = stages
        self._asked = asked
        self._kind = kind
        self._options = options
        self._reading = options.reading_of(kind)
        self._texts: list[str] = []

    async def run(self, report: Report) -> Finished | Failed:
        """Do it."""
        asked, caching = self._asked, self._kind.caching
        since = time.monotonic()
        with altering(self._cache, asked):
            async with self._stages.within(Stage.RUN):
                if caching is not None:
                    return await self._cached(caching)
                async with self._send({}) as stream:
                    if self._kind.stream is None:
                        return self._judged(await stream.answer())
                    await expect_stream(stream, self._kind.stream, self._options)
                    found = await self._read(stream, report, since=since)
        return self._result(found)

    def _send(self, more: Mapping[str, str]) -> StreamedAnswer:
        asked = self._asked
        first_byte, _, _ = self._stages.left(Stage.FIRST_BYTE)
        idle, _, _ = self._stages.left(Stage.IDLE)
        return self._http.stream(
            asked.method,
            asked.path,
            headers={**asked.headers, **more},
            body=asked.body,
            first_byte=first_byte,
            silence=idle if self._kind.stream is None else None,
            limit=self._options.answer_limit,
        )

    async def _cached(self, caching: Caching) -> Finished | Failed:
        """Take an answer that may be given again, where there is one; one that is no success is not kept."""
        asked, sent = self._wanted, False

        def send(more: Mapping[str, str]) -> StreamedAnswer:
            nonlocal sent
            sent = True
            return self._send(more)

        patience, _, _ = self._stages.left(Stage.FIRST_BYTE)
        answer = await self._cache.get(asked, send, assumed=caching.assume_fresh, patience=patience)
        try:
            end = self._judged(answer)
        except ServiceFaultError:
            self._cache.forget(asked, answer)
            raise
        if isinstance(end, Failed):
            self._cache.forget(asked, answer)
            return end
        return end if sent else structs.replace(end, kept=True)

    def remembered(self) -> Finished | None:
        """Return the result where an answer is kept that may be given again now; the service is not asked."""
        answer = self._cache.fresh(self._wanted)
        if answer is None:
            return None
        try:
            end = self._judged(answer)
        except ServiceFaultError:
            return None
        return structs.replace(end, kept=True) if isinstance(end, Finished) else None

    @property
    def _wanted(self) -> Asked:
        asked = self._asked
        return Asked(path=asked.path, headers=asked.headers, body=asked.body, own=asked.own)

    def _judged(self, answer: Answer) -> Finished | Failed:
        found = accepted(answer, self._options.errors)
        if self._reading.state is not None:
            self._end(found)
        return self._result(found)

    async def _read(self, stream: HttpStream, report: Report, *, since: float) -> Document | None:
        """Read events until the one that ends the work; a stream that ends before it is no success."""
        clock, newest = self._stages.clock(Stage.FIRST_BYTE, since=since), None
        async with aclosing(documents(stream, self._kind.stream or "sse", last=self._kind.last)) as events, clock:
            async for document, _ in events:
                if document is LAST:
                    return newest
                newest = document
                clock.begin(Stage.IDLE)
                refuse(document.value, self._options.errors)
                progress = progress_of(document.value, self._reading, state=RemoteState.RUNNING)
                self._texts += [progress.text] if progress.text else []
                report(progress)
                if self._reading.state is not None and self._end(document, certain=False):
                    return document
        raise off_protocol("the stream ended before the service said that the work had")

    def _end(self, found: Document, *, certain: bool = True) -> bool:
        """Tell whether a document says that the work ended well; raises when it says that it did not."""
        state = signal_of(found.value, self._reading, certain=certain).state
        match state:
            case RemoteState.SUCCEEDED:
                return True
            case RemoteState.FAILED:
                words = "the service says that it failed"
                raise ServiceFaultError(spoken(found.value, self._options.errors, words=words))
            case RemoteState.CANCELLED:
                raise ServiceFaultError(failure(FailureClass.CANCELLED, "the service says that it was cancelled"))
            case RemoteState.LOST:
                raise ServiceFaultError(failure(FailureClass.LOST, "the service says that it lost the work"))
            case _ if certain:
                raise off_protocol(f"the service answered with work that is {state}")
            case _:
                return False

    def _result(self, found: Document | None) -> Finished | Failed:
        types = (Types(self._kind),)
        if found is None:
            raise off_protocol("the service ended a stream in which there was nothing")
        if self._kind.gather:
            return judged(Raw(msgspec.json.encode({"text": "".join(self._texts)})), types)
        return judged(result_of(found, self._reading), types)


LAST: Final = Document(raw=Raw(b"null"), value=None)
"""Stands for the data that ends a stream."""


async def expect_stream(stream: HttpStream, form: str, options: HttpJsonOptions) -> None:
    """Raise the fault of an answer that is no stream of this form."""
    if 200 <= stream.status < 300 and stream.content_type in CONTENT_TYPES[form]:  # noqa: PLR2004 - what 2xx means
        return
    accepted(await stream.answer(), options.errors)
    raise off_protocol(f"the service answered {stream.status} with {stream.content_type}, not a stream of {form}")


async def documents(stream: HttpStream, form: str, *, last: str | None) -> AsyncGenerator[tuple[Document, str | None]]:
    """Yield the documents of a stream with their cursors; `LAST` for the data that ends it."""
    if form == "sse":
        async with aclosing(stream.sse()) as events:
            async for event in events:
                if last is not None and event.data.strip() == last:
                    yield LAST, event.id
                    return
                yield read_document(event.data, what="an event"), event.id
        return
    async with aclosing(stream.ndjson()) as lines:
        async for line in lines:
            if last is not None and line.decode().strip() == last:
                yield LAST, None
                return
            yield read_document(line, what="a line"), None


def judged(result: Raw, types: tuple[Types, ...]) -> Finished | Failed:
    """Return the end of work whose result must fit one of these types."""
    problem: ServiceFaultError | None = None
    for one in types:
        try:
            one.judge_result(result)
        except ServiceFaultError as error:
            problem = error
        else:
            return Finished(result=result)
    return Finished(result=result) if problem is None else Failed(failure=problem.failure)

"""The requests of the OpenAI API: ask, follow, judge."""

from contextlib import aclosing
from typing import Final, Protocol

import msgspec
from msgspec import Raw, Struct

from hostler.connectors.chat import EmbedResult
from hostler.connectors.direct import Report
from hostler.connectors.faults import off_protocol
from hostler.connectors.services.openai.assemble import CODES
from hostler.connectors.services.openai.images import pictures_of
from hostler.connectors.services.openai.messages import EmbedAnswer
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import HttpTransport
from hostler.connectors.transports.streams import SseEvent
from hostler.contracts.failure import Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import Finished
from hostler.kernel.units import Bytes

_EVENTS: Final = {"Accept": "text/event-stream"}


class Reader(Protocol):
    """Makes one result of what arrives; every verb raises the failure that it spells."""

    def event(self, event: SseEvent) -> str | None:
        """Take an event and return its new text, None when it was the last."""
        ...

    def whole(self, body: bytes) -> None:
        """Take an answer that came at once."""
        ...

    def result(self) -> Struct:
        """Return the result."""
        ...


class Way:
    """The way to one endpoint for one attempt: transport, clocks, limit."""

    def __init__(self, http: HttpTransport, stages: Stages, *, limit: Bytes) -> None:
        self.http = http
        self.stages = stages
        self.limit = limit

    async def post(self, path: str, body: bytes) -> bytes:
        """Send work and return the whole JSON answer; on a connection of its own, since none is closed under it."""
        idle, _, _ = self.stages.left(Stage.IDLE)
        async with (
            self.stages.clock(Stage.FIRST_BYTE) as clock,
            self.http.stream("POST", path, body=body, first_byte=None, silence=idle, limit=self.limit) as stream,
        ):
            clock.begin(Stage.RUN)
            await stream.expect("application/json", CODES)
            return await stream.read(CODES)


class TextExchange:
    """One request whose answer is text: a chat, or a response."""

    def __init__(self, way: Way, path: str, body: bytes, reader: Reader, *, stream: bool) -> None:
        self._way = way
        self._path = path
        self._body = body
        self._reader = reader
        self._stream = stream

    async def run(self, report: Report) -> Finished:
        """Do it; with `stream` every piece of text is reported."""
        if self._stream:
            await self._streamed(report)
        else:
            self._reader.whole(await self._way.post(self._path, self._body))
        return _finished(self._reader.result())

    async def _streamed(self, report: Report) -> None:
        """Read events until the last; comments keep no clock from running out."""
        way = self._way
        asked = way.http.stream(
            "POST", self._path, body=self._body, headers=_EVENTS, first_byte=None, silence=None, limit=way.limit
        )
        async with way.stages.clock(Stage.FIRST_BYTE) as clock, asked as stream:
            if stream.content_type == "application/json":  # an error under status 200, or a server that never streams
                self._reader.whole(await stream.read(CODES))
                return
            await stream.expect("text/event-stream", CODES)
            async with aclosing(stream.sse()) as events:
                async for event in events:
                    text = self._reader.event(event)
                    if text is None:
                        return
                    clock.begin(Stage.IDLE)
                    if text:
                        report(Progress(stage="generating", text=text))


async def embed_exchange(way: Way, body: bytes) -> Finished:
    """Do one embeddings request."""
    found = await way.post("/v1/embeddings", body)
    try:
        answer = msgspec.json.decode(found, type=EmbedAnswer)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service sent vectors that are not its protocol: {error}") from None
    rows = sorted(answer.data, key=lambda row: row.index)
    if [row.index for row in rows] != list(range(len(rows))) or not rows:
        raise off_protocol("the service sent vectors that do not stand for the inputs one by one")
    vectors = tuple(row.embedding for row in rows)
    return _finished(EmbedResult(model=answer.model, vectors=vectors, usage=answer.usage))


async def image_exchange(way: Way, body: bytes, *, wanted: int) -> Finished:
    """Do one request for pictures."""
    found = await way.post("/v1/images/generations", body)
    return _finished(pictures_of(found, wanted=wanted))


def _finished(result: Struct) -> Finished:
    return Finished(result=Raw(msgspec.json.encode(result)))

"""The requests of Ollama, one class each: load what is not loaded, ask, follow, judge."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from hostler.connectors.chat import CHAT, EMBED, EmbedResult, Timings
from hostler.connectors.direct import Report
from hostler.connectors.faults import ServiceFaultError, off_protocol
from hostler.connectors.services.ollama.lines import (
    Assembler,
    PullMeter,
    judge_model,
    read_line,
    refined,
    seconds,
    usage_of,
)
from hostler.connectors.services.ollama.messages import (
    EmbedAnswer,
    Line,
    ModelList,
    PullLine,
    PullResult,
    full_name,
)
from hostler.connectors.services.ollama.requests import PATHS, load_request
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import HttpStream, HttpTransport
from hostler.contracts.failure import Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import Finished
from hostler.kernel.units import Bytes, Json, Seconds

T = TypeVar("T", bound=Struct)

JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"


class Way:
    """The way to one endpoint for one attempt: transport, clocks, limits."""

    def __init__(self, http: HttpTransport, stages: Stages, *, lists: Seconds, limit: Bytes) -> None:
        self.stages = stages
        self._http = http
        self._lists = lists
        self._limit = limit

    async def models(self, path: str) -> ModelList:
        """Return the models at `/api/tags` or `/api/ps`."""
        return (await self._http.call("GET", path, within=self._lists)).expect().json(ModelList)

    async def whole(self, path: str, body: dict[str, Json], shape: type[T], *, stage: Stage) -> T:
        """Send a request and return its whole answer, in the time of one stage."""
        try:
            async with (
                self.stages.within(stage),
                self._http.stream(
                    "POST", path, body=msgspec.json.encode(body), first_byte=None, silence=None, limit=self._limit
                ) as stream,
            ):
                await stream.expect(JSON)
                return read_line(await stream.read(), shape)
        except ServiceFaultError as error:
            raise ServiceFaultError(refined(error.failure)) from error

    async def lines(self, path: str, body: dict[str, Json], shape: type[T]) -> AsyncGenerator[T]:
        """Send a request and yield the lines of its answer.

        The first has to come in the time of `first_byte`, each next one in that of `idle` since the last one
        that said something new.
        """
        since = time.monotonic()
        first_byte, _, _ = self.stages.left(Stage.FIRST_BYTE)
        try:
            async with (
                self._http.stream(
                    "POST",
                    path,
                    body=msgspec.json.encode(body),
                    headers={"Accept": LINES},
                    first_byte=first_byte,
                    silence=None,
                    limit=self._limit,
                ) as stream,
                aclosing(self._read(stream, shape, since=since)) as lines,
            ):
                async for line in lines:
                    yield line
        except ServiceFaultError as error:
            raise ServiceFaultError(refined(error.failure)) from error

    async def _read(self, stream: HttpStream, shape: type[T], *, since: float) -> AsyncGenerator[T]:
        if stream.content_type == JSON:  # an error under status 200, or a server that never streams
            yield read_line(await stream.read(), shape)
            return
        await stream.expect(LINES)
        stage = Stage.FIRST_BYTE
        before: T | None = None
        async with aclosing(stream.ndjson()) as lines:
            while True:
                async with self.stages.within(stage, since=since):
                    text = await anext(lines, None)
                if text is None:
                    return
                line = read_line(text, shape)
                if line != before or stage is Stage.FIRST_BYTE:
                    stage, since = Stage.IDLE, time.monotonic()
                before = line
                yield line


async def warm(way: Way, kind: str, body: dict[str, Json], report: Report) -> Seconds | None:
    """Load the model unless it is in memory, and return how long that took; None where nothing had to be done.

    A server that does not say what it holds is not asked to load: its first byte then includes the load.
    """
    model = full_name(str(body["model"])).lower()
    try:
        held = (await way.models("/api/ps")).models or ()
    except ServiceFaultError:
        return None
    if model in {row.name.lower() for row in held}:
        return None
    report(Progress(stage="load", message=f"loading {body['model']}"))
    began = time.monotonic()
    await way.whole(PATHS[kind], load_request(kind, body), EmbedAnswer if kind == EMBED else Line, stage=Stage.LOAD)
    report(Progress(stage="prompt", message=f"loaded {body['model']}"))
    return time.monotonic() - began


class TextExchange:
    """One chat, or one text from a prompt."""

    def __init__(self, way: Way, kind: str, body: dict[str, Json], *, tokens: bool) -> None:
        self._way = way
        self._kind = kind
        self._body = body
        self._tokens = tokens

    async def run(self, report: Report) -> Finished:
        """Do it; with `tokens` every piece of text is reported."""
        answer = Assembler(str(self._body["model"]))
        async with self._way.stages.within(Stage.RUN):
            loaded = await warm(self._way, self._kind, self._body, report)
            async with aclosing(self._way.lines(PATHS[self._kind], self._body, Line)) as lines:
                async for line in lines:
                    text = answer.add(line)
                    if text and self._tokens:
                        report(Progress(stage="generating", text=text))
                    if line.done:
                        break
        result = answer.chat(load=loaded) if self._kind == CHAT else answer.generated(load=loaded)
        return Finished(result=Raw(msgspec.json.encode(result)))


class EmbedExchange:
    """One embeddings request."""

    def __init__(self, way: Way, body: dict[str, Json], *, texts: int) -> None:
        self._way = way
        self._body = body
        self._texts = texts

    async def run(self, report: Report) -> Finished:
        """Do it; the vectors have to stand for the inputs one by one."""
        async with self._way.stages.within(Stage.RUN):
            loaded = await warm(self._way, EMBED, self._body, report)
            found = await self._way.whole(PATHS[EMBED], self._body, EmbedAnswer, stage=Stage.FIRST_BYTE)
        judge_model(str(self._body["model"]), found.model)
        if len(found.embeddings) != self._texts:
            raise off_protocol(f"the service sent {len(found.embeddings)} vectors for {self._texts} inputs")
        result = EmbedResult(
            model=found.model,
            vectors=found.embeddings,
            usage=usage_of(found.prompt_eval_count, None),
            timings=Timings(load=seconds(found.load_duration) if loaded is None else loaded),
        )
        return Finished(result=Raw(msgspec.json.encode(result)))


class PullExchange:
    """One pull; what has arrived stays with the service when it is cut, and the next try goes on from there."""

    def __init__(self, way: Way, model: str) -> None:
        self._way = way
        self._model = model

    async def run(self, report: Report) -> Finished:
        """Do it; a success that the list of models does not know of is none."""
        meter = PullMeter()
        last = None
        async with self._way.stages.within(Stage.RUN):
            body = {"model": self._model, "stream": True}
            async with aclosing(self._way.lines("/api/pull", body, PullLine)) as lines:
                async for line in lines:
                    last = line
                    if line.status == "success":
                        break
                    report(Progress(stage="pulling", message=line.status, fraction=meter.add(line)))
            if last is None or last.status != "success":
                raise off_protocol("the service ended a pull without the word success")
            rows = (await self._way.models("/api/tags")).models or ()
        wanted = full_name(self._model).lower()
        found = next((row for row in rows if row.name.lower() == wanted), None)
        if found is None:
            raise off_protocol(f"the service says that it pulled {self._model}, and does not list it")
        result = PullResult(model=found.name, digest=found.digest, size=found.size)
        return Finished(result=Raw(msgspec.json.encode(result)))

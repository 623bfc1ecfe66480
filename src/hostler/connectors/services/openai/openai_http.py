"""Drives servers that speak the OpenAI API over HTTP: chat with streamed tokens, and embeddings."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

import msgspec
from msgspec import Raw, Struct

from hostler.connectors.chat import CHAT, EMBED, ChatPayload, ChatResult, EmbedPayload, EmbedResult
from hostler.connectors.config import ConnectorConfig
from hostler.connectors.direct import DirectCalls, Exchange, Report
from hostler.connectors.faults import ServiceFaultError, failure, off_protocol
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.schemas import kind_spec, open_payload, parse_options
from hostler.connectors.services.openai.assemble import CODES, Assembler, read_chunk, spoken_error
from hostler.connectors.services.openai.messages import EmbedAnswer, ModelList
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import Answer, HttpStream, HttpTransport
from hostler.contracts.failure import FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.offer import Pool
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import (
    EndpointState,
    Failed,
    Finished,
    Probe,
    RemoteRef,
    RemoteState,
    ServiceCall,
    ServiceCapabilities,
    Step,
)
from hostler.kernel.units import Bytes, Seconds

DONE: Final = "[DONE]"


class OpenaiHttpOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `openai-http`."""

    model: str | None = None
    """Used where a payload names none."""
    kinds: tuple[str, ...] = (CHAT, EMBED)
    """What this endpoint is to serve: no server says which of its models embed."""
    timeout: Seconds = 5.0
    """Limit of probes and lists."""
    answer_limit: Bytes = 67_108_864
    """Largest answer, streamed or whole."""


class OpenaiHttpConnector:
    """Connector `openai-http`: one request is one job; closing its connection cancels it.

    The protocol has no word about earlier requests: after a crash of this process `reconcile` is `UNKNOWN`.
    """

    name: str = "openai-http"
    service: str = "openai"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint, its URL with or without `/v1`; `InvalidError` for what cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = parse_options(config.options, OpenaiHttpOptions, connector=self.name)
        self._http = HttpTransport(
            config.url.rstrip("/").removesuffix("/v1"),
            settings=config.http,
            api_key=config.api_key,
            connect=self._options.timeout,
        )
        self._calls = DirectCalls()

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.close()
        await self._http.__aexit__(kind, value, trace)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return `chat.complete` and `embed.create`, or those that the options name."""
        chat = kind_spec(
            CHAT,
            queue="chat",
            about="Answer a conversation",
            service=self.service,
            connector=self.name,
            payload=ChatPayload,
            result=ChatResult,
        )
        embed = kind_spec(
            EMBED,
            queue="embed",
            about="Turn texts into vectors",
            service=self.service,
            connector=self.name,
            payload=EmbedPayload,
            result=EmbedResult,
        )
        return tuple(spec for spec in (chat, embed) if spec.name in self._options.kinds)

    async def probe(self) -> Probe:
        """Ask `/health` (503 there means loading), or for the models where there is no such path."""
        try:
            answer = await self._get("/health")
            if answer.status in _NO_SUCH_PATH:
                answer = await self._get("/v1/models")
            elif answer.status == _UNAVAILABLE:
                return Probe(state=EndpointState.LOADING, message="the service is loading", slots=self._config.slots)
            answer.expect(CODES)
        except ServiceFaultError as error:
            return probe_failure(error)
        return Probe(state=EndpointState.READY, message="the service answers", slots=self._config.slots)

    async def capabilities(self) -> ServiceCapabilities:
        """Ask for the models, and for the slots where the server lists them (llama.cpp does)."""
        try:
            models = (await self._get("/v1/models")).expect(CODES).json(ModelList)
            slots = self._config.slots or await self._slots()
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        return ServiceCapabilities(
            kinds=self._options.kinds,
            models=tuple(model.id for model in models.data),
            models_known=True,
            labels=dict(self._config.labels),
            pools={} if slots is None else {"slots": Pool(id=f"{self.endpoint}/slots", total=slots)},
        )

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Check the payload and begin the request."""
        try:
            exchange = self._exchange(call)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        return self._calls.start(call, exchange)

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncIterator[Step]:  # noqa: ARG002 - the port's shape
        """Yield tokens as they come, then the end; the clocks run since `submit`."""
        async with aclosing(self._calls.observe(ref)) as steps:
            async for step in steps:
                yield step

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Say how the request is; `UNKNOWN` unless this connector made it and still has it."""
        return self._calls.state(ref)

    async def fetch(self, ref: RemoteRef) -> Finished | Failed:
        """Return how the request ended."""
        return self._calls.outcome(ref)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Close the connection."""
        return await self._calls.cancel(ref)

    async def release(self, ref: RemoteRef) -> None:
        """Forget the request."""
        await self._calls.release(ref)

    async def _get(self, path: str) -> Answer:
        return await self._http.call("GET", path, within=self._options.timeout)

    async def _slots(self) -> int | None:
        answer = await self._get("/slots")
        if not answer.ok:
            return None
        return len(answer.json(tuple[dict[str, Raw], ...])) or None

    def _exchange(self, call: ServiceCall) -> Exchange:
        match call.kind:
            case "chat.complete":
                chat = open_payload(call.payload, ChatPayload)
                stages = Stages.of(call)
                body = self._body(call.payload, chat.model, stream=chat.stream)
                return lambda report: ChatExchange(self._http, stages, body, self._options).run(
                    report, stream=chat.stream
                )
            case "embed.create":
                embed = open_payload(call.payload, EmbedPayload)
                stages = Stages.of(call)
                body = self._body(call.payload, embed.model)
                return lambda _: embed_exchange(self._http, stages, body, self._options)
            case _:
                raise ServiceFaultError(failure(FailureClass.INVALID_INPUT, f"{self.name} has no kind {call.kind}"))

    def _body(self, payload: Raw, model: str | None, *, stream: bool | None = None) -> bytes:
        """Return the payload as it came, but for what the connector decides."""
        fields: dict[str, Raw | str | bool | Mapping[str, bool]] = dict(
            msgspec.json.decode(payload, type=dict[str, Raw])
        )
        if model is None:
            fields.pop("model", None)
            if self._options.model is not None:
                fields["model"] = self._options.model
        if stream is not None:
            fields["stream"] = stream
            if stream:
                fields.setdefault("stream_options", {"include_usage": True})
        return msgspec.json.encode(fields)


class ChatExchange:
    """One chat request."""

    def __init__(self, http: HttpTransport, stages: Stages, body: bytes, options: OpenaiHttpOptions) -> None:
        self._http = http
        self._stages = stages
        self._body = body
        self._limit = options.answer_limit
        self._answer = Assembler()

    async def run(self, report: Report, *, stream: bool) -> Finished | Failed:
        """Do it; with `stream` every piece of text is reported."""
        async with self._stages.within(Stage.RUN):
            if stream:
                await self._streamed(report)
            else:
                body = await post(self._http, "/v1/chat/completions", self._body, self._stages, limit=self._limit)
                self._answer.add(read_chunk(body))
        return Finished(result=Raw(msgspec.json.encode(self._answer.result())))

    async def _streamed(self, report: Report) -> None:
        since = time.monotonic()
        first_byte, _, _ = self._stages.left(Stage.FIRST_BYTE)
        async with self._http.stream(
            "POST",
            "/v1/chat/completions",
            body=self._body,
            headers={"Accept": "text/event-stream"},
            first_byte=first_byte,
            silence=None,
            limit=self._limit,
        ) as stream:
            if stream.content_type == "application/json":  # an error under status 200, or a server that never streams
                self._answer.add(read_chunk(await stream.read(CODES)))
                return
            await stream.expect("text/event-stream", CODES)
            await self._read(stream, report, since=since)

    async def _read(self, stream: HttpStream, report: Report, *, since: float) -> None:
        """Read events until the last; comments keep no clock from running out."""
        stage = Stage.FIRST_BYTE
        async with aclosing(stream.sse()) as events:
            while True:
                async with self._stages.within(stage, since=since):
                    event = await anext(events, None)
                if event is None or event.data == DONE:
                    return
                if event.event == "error":
                    raise spoken_error(event.data.encode())
                text = self._answer.add(read_chunk(event.data))
                stage, since = Stage.IDLE, time.monotonic()
                if text:
                    report(Progress(stage="generating", text=text))


async def embed_exchange(http: HttpTransport, stages: Stages, body: bytes, options: OpenaiHttpOptions) -> Finished:
    """Do one embeddings request."""
    async with stages.within(Stage.RUN):
        found = await post(http, "/v1/embeddings", body, stages, limit=options.answer_limit)
    try:
        answer = msgspec.json.decode(found, type=EmbedAnswer)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service sent vectors that are not its protocol: {error}") from None
    rows = sorted(answer.data, key=lambda row: row.index)
    if [row.index for row in rows] != list(range(len(rows))) or not rows:
        raise off_protocol("the service sent vectors that do not stand for the inputs one by one")
    vectors = tuple(row.embedding for row in rows)
    return Finished(
        result=Raw(msgspec.json.encode(EmbedResult(model=answer.model, vectors=vectors, usage=answer.usage)))
    )


async def post(http: HttpTransport, path: str, body: bytes, stages: Stages, *, limit: Bytes) -> bytes:
    """Send work and return the whole JSON answer; on a connection of its own, since none is closed under it."""
    first_byte, _, _ = stages.left(Stage.FIRST_BYTE)
    idle, _, _ = stages.left(Stage.IDLE)
    async with http.stream("POST", path, body=body, first_byte=first_byte, silence=idle, limit=limit) as stream:
        await stream.expect("application/json", CODES)
        return await stream.read(CODES)


_NO_SUCH_PATH: Final = frozenset({404, 405, 501})
_UNAVAILABLE: Final = 503

"""Drives servers that speak the OpenAI API over HTTP: chat, responses, embeddings, images."""

from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Final, Literal, Self

import msgspec
from msgspec import Raw, Struct

from hostler.connectors.chat import CHAT, CONVERSATION, EMBED, ChatPayload, ChatResult, EmbedPayload, EmbedResult
from hostler.connectors.config import ConnectorConfig
from hostler.connectors.direct import DirectCalls, Exchange
from hostler.connectors.faults import ServiceFaultError, fault
from hostler.connectors.health import expect_no_page, probe_failure, service_unavailable
from hostler.connectors.metering import TokenMeter
from hostler.connectors.schemas import kind_spec, open_payload, parse_options
from hostler.connectors.services.openai.assemble import CODES, Assembler
from hostler.connectors.services.openai.exchange import TextExchange, Way, embed_exchange, image_exchange
from hostler.connectors.services.openai.images import IMAGE, ImagePayload, ImageResult
from hostler.connectors.services.openai.messages import ModelList
from hostler.connectors.services.openai.responses import RESPOND, ResponsePayload, ResponseReader, ResponseResult
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import Answer, HttpTransport
from hostler.contracts.failure import FailureClass
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


class OpenaiHttpOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `openai-http`."""

    model: str | None = None
    """Used where a payload names none."""
    kinds: tuple[Literal["chat.complete", "embed.create", "openai.response", "openai.image"], ...] = (CHAT, EMBED)
    """What this endpoint is to serve: no server says which of its models embed, draw, or speak the Responses API."""
    single: bool = False
    """Whether it holds one model at a time and loads another on demand (llama.cpp's router with `--models-max 1`): then
    it changes when the jobs that wait ask for it."""
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
            on_rate_hint=config.on_rate_hint,
        )
        self._calls = DirectCalls()
        self.meter: Final = TokenMeter((CHAT, EMBED, RESPOND), model=self._options.model)

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
        kinds: tuple[tuple[str, str, str, type[Struct], type[Struct]], ...] = (
            (CHAT, "chat", "Answer a conversation", ChatPayload, ChatResult),
            (EMBED, "embed", "Turn texts into vectors", EmbedPayload, EmbedResult),
            (RESPOND, "chat", "Answer by the Responses API", ResponsePayload, ResponseResult),
            (IMAGE, "image", "Make pictures from words", ImagePayload, ImageResult),
        )
        return tuple(
            kind_spec(
                name,
                queue=queue,
                about=about,
                service=self.service,
                connector=self.name,
                payload=payload,
                result=result,
                read=name == EMBED or None,
                affinity=CONVERSATION if name == CHAT else None,
            )
            for name, queue, about, payload, result in kinds
            if name in self._options.kinds
        )

    async def probe(self) -> Probe:
        """Ask `/health` (503 there means loading), or for the models where there is no such path.

        One that holds a single model is asked for the models too: which of them is in memory changes with each load.
        """
        loaded: tuple[str, ...] | None = None
        try:
            answer = await self._get("/health")
            if answer.status in _NO_SUCH_PATH:
                answer = await self._get("/v1/models")
            elif answer.status == _UNAVAILABLE:
                return Probe(state=EndpointState.LOADING, message="the service is loading", slots=self._config.slots)
            expect_no_page(answer.expect(CODES))
            if self._options.single:
                loaded = (await self._get("/v1/models")).expect(CODES).json(ModelList).loaded
        except ServiceFaultError as error:
            return probe_failure(error)
        return Probe(
            state=EndpointState.READY,
            message="the service answers",
            slots=self._config.slots,
            loaded=loaded,
            single=self._options.single,
        )

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
            loaded=models.loaded,
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

    def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:  # noqa: ARG002 - the port's shape
        """Yield tokens as they come, then the end; the clocks run since `submit`."""
        return self._calls.observe(ref)

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
        if call.kind not in self._options.kinds:
            raise fault(FailureClass.INVALID_INPUT, f"{self.name} has no kind {call.kind}")
        way = Way(self._http, Stages.of(call), limit=self._options.answer_limit)
        match call.kind:
            case "embed.create":
                embed = open_payload(call.payload, EmbedPayload)
                body = self._body(call.payload, embed.model)
                return lambda _: embed_exchange(way, body)
            case "openai.image":
                image = open_payload(call.payload, ImagePayload)
                body = self._body(call.payload, image.model)
                return lambda _: image_exchange(way, body, wanted=image.n)
            case "openai.response":
                asked = open_payload(call.payload, ResponsePayload)
                if asked.background:
                    raise fault(FailureClass.INVALID_INPUT, "background is not for a job: it is in the background")
                body = self._body(call.payload, asked.model, stream=asked.stream)
                return TextExchange(way, "/v1/responses", body, ResponseReader(), stream=asked.stream).run
            case _:
                chat = open_payload(call.payload, ChatPayload)
                body = self._body(call.payload, chat.model, stream=chat.stream, usage=True)
                return TextExchange(way, "/v1/chat/completions", body, Assembler(), stream=chat.stream).run

    def _body(self, payload: Raw, model: str | None, *, stream: bool | None = None, usage: bool = False) -> bytes:
        """Return the payload as it came, but for what the connector decides.

        `stream` is None where there is none; with `usage` a stream is to end with a count of tokens.
        """
        fields: dict[str, Raw | str | bool | Mapping[str, bool]] = dict(
            msgspec.json.decode(payload, type=dict[str, Raw])
        )
        if model is None:
            fields.pop("model", None)
            if self._options.model is not None:
                fields["model"] = self._options.model
        fields.pop("stream", None)
        if stream is not None:
            fields["stream"] = stream
        if stream and usage:
            fields.setdefault("stream_options", {"include_usage": True})
        return msgspec.json.encode(fields)


_NO_SUCH_PATH: Final = frozenset({404, 405, 501})
_UNAVAILABLE: Final = 503

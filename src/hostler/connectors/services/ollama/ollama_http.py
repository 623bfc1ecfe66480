"""Drives Ollama over HTTP: chat and text with streamed tokens, embeddings, and pulls with progress."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Final, Literal, Self

from msgspec import Struct

from hostler.connectors.chat import CHAT, CONVERSATION, EMBED, ChatPayload, ChatResult, EmbedPayload, EmbedResult
from hostler.connectors.config import ConnectorConfig
from hostler.connectors.direct import DirectCalls, Exchange
from hostler.connectors.faults import ServiceFaultError, fault
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.metering import TokenMeter
from hostler.connectors.schemas import kind_spec, open_payload, parse_options
from hostler.connectors.services.ollama.exchange import EmbedExchange, PullExchange, TextExchange, Way
from hostler.connectors.services.ollama.messages import (
    GENERATE,
    PULL,
    GeneratePayload,
    GenerateResult,
    ModelList,
    PullPayload,
    PullResult,
    VersionAnswer,
    all_names,
)
from hostler.connectors.services.ollama.requests import request_of
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
from hostler.contracts.timeouts import SERVICE_TIMEOUTS, Timeouts
from hostler.kernel.units import Bytes, Seconds

PULL_TIMEOUTS: Final = Timeouts(connect=5.0, load=300.0, first_byte=120.0, idle=120.0, run=14_400.0)
"""A model of 40 GB takes its time; a pull that stops moving is found by `idle`."""


class OllamaHttpOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `ollama-http`."""

    model: str | None = None
    """Used where a payload names none."""
    keep_alive: str | float | None = None
    """How long a model stays in memory after its last request, as Ollama writes it (`5m`, or seconds; below 0
    for ever); the server's own choice unless set. A payload's own comes first."""
    num_ctx: int | None = None
    """Tokens of context that models are loaded with; a payload's own comes first."""
    single: bool = False
    """Whether it holds one model at a time (`OLLAMA_MAX_LOADED_MODELS=1`, or a GPU with room for one), which no
    path says: then it changes when the jobs that wait ask for it."""
    kinds: tuple[Literal["chat.complete", "text.generate", "embed.create", "model.pull"], ...] = (
        CHAT,
        GENERATE,
        EMBED,
        PULL,
    )
    """What this endpoint is to serve."""
    timeout: Seconds = 5.0
    """Limit of probes and lists."""
    answer_limit: Bytes = 67_108_864
    """Largest answer, streamed or whole."""


class OllamaHttpConnector:
    """Connector `ollama-http`: one request is one job; closing its connection cancels it.

    A model that is not in memory is loaded by a request of its own before the work, so that the stage `load`
    has an end that can be seen, and `first_byte` begins after it. The protocol has no word about earlier
    requests: after a crash of this process `reconcile` is `UNKNOWN`.
    """

    name: str = "ollama-http"
    service: str = "ollama"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint; `InvalidError` for what cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = parse_options(config.options, OllamaHttpOptions, connector=self.name)
        self._http = HttpTransport(
            config.url,
            settings=config.http,
            api_key=config.api_key,
            connect=self._options.timeout,
            on_rate_hint=config.on_rate_hint,
        )
        self._calls = DirectCalls()
        self.meter: Final = TokenMeter((CHAT, GENERATE, EMBED), free=(PULL,), model=self._options.model)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.close()
        await self._http.__aexit__(kind, value, trace)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return `chat.complete`, `text.generate`, `embed.create` and `model.pull`, or those that the options name."""
        kinds: tuple[tuple[str, str, str, type[Struct], type[Struct], Timeouts], ...] = (
            (CHAT, "chat", "Answer a conversation", ChatPayload, ChatResult, SERVICE_TIMEOUTS),
            (GENERATE, "chat", "Go on from a prompt", GeneratePayload, GenerateResult, SERVICE_TIMEOUTS),
            (EMBED, "embed", "Turn texts into vectors", EmbedPayload, EmbedResult, SERVICE_TIMEOUTS),
            (PULL, "models", "Fetch a model to an endpoint", PullPayload, PullResult, PULL_TIMEOUTS),
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
                affinity=CONVERSATION if name == CHAT else None,
                timeouts=timeouts,
                read=name == EMBED or None,
            )
            for name, queue, about, payload, result, timeouts in kinds
            if name in self._options.kinds
        )

    async def probe(self) -> Probe:
        """Ask for the version (for the models where there is no such path), and for what is in memory."""
        try:
            answer = await self._get("/api/version")
            if answer.status in _NO_SUCH_PATH:
                version = None
                (await self._get("/api/tags")).expect().json(ModelList)
            else:
                version = answer.expect().json(VersionAnswer).version
            loaded = await self._loaded()
        except ServiceFaultError as error:
            return probe_failure(error)
        return Probe(
            state=EndpointState.READY,
            message="the service answers",
            version=version,
            slots=self._config.slots,
            loaded=loaded,
            single=self._options.single,
        )

    async def capabilities(self) -> ServiceCapabilities:
        """Ask for the models, and for those in memory; one whose tag is `latest` is listed without it too."""
        try:
            rows = (await self._get("/api/tags")).expect().json(ModelList).models or ()
            answer = await self._get("/api/version")
            versions = {self.service: answer.json(VersionAnswer).version} if answer.ok else {}
            loaded = await self._loaded()
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        slots = self._config.slots
        return ServiceCapabilities(
            kinds=self._options.kinds,
            models=tuple(name for row in rows for name in all_names(row.name)),
            models_known=True,
            loaded=loaded,
            labels=dict(self._config.labels),
            versions=versions,
            pools={} if slots is None else {"slots": Pool(id=f"{self.endpoint}/slots", total=slots)},
            model_sizes={name: row.size for row in rows if row.size is not None for name in all_names(row.name)},
        )

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Check the payload and begin the request."""
        try:
            exchange = self._exchange(call)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        return self._calls.start(call, exchange)

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:  # noqa: ARG002 - the port's shape
        """Yield what happens as it happens, then the end; the clocks run since `submit`."""
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
        """Close the connection: Ollama stops what nobody waits for."""
        return await self._calls.cancel(ref)

    async def release(self, ref: RemoteRef) -> None:
        """Forget the request."""
        await self._calls.release(ref)

    async def _get(self, path: str) -> Answer:
        return await self._http.call("GET", path, within=self._options.timeout)

    async def _loaded(self) -> tuple[str, ...] | None:
        answer = await self._get("/api/ps")
        if not answer.ok:
            return None
        return tuple(name for row in answer.json(ModelList).models or () for name in all_names(row.name))

    def _exchange(self, call: ServiceCall) -> Exchange:
        options = self._options
        if call.kind not in options.kinds:
            raise fault(FailureClass.INVALID_INPUT, f"{self.name} has no kind {call.kind}")
        way = Way(self._http, Stages.of(call), lists=options.timeout, limit=options.answer_limit)
        match call.kind:
            case "model.pull":
                return PullExchange(way, open_payload(call.payload, PullPayload).model).run
            case "embed.create":
                embed = open_payload(call.payload, EmbedPayload)
                body = self._body(call, embed.model)
                return EmbedExchange(way, body, texts=1 if isinstance(embed.input, str) else len(embed.input)).run
            case "text.generate":
                text = open_payload(call.payload, GeneratePayload)
            case _:
                text = open_payload(call.payload, ChatPayload)
        return TextExchange(way, call.kind, self._body(call, text.model), tokens=text.stream).run

    def _body(self, call: ServiceCall, model: str | None) -> dict[str, object]:
        chosen = model or self._options.model
        if chosen is None:
            raise fault(FailureClass.INVALID_INPUT, "neither the payload nor the option model names a model")
        return request_of(
            call.kind,
            call.payload,
            model=chosen,
            keep_alive=self._options.keep_alive,
            num_ctx=self._options.num_ctx,
        )


_NO_SUCH_PATH: Final = frozenset({404, 405, 501})

"""Drives servers that speak the Open Inference Protocol over HTTP: inference, streams of it, models in and out."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Literal, Self

from msgspec import Struct

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.direct import DirectCalls, Exchange
from hostler.connectors.faults import ServiceFaultError, failure
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.schemas import kind_spec, open_payload, parse_options
from hostler.connectors.services.inference.directory import ModelDirectory
from hostler.connectors.services.inference.exchanges import Bounds, Inference, tell
from hostler.connectors.services.inference.generate import GeneratePayload, GenerateResult, Generation
from hostler.connectors.services.inference.messages import (
    GENERATE,
    INFER,
    LOAD,
    STREAM,
    UNLOAD,
    InferPayload,
    LoadPayload,
    UnloadPayload,
)
from hostler.connectors.services.inference.tensors import ELEMENTS_LIMIT
from hostler.connectors.services.inference.terms import KindName, judged, kinds_of, versions_of
from hostler.connectors.services.inference.work import load_model, unload_model
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import HttpTransport
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


class InferenceHttpOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `inference-http`."""

    kinds: tuple[KindName | Literal["inference.generate"], ...] | None = None
    """What this endpoint is to serve; what it is found to be able to unless set.

    `inference.generate` has to be named: no server says that it has it, and MLServer has another thing at its path.
    """
    binary: bool | None = None
    """Whether tensors go raw; as the server's list of extensions says unless set (KServe can and does not say)."""
    timeout: Seconds = 5.0
    """Limit of probes and lists."""
    poll: Seconds = 0.25
    """A model that was told to load or unload is asked this often whether it did."""
    answer_limit: Bytes = 67_108_864
    """Largest answer, streamed or whole."""
    elements_limit: int = ELEMENTS_LIMIT
    """Elements of all tensors of one request, and of one answer."""


class InferenceHttpConnector:
    """Connector `inference-http`: one request is one job; closing its connection cancels it.

    The protocol has no word about earlier requests: after a crash of this process `reconcile` is `UNKNOWN`.
    Nor has it one to stop a request: a server may go on with work whose connection was closed (MLServer does).
    """

    name: str = "inference-http"
    service: str = "inference"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint, its URL with or without `/v2`; `InvalidError` for what cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = parse_options(config.options, InferenceHttpOptions, connector=self.name)
        self._http = HttpTransport(
            config.url.rstrip("/").removesuffix("/v2"),
            settings=config.http,
            api_key=config.api_key,
            connect=self._options.timeout,
        )
        self._directory = ModelDirectory(self._http, timeout=self._options.timeout)
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
        """Return inference, streams, load and unload, or those that the options name."""
        names = self._options.kinds
        common = kinds_of(self.name, names)
        if names is None or GENERATE not in names:
            return common
        generate = kind_spec(
            GENERATE,
            queue="inference",
            about="Let a model of Triton write text",
            service=self.service,
            connector=self.name,
            payload=GeneratePayload,
            result=GenerateResult,
        )
        return (*common, generate)

    async def probe(self) -> Probe:
        """Ask whether it lives and is ready; one that waits for some of its models is degraded, not absent."""
        directory = self._directory
        state, found = EndpointState.READY, None
        try:
            if not await directory.live():
                return Probe(state=EndpointState.UNHEALTHY, message="the service says that it does not live")
            server = await directory.server()
            rows = await directory.index()
            found = None if rows is None else await directory.models(rows)
            if not await directory.ready():
                some = await directory.models(None) if rows is None else found
                state = EndpointState.DEGRADED if some else EndpointState.LOADING
        except ServiceFaultError as error:
            return probe_failure(error)
        words = "answers" if state is EndpointState.READY else "waits for its models"
        return Probe(
            state=state,
            message=f"{server.name[:100]} {words}",
            version=server.version[:100] or None,
            slots=self._config.slots,
            loaded=found,
        )

    async def capabilities(self) -> ServiceCapabilities:
        """Ask for the models that are ready, and for what the server can: repository, streams."""
        directory = self._directory
        try:
            server = await directory.server()
            rows = await directory.index()
            models = await directory.models(rows)
            kinds = self._options.kinds
            if kinds is None:
                streams = (STREAM,) if models and await directory.streams(models[0]) else ()
                kinds = (INFER, *streams, *(() if rows is None else (LOAD, UNLOAD)))
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        slots = self._config.slots
        return ServiceCapabilities(
            kinds=kinds,
            models=models or (),
            models_known=models is not None,
            labels=dict(self._config.labels),
            versions=versions_of(server),
            pools={} if slots is None else {"slots": Pool(id=f"{self.endpoint}/slots", total=slots)},
        )

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Check payload and tensors, and begin the request."""
        try:
            exchange = self._exchange(call)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        return self._calls.start(call, exchange)

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:  # noqa: ARG002 - the port's shape
        """Yield what streams, then the end; the clocks run since `submit`."""
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

    def _exchange(self, call: ServiceCall) -> Exchange:
        stages = Stages.of(call)
        options, http, directory = self._options, self._http, self._directory
        match call.kind:
            case "inference.infer" | "inference.stream":
                payload = open_payload(call.payload, InferPayload)
                tensors = judged(payload, limit=options.elements_limit)
                bounds = Bounds(
                    binary=options.binary, answer_limit=options.answer_limit, elements_limit=options.elements_limit
                )
                id_ = f"{call.job_id}/{call.fence}"
                work = Inference(http, directory, stages, payload, tensors, id_=id_, bounds=bounds)
                return work.whole if call.kind == INFER else work.streamed
            case "inference.generate":
                asked = open_payload(call.payload, GeneratePayload)
                return Generation(http, directory, stages, asked, answer_limit=options.answer_limit).run
            case "inference.load":
                load = open_payload(call.payload, LoadPayload)
                return lambda report: load_model(
                    lambda: tell(http, "load", load), directory, stages, load, report, poll=options.poll
                )
            case "inference.unload":
                unload = open_payload(call.payload, UnloadPayload)
                return lambda _: unload_model(
                    lambda: tell(http, "unload", unload), directory, stages, unload, poll=options.poll
                )
            case _:
                raise ServiceFaultError(failure(FailureClass.INVALID_INPUT, f"{self.name} has no kind {call.kind}"))

"""Drives servers that speak the Open Inference Protocol over gRPC: inference, streams of it, models in and out."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from msgspec import Struct

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.direct import DirectCalls, Exchange
from hostler.connectors.faults import ServiceFaultError, fault
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.schemas import open_payload, parse_options
from hostler.connectors.services.inference.calls import RpcInference, tell_rpc
from hostler.connectors.services.inference.messages import (
    INFER,
    LOAD,
    STREAM,
    UNLOAD,
    InferPayload,
    LoadPayload,
    UnloadPayload,
)
from hostler.connectors.services.inference.repository import ModelRepository
from hostler.connectors.services.inference.tensors import ELEMENTS_LIMIT
from hostler.connectors.services.inference.terms import MLSERVER, KindName, judged, kinds_of, versions_of
from hostler.connectors.services.inference.work import load_model, unload_model
from hostler.connectors.stages import Stages
from hostler.connectors.transports.grpc import GrpcTransport
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


class InferenceGrpcOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `inference-grpc`."""

    kinds: tuple[KindName, ...] | None = None
    """What this endpoint is to serve; what it is found to be able to unless set (streams: MLServer only)."""
    raw: bool = True
    """Whether tensors go raw; otherwise in the fields of their types, but for requests with FP16, which has none."""
    timeout: Seconds = 5.0
    """Limit of probes and lists."""
    poll: Seconds = 0.25
    """A model that was told to load or unload is asked this often whether it did."""
    answer_limit: Bytes = 67_108_864
    """Largest request, and largest answer, streamed or whole."""
    elements_limit: int = ELEMENTS_LIMIT
    """Elements of all tensors of one request, and of one answer."""


class InferenceGrpcConnector:
    """Connector `inference-grpc`: one call is one job; cancelling it reaches the server, with the time that was left.

    The protocol has no word about earlier requests: after a crash of this process `reconcile` is `UNKNOWN`.
    """

    name: str = "inference-grpc"
    service: str = "inference"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint; `InvalidError` for a URL or options that cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = parse_options(config.options, InferenceGrpcOptions, connector=self.name)
        self._grpc = GrpcTransport(config.url, api_key=config.api_key, limit=self._options.answer_limit)
        self._repository = ModelRepository(self._grpc, timeout=self._options.timeout)
        self._calls = DirectCalls()

    async def __aenter__(self) -> Self:
        await self._grpc.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.close()
        await self._grpc.__aexit__(kind, value, trace)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return inference, streams, load and unload, or those that the options name."""
        return kinds_of(self.name, self._options.kinds)

    async def probe(self) -> Probe:
        """Ask whether it lives and is ready; one that waits for some of its models is degraded, not absent."""
        repository = self._repository
        state = EndpointState.READY
        try:
            if not await repository.live():
                return Probe(state=EndpointState.UNHEALTHY, message="the service says that it does not live")
            server = await repository.server()
            found = repository.models(await repository.index())
            if not await repository.ready():
                state = EndpointState.DEGRADED if found else EndpointState.LOADING
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
        repository = self._repository
        try:
            server = await repository.server()
            rows = await repository.index()
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        models = repository.models(rows)
        kinds = self._options.kinds
        if kinds is None:
            streams = (STREAM,) if server.name == MLSERVER else ()
            kinds = (INFER, *streams, *(() if rows is None else (LOAD, UNLOAD)))
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
        """Check payload and tensors, and begin the call."""
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
        """Say how the call is; `UNKNOWN` unless this connector made it and still has it."""
        return self._calls.state(ref)

    async def fetch(self, ref: RemoteRef) -> Finished | Failed:
        """Return how the call ended."""
        return self._calls.outcome(ref)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Cancel the call, here and in the server."""
        return await self._calls.cancel(ref)

    async def release(self, ref: RemoteRef) -> None:
        """Forget the call."""
        await self._calls.release(ref)

    def _exchange(self, call: ServiceCall) -> Exchange:
        stages = Stages.of(call)
        options, grpc, repository = self._options, self._grpc, self._repository
        match call.kind:
            case "inference.infer" | "inference.stream":
                payload = open_payload(call.payload, InferPayload)
                work = RpcInference(
                    grpc,
                    repository,
                    stages,
                    payload,
                    judged(payload, limit=options.elements_limit),
                    id_=f"{call.job_id}/{call.fence}",
                    raw=options.raw,
                    elements_limit=options.elements_limit,
                    answer_limit=options.answer_limit,
                )
                return work.whole if call.kind == INFER else work.streamed
            case "inference.load":
                load = open_payload(call.payload, LoadPayload)
                return lambda report: load_model(
                    lambda: tell_rpc(grpc, "load", load, stages), repository, stages, load, report, poll=options.poll
                )
            case "inference.unload":
                unload = open_payload(call.payload, UnloadPayload)
                return lambda _: unload_model(
                    lambda: tell_rpc(grpc, "unload", unload, stages), repository, stages, unload, poll=options.poll
                )
            case _:
                raise fault(FailureClass.INVALID_INPUT, f"{self.name} has no kind {call.kind}")

"""Drives models that Cog serves over HTTP."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

import msgspec
from msgspec import Struct, structs

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.direct import DirectCalls, Report
from hostler.connectors.faults import ServiceFaultError, failure, fault
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.schemas import kind_spec, open_payload, parse_options
from hostler.connectors.services.cog.messages import CogPayload, CogResult, HealthView, OpenApi, Schemas
from hostler.connectors.services.cog.predict import Prediction, Wanted
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
from hostler.contracts.timeouts import SERVICE_TIMEOUTS
from hostler.kernel.errors import ServiceUnavailableError
from hostler.kernel.units import Bytes, Seconds

PREDICT: Final = "cog.predict"
EARLIER: Final = 8
"""Earlier attempts whose predictions are looked for in a service that has no room."""

_STATES: Final = {
    "READY": EndpointState.READY,
    "BUSY": EndpointState.READY,
    "STARTING": EndpointState.LOADING,
    "SETUP_FAILED": EndpointState.UNHEALTHY,
    "DEFUNCT": EndpointState.UNHEALTHY,
    "UNHEALTHY": EndpointState.UNHEALTHY,
}


class CogHttpOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `cog-http`."""

    model: str | None = None
    """What the model is called here, so that jobs can need it; the service does not know its own name."""
    stream: bool = True
    """Ask for events where the model has them."""
    refusals: tuple[str, ...] = ("NSFW content",)
    """Words in an error by which the model declines; anything else may be tried again."""
    timeout: Seconds = 5.0
    """Limit of each call that is no prediction."""
    stop: Seconds = 4.0
    """How long to wait until a prediction has ended; a worker waits 5 s for all of a cancel."""
    answer_limit: Bytes = 268_435_456
    """Largest answer, streamed or whole."""


class CogHttpConnector:
    """Connector `cog-http`: one request is one prediction; closing its connection cancels it.

    The service keeps nothing of a prediction that has ended: after a crash of this process `reconcile` is `UNKNOWN`.
    """

    name: str = "cog-http"
    service: str = "cog"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint; `InvalidError` for what cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = parse_options(config.options, CogHttpOptions, connector=self.name)
        self._http = HttpTransport(
            config.url, settings=config.http, api_key=config.api_key, connect=self._options.timeout
        )
        self._calls = DirectCalls()
        self._stopping: set[str] = set()
        self._streams = self._options.stream
        """Whether events are asked for; False once the model said that it has none."""

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.close()
        await self._http.__aexit__(kind, value, trace)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return `cog.predict`."""
        kind = kind_spec(
            PREDICT,
            queue="predict",
            about="Let a model that Cog serves predict",
            service=self.service,
            connector=self.name,
            payload=CogPayload,
            result=CogResult,
        )
        limits = SERVICE_TIMEOUTS  # a model that does not stream is silent until it is done
        return (structs.replace(kind, timeouts=structs.replace(limits, first_byte=limits.run, idle=limits.run)),)

    async def probe(self) -> Probe:
        """Ask `/health-check`; its status is always 200."""
        try:
            answer = await self._http.call("GET", "/health-check", within=self._options.timeout)
            view = answer.expect().json(HealthView)
        except ServiceFaultError as error:
            return probe_failure(error)
        state = _STATES.get(view.status, EndpointState.UNKNOWN)
        ill = state is EndpointState.UNHEALTHY and view.last_words
        slots = self._config.slots or 1
        return Probe(
            state=state,
            message=f"the service says {view.status}{f': {view.last_words}' if ill else ''}",
            version=view.server_version,
            slots=slots,
            busy=slots if view.status == "BUSY" else None,
        )

    async def capabilities(self) -> ServiceCapabilities:
        """Ask how it is and what the model takes; `ServiceUnavailableError` as well while the model is set up."""
        try:
            answer = await self._http.call("GET", "/health-check", within=self._options.timeout)
            view = answer.expect().json(HealthView)
            if _STATES.get(view.status) is not EndpointState.READY:
                raise ServiceUnavailableError(f"endpoint {self.endpoint} says {view.status}", endpoint=self.endpoint)
            schemas = await self._schemas()
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        takes = {} if schemas.input is None else {f"input/{name}": "yes" for name in schemas.input.properties}
        model = self._options.model
        return ServiceCapabilities(
            kinds=(PREDICT,),
            models=() if model is None else (model,),
            models_known=model is not None,
            labels={**takes, **self._config.labels},
            versions={} if view.server_version is None else {"cog": view.server_version},
            pools={"slots": Pool(id=f"{self.endpoint}/slots", total=self._config.slots or 1)},
        )

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Check the payload and begin the prediction."""
        if call.kind != PREDICT:
            return Failed(failure=failure(FailureClass.INVALID_INPUT, f"{self.name} has no kind {call.kind}"))
        try:
            asked = open_payload(call.payload, CogPayload)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        name, stages = _name(call.job_id, call.fence), Stages.of(call)

        async def exchange(report: Report) -> Finished | Failed:
            schemas = await self._schemas()
            _known(asked, schemas)
            wanted = Wanted(
                body=msgspec.json.encode({"input": asked.input}),
                id=name,
                earlier=tuple(_name(call.job_id, fence) for fence in range(call.fence - 1, 0, -1)[:EARLIER]),
                text=schemas.output is not None and schemas.output.text,
                refusals=self._options.refusals,
                answer_limit=self._options.answer_limit,
            )
            prediction = Prediction(
                self._http,
                wanted,
                stages,
                timeout=self._options.timeout,
                stop=self._options.stop,
                stopping=lambda: name in self._stopping,
            )
            found, self._streams = await prediction.run(report, stream=self._streams)
            return found

        return self._calls.start(call, exchange)

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:  # noqa: ARG002 - the port's shape
        """Yield what the model says, then the end; the clocks run since `submit`."""
        async with aclosing(self._calls.observe(ref)) as steps:
            async for step in steps:
                yield step

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Say how the prediction is; `UNKNOWN` unless this connector asked for it and still has it."""
        return self._calls.state(ref)

    async def fetch(self, ref: RemoteRef) -> Finished | Failed:
        """Return how the prediction ended."""
        return self._calls.outcome(ref)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Cancel the prediction by its name and close its connection; True when the service has none of it any more."""
        self._stopping.add(_name(ref.job_id, ref.fence))
        if not await self._calls.cancel(ref):
            return False
        end = self._calls.outcome(ref)
        return not (isinstance(end, Failed) and end.failure.details.get("stopped") is False)

    async def release(self, ref: RemoteRef) -> None:
        """Forget the prediction, and end it if it goes on."""
        await self._calls.release(ref)
        self._stopping.discard(_name(ref.job_id, ref.fence))

    async def _schemas(self) -> Schemas:
        """Ask what the model takes and gives; an image without a schema takes anything."""
        answer = await self._http.call("GET", "/openapi.json", within=self._options.timeout)
        if answer.status in _NO_SCHEMA:
            return Schemas()
        return answer.expect().json(OpenApi).components.schemas


def _name(job: str, fence: int) -> str:
    return f"{job}-{fence}"


def _known(asked: CogPayload, schemas: Schemas) -> None:
    """Refuse names that the model does not take: the service would leave them out without a word."""
    takes = schemas.input
    if takes is None or takes.additional or not takes.properties:
        return
    strange = sorted(set(asked.input) - set(takes.properties))
    if strange:
        raise fault(
            FailureClass.INVALID_INPUT,
            f"the model takes no {', '.join(strange)}; it takes {', '.join(takes.properties)}",
        )


_NO_SCHEMA: Final = frozenset({404, 503})
"""What a service answers that has no schema, or none yet."""

"""Drives language services over HTTP: `/providers/{provider}/expand`, `analyze`, `similarity` and `compare`."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

import msgspec
from msgspec import Struct, structs

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.direct import DirectCalls, Exchange, Report
from hostler.connectors.faults import ServiceFaultError, fault, timed_out
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.schemas import kind_spec, open_payload, parse_options
from hostler.connectors.services.nlp.judge import CODES, RESULTS, judged
from hostler.connectors.services.nlp.messages import (
    AnalyzePayload,
    ComparePayload,
    ExpandPayload,
    Health,
    Payload,
    ProviderList,
    ProviderRow,
    SimilarityPayload,
)
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import HttpTransport, segment
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

PAYLOADS: Final[dict[str, type[Payload]]] = {
    "expand": ExpandPayload,
    "analyze": AnalyzePayload,
    "similarity": SimilarityPayload,
    "compare": ComparePayload,
}
_ABOUT: Final = {
    "expand": "Find the terms that belong to a concept",
    "analyze": "Find what is in a text",
    "similarity": "Rank candidates by likeness to a query",
    "compare": "Say how alike two passages are",
}
_STATES: Final = {
    "healthy": EndpointState.READY,
    "ok": EndpointState.READY,
    "ready": EndpointState.READY,
    "degraded": EndpointState.DEGRADED,
    "starting": EndpointState.LOADING,
    "loading": EndpointState.LOADING,
    "downloading_models": EndpointState.LOADING,
    "initializing_providers": EndpointState.LOADING,
    "draining": EndpointState.DRAINING,
}
LOADING: Final = "loading"
READY: Final = "ready"


class NlpHttpOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `nlp-http`."""

    provider: str | None = None
    """Asked where a payload names none."""
    load_wait: Seconds = 30.0
    """How long a question waits at the service for a provider that loads; later it is `overloaded`."""
    poll: Seconds = 1.0
    """A question without an answer is looked after this often: does its provider load?"""
    timeout: Seconds = 5.0
    """Limit of probes and lists."""
    answer_limit: Bytes = 16_777_216
    """Largest answer."""


class NlpHttpConnector:
    """Connector `nlp-http`: one request is one job; closing its connection cancels it.

    The protocol has no word about earlier requests: after a crash of this process `reconcile` is `UNKNOWN`.
    """

    name: str = "nlp-http"
    service: str = "nlp"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint; `InvalidError` for a URL or options that cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = parse_options(config.options, NlpHttpOptions, connector=self.name)
        self._http = HttpTransport(
            config.url, settings=config.http, api_key=config.api_key, connect=self._options.timeout
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
        """Return `nlp.expand`, `nlp.analyze`, `nlp.similarity` and `nlp.compare`."""
        return tuple(
            kind_spec(
                f"nlp.{verb}",
                queue="nlp",
                about=_ABOUT[verb],
                service=self.service,
                connector=self.name,
                payload=payload,
                result=RESULTS[verb],
                read=True,
            )
            for verb, payload in PAYLOADS.items()
        )

    async def probe(self) -> Probe:
        """Ask `/health`, which may say how it is with any status; providers that load are named with where they are."""
        try:
            answer = await self._http.call("GET", "/health", within=self._options.timeout)
            view = answer.json(Health)
        except ServiceFaultError as error:
            return probe_failure(error)
        rows = view.providers if isinstance(view.providers, dict) else {}
        loading = [f"{name}: {row.where or LOADING}" for name, row in rows.items() if row.state == LOADING]
        return Probe(
            state=_STATES.get(view.status, EndpointState.UNHEALTHY),
            message="; ".join((f"the service says {view.status}", *loading)),
            version=view.version,
            slots=self._config.slots or view.slots,
            busy=view.busy,
        )

    async def capabilities(self) -> ServiceCapabilities:
        """Ask `/providers`: what those that take questions can do; their names are the models."""
        try:
            answer = await self._http.call("GET", "/providers", within=self._options.timeout)
            listed = answer.expect(CODES).json(ProviderList).providers
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        rows = [ProviderRow(name=row) if isinstance(row, str) else row for row in listed]
        rows = [row for row in rows if row.available and row.name is not None]
        slots = self._config.slots or sum(row.slots or 0 for row in rows)
        return ServiceCapabilities(
            kinds=tuple(
                f"nlp.{verb}"
                for verb in PAYLOADS
                if any(row.capabilities is None or verb in row.capabilities for row in rows)
            ),
            models=tuple(row.name for row in rows if row.name is not None),
            models_known=True,
            labels=dict(self._config.labels),
            pools={"slots": Pool(id=f"{self.endpoint}/slots", total=slots)} if slots else {},
        )

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Check the payload and begin the request."""
        try:
            exchange = self._exchange(call)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        return self._calls.start(call, exchange)

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:  # noqa: ARG002 - the port's shape
        """Yield where a load is while there is one, then the end; the clocks run since `submit`."""
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
        """Close the connection; the service then stops the work."""
        return await self._calls.cancel(ref)

    async def release(self, ref: RemoteRef) -> None:
        """Forget the request."""
        await self._calls.release(ref)

    def _exchange(self, call: ServiceCall) -> Exchange:
        service, _, verb = call.kind.partition(".")
        if service != self.service or verb not in PAYLOADS:
            raise fault(FailureClass.INVALID_INPUT, f"{self.name} has no kind {call.kind}")
        payload = open_payload(call.payload, PAYLOADS[verb])
        provider = payload.provider or self._options.provider
        if provider is None:
            raise fault(FailureClass.INVALID_INPUT, "name a provider: the endpoint has no option `provider` either")
        return Question(self._http, call, self._options, provider=provider, verb=verb, payload=payload).run


class Question:
    """One request, and a look at its provider while the answer is not there."""

    def __init__(
        self,
        http: HttpTransport,
        call: ServiceCall,
        options: NlpHttpOptions,
        *,
        provider: str,
        verb: str,
        payload: Payload,
    ) -> None:
        self._http = http
        self._stages = Stages.of(call)
        self._options = options
        self._id = f"{call.job_id}-{call.fence}"
        """What the service's log calls the request."""
        self._path = f"/providers/{segment(provider)}"
        self._verb = verb
        self._payload = payload
        self._stage = Stage.FIRST_BYTE
        self._since = time.monotonic()
        self._watched = True
        """Whether the service tells how one provider is."""

    async def run(self, report: Report) -> Finished | Failed:
        """Ask, and report a load while it goes on."""
        async with self._stages.within(Stage.RUN):
            asking = asyncio.create_task(self._ask(), name=f"ask {self._path}")
            try:
                while not await self._answered(asking):
                    if self._watched and self._stage is not Stage.IDLE:
                        await self._look(report)
                return Finished(result=judged(asking.result(), self._verb, self._payload))
            finally:
                asking.cancel()
                await asyncio.wait({asking})

    async def _answered(self, asking: asyncio.Task[bytes]) -> bool:
        """Wait for the answer until it is time to look, within the limit of the stage."""
        left, blame, limit = self._stages.left(self._stage, since=self._since)
        if left is not None and left <= 0:
            raise timed_out(blame, limit)
        await asyncio.wait({asking}, timeout=self._options.poll if left is None else min(left, self._options.poll))
        return asking.done()

    async def _ask(self) -> bytes:
        load, _, _ = self._stages.left(Stage.LOAD)
        wait = self._options.load_wait if load is None else min(load, self._options.load_wait)
        body = msgspec.json.encode(structs.replace(self._payload, provider=None))
        async with self._http.stream(
            "POST",
            f"{self._path}/{self._verb}",
            body=body,
            headers={"Prefer": f"wait={wait:.3f}", "X-Request-ID": self._id},
            first_byte=None,
            silence=None,
            limit=self._options.answer_limit,
        ) as stream:
            self._enter(Stage.IDLE)
            await stream.expect("application/json", CODES)
            return await stream.read(CODES)

    async def _look(self, report: Report) -> None:
        """Ask how the provider is; one that loads has the limit of a load, and says where it is."""
        try:
            answer = await self._http.call("GET", f"{self._path}/health", within=self._options.timeout)
            row = answer.json(ProviderRow)
        except ServiceFaultError:
            return  # the request itself says what is wrong
        self._watched = row.state is not None
        if self._stage is Stage.IDLE:
            return
        if row.state == LOADING:
            self._enter(Stage.LOAD)
            report(Progress(stage="load", message=row.where or None))
        elif row.state == READY:
            self._enter(Stage.IDLE)  # the provider has the question: from here on silence is its own
            report(Progress(stage="run"))

    def _enter(self, stage: Stage) -> None:
        if stage is not self._stage:
            self._stage, self._since = stage, time.monotonic()

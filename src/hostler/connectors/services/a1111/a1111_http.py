"""Drives servers with the API of A1111 over HTTP: pictures from words and pictures, and upscaling."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

from msgspec import Struct, structs

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.direct import DirectCalls, Exchange, Report
from hostler.connectors.faults import ServiceFaultError, fault
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.schemas import kind_spec, parse_options
from hostler.connectors.services.a1111.asking import IMG2IMG, TXT2IMG, UPSCALE, asked_of, judged
from hostler.connectors.services.a1111.messages import (
    ImagesResult,
    Img2imgPayload,
    MemoryView,
    ModelRow,
    NamedRow,
    OptionsView,
    Txt2imgPayload,
    UpscalePayload,
    UpscaleResult,
)
from hostler.connectors.services.a1111.pictures import PictureStore
from hostler.connectors.services.a1111.run import A1111Run, Patience
from hostler.connectors.services.a1111.server import A1111Server
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import HttpTransport
from hostler.contracts.failure import FailureClass, Stage
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
from hostler.kernel.units import Bytes, Seconds


class A1111HttpOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `a1111-http`."""

    model: str | None = None
    """Checkpoint where a payload names none."""
    poll: Seconds = 0.5
    """How often the progress of running work is asked for."""
    timeout: Seconds = 5.0
    """Limit of each call but the work itself."""
    stop: Seconds = 4.0
    """How long to wait until the server has stopped; a worker waits 5 s for all of a cancel."""
    exclusive: bool = False
    """Nobody else uses this server: needed to stop work, and to show how far it is, where it runs with `--nowebui`."""
    answer_limit: Bytes = 134_217_728
    """Largest answer."""
    previews: bool = True
    """Show pictures of running work, where the server makes any (its settings of live previews say)."""


class A1111HttpConnector:
    """Connector `a1111-http`: one request is one job, followed by the server's progress and owned by its task id.

    The server does one work at a time and hands its pictures to the request that asked for them, to nobody
    else: after a crash of this process `reconcile` is `UNKNOWN`, and the next attempt stops what is left.
    """

    name: str = "a1111-http"
    service: str = "a1111"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint; its `api_key` is `user:password`. `InvalidError` for what cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = parse_options(config.options, A1111HttpOptions, connector=self.name)
        self._http = HttpTransport(
            config.url,
            settings=config.http,
            api_key=config.api_key,
            scheme="basic",
            connect=self._options.timeout,
        )
        self._server = A1111Server(self._http, timeout=self._options.timeout)
        self._pictures = PictureStore(config.blobs)
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
        """Return `a1111.txt2img`, `a1111.img2img` and `a1111.upscale`."""

        def kind(name: str, about: str, payload: type[Struct], result: type[Struct]) -> KindSpec:
            return kind_spec(
                name,
                queue="image",
                about=about,
                service=self.service,
                connector=self.name,
                payload=payload,
                result=result,
            )

        silent = structs.replace(
            SERVICE_TIMEOUTS, first_byte=SERVICE_TIMEOUTS.run, idle=SERVICE_TIMEOUTS.run
        )  # the server says nothing while it upscales
        return (
            kind(TXT2IMG, "Make pictures from words", Txt2imgPayload, ImagesResult),
            kind(IMG2IMG, "Make pictures from words and pictures", Img2imgPayload, ImagesResult),
            structs.replace(kind(UPSCALE, "Make a picture larger", UpscalePayload, UpscaleResult), timeouts=silent),
        )

    async def probe(self) -> Probe:
        """Ask for the memory (a GPU that is lost shows there), for what goes on, and for what is loaded."""
        try:
            memory = await self._server.get("/sdapi/v1/memory", MemoryView)
            busy = (await self._server.progress()).state.job_count != 0
            loaded = (await self._server.get("/sdapi/v1/options", OptionsView)).sd_model_checkpoint
            rows = await self._models()
        except ServiceFaultError as error:
            return probe_failure(error)
        trouble = memory.cuda.error
        if trouble is not None and trouble != _NO_GPU:
            return Probe(state=EndpointState.UNHEALTHY, message=f"the GPU does not answer: {trouble}"[:400])
        names = {name for row in rows if loaded is not None and row.answers_to(loaded) for name in row.names}
        return Probe(
            state=EndpointState.READY,
            message="the service answers",
            slots=1,
            busy=int(busy),
            loaded=tuple(sorted(names)),
            single=True,
        )

    async def capabilities(self) -> ServiceCapabilities:
        """Ask for checkpoints, samplers, upscalers and the GPU's memory."""
        try:
            models = await self._models()
            samplers = await self._server.get("/sdapi/v1/samplers", tuple[NamedRow, ...])
            upscalers = await self._server.get("/sdapi/v1/upscalers", tuple[NamedRow, ...])
            memory = (await self._server.get("/sdapi/v1/memory", MemoryView)).cuda.system
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        labels = {f"sampler/{row.name}": "yes" for row in samplers}
        labels |= {f"upscaler/{row.name}": "yes" for row in upscalers}
        pools = {"slots": Pool(id=f"{self.endpoint}/slots", total=1)}
        if memory is not None:
            pools["gpu_memory"] = Pool(id=f"{self.endpoint}/gpu_memory", total=memory.total)
        return ServiceCapabilities(
            kinds=(TXT2IMG, IMG2IMG, UPSCALE),
            models=tuple(row.model_name for row in models),
            models_known=True,
            labels={**labels, **self._config.labels},
            pools=pools,
        )

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Check the payload and begin the request."""
        try:
            exchange = self._exchange(call)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        return self._calls.start(call, exchange)

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:  # noqa: ARG002 - the port's shape
        """Yield how far it is, then the end; the clocks run since `submit`."""
        async with aclosing(self._calls.observe(ref)) as steps:
            async for step in steps:
                yield step

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Say how the request is; `UNKNOWN` unless this connector made it: nobody else can get its pictures."""
        return self._calls.state(ref)

    async def fetch(self, ref: RemoteRef) -> Finished | Failed:
        """Return how the request ended."""
        return self._calls.outcome(ref)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Interrupt the work if the server says that it is ours; True when it is gone there."""
        if not await self._calls.cancel(ref):
            return False
        end = self._calls.outcome(ref)
        return not (isinstance(end, Failed) and end.failure.details.get("stopped") is False)

    async def release(self, ref: RemoteRef) -> None:
        """Forget the request, and stop it if it goes on."""
        await self._calls.release(ref)

    async def _models(self) -> tuple[ModelRow, ...]:
        return await self._server.get("/sdapi/v1/sd-models", tuple[ModelRow, ...])

    def _exchange(self, call: ServiceCall) -> Exchange:
        need = judged(call, self._options.model)
        stages = Stages.of(call)
        patience = Patience(
            poll=self._options.poll,
            stop=self._options.stop,
            previews=self._options.previews,
            exclusive=self._options.exclusive,
            answer_limit=self._options.answer_limit,
        )

        async def exchange(report: Report) -> Finished | Failed:
            stages.check(Stage.CONNECT, since=time.monotonic())
            model = None if need.model is None else _model(need.model, await self._models())
            asked = asked_of(call, model, await self._pictures.inline(need.pictures))
            return await A1111Run(self._server, asked, stages, patience, self._pictures).run(report)

        return exchange


def _model(name: str, rows: tuple[ModelRow, ...]) -> ModelRow:
    """Return the checkpoint of a name; a server that lacks it would use another without a word."""
    found = next((row for row in rows if row.answers_to(name)), None)
    if found is None:
        raise fault(FailureClass.CAPABILITY_MISMATCH, f"the service has no checkpoint {name!r}", model=name)
    return found


_NO_GPU: Final = "unavailable"
"""What a server that runs on the CPU says about its GPU."""

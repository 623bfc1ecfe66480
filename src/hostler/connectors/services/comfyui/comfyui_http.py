"""Drives a ComfyUI server: prompts over HTTP, progress over its socket, the truth from its history."""

import hashlib
import uuid
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Annotated, Final, Self

from msgspec import Meta, Struct

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.faults import ServiceFaultError, failure, fault
from hostler.connectors.follow import Follower
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.schemas import kind_spec, open_payload, parse_options
from hostler.connectors.services.comfyui.assets import labels_of, models_of, versions_of
from hostler.connectors.services.comfyui.files import FileTransfer
from hostler.connectors.services.comfyui.judge import invalid_nodes
from hostler.connectors.services.comfyui.messages import PromptAnswer, WorkflowPayload, WorkflowResult
from hostler.connectors.services.comfyui.run import ALIVE, ComfyuiRun, Stopped, Tools
from hostler.connectors.services.comfyui.server import MARK, ComfyuiServer, Mark, Sight
from hostler.connectors.stages import Stages
from hostler.connectors.transports.connections import HttpPool
from hostler.connectors.transports.conversation import Limits
from hostler.connectors.transports.http import HttpTransport
from hostler.connectors.transports.websocket import WebsocketTransport
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
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.units import Bytes, Seconds

KIND: Final = "comfyui.workflow"
TIMEOUTS: Final = Timeouts(connect=30.0, load=600.0, first_byte=600.0, idle=300.0, run=3_600.0)
"""A large checkpoint loads without a word, and its server validates a large graph slowly."""
MESSAGE_LIMIT: Final[Bytes] = 8_388_608
"""Largest message of the socket; previews are the largest."""
_NAMES: Final = uuid.UUID("6f9a1f0e-0d3a-4f6b-9a55-6c1f5e0c7a21")
"""Namespace of the ids that we give to prompts."""


class ComfyuiHttpOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `comfyui-http`."""

    poll: Seconds = 2.0
    """Queue and history are asked this often while nothing is heard."""
    timeout: Seconds = 10.0
    """Limit of each call that moves no file, and of a prompt's stopping."""
    backlog: Annotated[int, Meta(ge=0)] = 4
    """Prompts, whoever's they are, that may wait beyond `slots`; ComfyUI itself knows no bound."""
    retry: Seconds = 5.0
    """When to come back to a server that has more."""
    file_limit: Bytes = 268_435_456
    """Largest file that is fetched, 256 MiB; it is held in memory for a moment."""
    previews: bool = True
    """Show pictures of running work, where the server makes any (`--preview-method`)."""


class ComfyuiHttpConnector:
    """Connector `comfyui-http`: queue a graph, follow it, fetch what it made, stop it and nothing else."""

    name: str = "comfyui-http"
    service: str = "comfyui"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint; `InvalidError` for a URL or options that cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = options = parse_options(config.options, ComfyuiHttpOptions, connector=self.name)
        self._pool = pool = HttpPool(config.http)
        self._http = HttpTransport(
            config.url, settings=config.http, api_key=config.api_key, connect=options.timeout, pool=pool
        )
        self._socket = WebsocketTransport(
            config.url, settings=config.http, api_key=config.api_key, connect=options.timeout, pool=pool
        )
        self._stack = AsyncExitStack()
        server = ComfyuiServer(self._http, within=options.timeout)
        files = FileTransfer(server, config.blobs, limit=options.file_limit)
        self._tools = Tools(
            server=server,
            socket=self._socket,
            limits=Limits(opening=options.timeout, message=MESSAGE_LIMIT),
            files=files,
            stopped=Stopped(),
            within=options.timeout,
            previews=options.previews,
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for part in (self._pool, self._http, self._socket):
                await stack.enter_async_context(part)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return `comfyui.workflow`."""
        return (
            kind_spec(
                KIND,
                queue="image",
                about="Run a ComfyUI workflow (API format) and keep what it makes",
                service=self.service,
                connector=self.name,
                payload=WorkflowPayload,
                result=WorkflowResult,
                timeouts=TIMEOUTS,
            ),
        )

    async def probe(self) -> Probe:
        """Ask for machine and queue; work is never touched by the answer."""
        try:
            stats = await self._tools.server.stats()
            depth = await self._tools.server.depth()
        except ServiceFaultError as error:
            return probe_failure(error)
        slots = self._config.slots or 1
        return Probe(
            state=EndpointState.READY,
            message=f"{depth} prompts wait or run",
            version=stats.system.comfyui_version,
            slots=slots,
            busy=min(depth, slots),
        )

    async def capabilities(self) -> ServiceCapabilities:
        """Ask for node classes, models and GPUs."""
        try:
            stats = await self._tools.server.stats()
            nodes = await self._tools.server.nodes()
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        memory = sum(device.vram_total or 0 for device in stats.devices)
        pools = {"slots": Pool(id=f"{self.endpoint}/slots", total=float(self._config.slots or 1))}
        if memory:
            pools["gpu_memory"] = Pool(id=f"{self.endpoint}/gpu_memory", total=float(memory))
        return ServiceCapabilities(
            kinds=(KIND,),
            models=models_of(nodes),
            models_known=True,
            labels={**labels_of(nodes, stats), **self._config.labels},
            versions=versions_of(stats),
            pools=pools,
        )

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Queue the graph, unless this attempt or one before it has done so already."""
        try:
            if call.kind != KIND:
                return Failed(failure=failure(FailureClass.INVALID_INPUT, f"{self.name} has no kind {call.kind}"))
            asked = open_payload(call.payload, WorkflowPayload)
            stages = Stages.of(call)
            async with stages.within(Stage.CONNECT):
                limit, _, _ = stages.left(Stage.CONNECT)
                return await self._submitted(call, asked, within=TIMEOUTS.connect or 0.0 if limit is None else limit)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)

    async def _submitted(self, call: ServiceCall, asked: WorkflowPayload, *, within: Seconds) -> RemoteRef:
        work = hashlib.sha256(bytes(call.payload)).hexdigest()[:32]
        mark = Mark(job=call.job_id, fence=call.fence, work=work)
        token = str(uuid.uuid5(_NAMES, f"{mark.job}/{mark.fence}/{mark.work}"))
        if (known := await self._known(token, mark)) is not None:
            return await self._adopted(call, known)
        graph = await self._tools.files.upload_all(asked.workflow, within=within)
        body = {"prompt": graph, "prompt_id": token, "client_id": token, "extra_data": {MARK: mark}}
        try:
            answer = await self._tools.server.submit(body, within=within)
        except ServiceFaultError as error:
            if error.failure.class_ not in {FailureClass.TRANSIENT, FailureClass.TIMEOUT}:
                raise
            # Nobody knows whether the server took it: it does.
            if (known := await self._known(token, mark)) is None:
                raise
            return await self._adopted(call, known)
        ref = RemoteRef(id=answer.prompt_id, job_id=call.job_id, fence=call.fence)
        await self._judge_partial(ref, asked, answer)
        return ref

    async def _judge_partial(self, ref: RemoteRef, asked: WorkflowPayload, answer: PromptAnswer) -> None:
        """Stop a prompt that was taken without some of its outputs: its success would not be one."""
        nodes = answer.node_errors
        if not nodes or asked.partial:
            return
        await ComfyuiRun(self._tools, ref).forget()
        if isinstance(nodes, dict):
            raise ServiceFaultError(invalid_nodes(nodes, code="prompt_outputs_failed_validation"))
        raise fault(FailureClass.INVALID_INPUT, "ComfyUI refuses some outputs of the workflow")

    async def _known(self, token: str, mark: Mark) -> Sight | None:
        """Return the prompt that this attempt, or one before it, has queued; `overloaded` when there is no room."""
        server = self._tools.server
        lineup = await server.queue()
        found = lineup.ours(mark) or await server.history(token)
        if found is not None:
            return found
        if not server.takes_ids and (own := (await server.recent()).attempt(mark)) is not None:
            return own
        if len(lineup.sights) >= (self._config.slots or 1) + self._options.backlog:
            words = f"{len(lineup.sights)} prompts wait or run there already"
            raise fault(FailureClass.OVERLOADED, words, retry_after=self._options.retry)
        return None

    async def _adopted(self, call: ServiceCall, sight: Sight) -> RemoteRef:
        ref = RemoteRef(id=sight.prompt_id, job_id=call.job_id, fence=call.fence)
        await ComfyuiRun(self._tools, ref).take_over(sight)
        return ref

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        """Follow queue and history, and the socket as far as it is heard."""
        stages = Stages.of(call)
        silence, _, _ = stages.left(Stage.IDLE)
        work = ComfyuiRun(self._tools, ref, silence=silence)
        async with aclosing(Follower(work, stages, poll=self._options.poll).steps()) as steps:
            async for step in steps:
                yield step

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Ask queue and history, and take the prompt over when it was queued under a lower fence."""
        run = ComfyuiRun(self._tools, ref)
        try:
            sight = await run.look()
            if sight.state in ALIVE or sight.state is RemoteState.SUCCEEDED:
                await run.take_over(sight)
        except ServiceFaultError:
            return RemoteState.UNKNOWN
        return sight.state

    async def fetch(self, ref: RemoteRef) -> Finished | Failed:
        """Return how the prompt ended, with what it made."""
        try:
            return await ComfyuiRun(self._tools, ref, silence=self._options.timeout).outcome()
        except ServiceFaultError as error:
            return Failed(failure=error.failure)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Take the prompt out of the queue or interrupt it, unless a higher fence holds it or it is not ours."""
        try:
            return await ComfyuiRun(self._tools, ref).stop()
        except ServiceFaultError:
            return False

    async def release(self, ref: RemoteRef) -> None:
        """Take the prompt out of the history; files stay where the server put them."""
        try:
            await ComfyuiRun(self._tools, ref).forget()
        except ServiceFaultError:
            return


__all__ = ["ComfyuiHttpConnector", "ComfyuiHttpOptions"]

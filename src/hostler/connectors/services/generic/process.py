"""Drives any command as a service: JSON lines in and out, one process for a job or one for many."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.direct import DirectCalls, Report
from hostler.connectors.faults import ServiceFaultError, failure, fault, off_protocol
from hostler.connectors.health import probe_failure, service_unavailable
from hostler.connectors.schemas import parse_options
from hostler.connectors.services.generic.command import ProcessOptions
from hostler.connectors.services.generic.declared import Types
from hostler.connectors.services.generic.lines import Job, Listener, Up, read_line
from hostler.connectors.stages import Stages
from hostler.connectors.transports.conversation import Limits
from hostler.connectors.transports.process import ProcessConversation, ProcessTransport
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
from hostler.kernel.allowance import allowance
from hostler.kernel.errors import InvalidError
from hostler.kernel.units import Seconds
from hostler.policy.deadline import pass_on

FULL_PAUSE: Final[Seconds] = 1.0
"""When to come back to a command that has no room."""


class ProcessConnector:
    """Connector `process`: a job is a line that the command reads, its progress and end are lines that it writes.

    Cancelling, or a limit, ends its whole process group. The work lives in this process: `reconcile` is `UNKNOWN`
    to any other, and the job runs again after a crash.
    """

    name: str = "process"
    service: str = "process"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one command; `InvalidError` that says what to write for options that cannot work."""
        if urlsplit(config.url).scheme not in {"", "process"}:
            raise InvalidError(f"a process has no address: leave the url out, not {config.url!r}", field="url")
        if config.api_key is not None:
            raise InvalidError(
                "a process is sent no credential: name its variable in options.inherit", field="api_key_env"
            )
        self.endpoint = config.endpoint
        self._labels = config.labels
        self._options = options = parse_options(config.options, ProcessOptions, connector=self.name)
        self.service = options.service or self.name
        self._slots = config.slots or 1
        self._types = {kind.name: Types(kind) for kind in options.kinds}
        self._program = options.program(options.command, dialogue=options.served)
        self._transport = ProcessTransport(self._program)
        self._health = ProcessTransport(options.program(options.health, dialogue=False)) if options.health else None
        self._calls = DirectCalls()
        self._running = 0
        self._kept: list[Server] = []

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        if self._health is not None:
            await self._health.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.close()
        kept, self._kept = self._kept, []
        await asyncio.gather(*(server.close() for server in kept))
        await self._transport.__aexit__(kind, value, trace)
        if self._health is not None:
            await self._health.__aexit__(kind, value, trace)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return the kinds that the options declare."""
        return tuple(kind.spec(service=self.service, connector=self.name) for kind in self._options.kinds)

    async def probe(self) -> Probe:
        """Look for the program, and run the health command where there is one."""
        try:
            await self._look()
        except ServiceFaultError as error:
            return probe_failure(error)
        return Probe(state=EndpointState.READY, message="it can be run", slots=self._slots, busy=self._running)

    async def _look(self) -> None:
        if await asyncio.to_thread(self._program.find) is None:
            raise fault(
                FailureClass.TRANSIENT, f"there is no program {self._program.arguments[0]} that can be run here"
            )
        if self._health is None:
            return
        limits = Limits(silence=self._options.timeout, total=self._options.message_limit)
        stages = Stages(Timeouts(run=self._options.timeout))
        async with (
            stages.within(Stage.RUN),
            self._health.conversation("", limits=limits) as conversation,
            aclosing(conversation.messages()) as messages,
        ):
            async for _ in messages:
                continue

    async def capabilities(self) -> ServiceCapabilities:
        """Say what the options say, if the program is there."""
        try:
            await self._look()
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        return ServiceCapabilities(
            kinds=tuple(self._types),
            models=self._options.models,
            models_known=bool(self._options.models),
            labels=dict(self._labels),
            pools={"slots": Pool(id=f"{self.endpoint}/slots", total=self._slots)},
        )

    async def submit(self, call: ServiceCall) -> RemoteRef | Failed:
        """Judge the payload and start the command, or hand the job to one that waits."""
        types = self._types.get(call.kind)
        if types is None:
            return Failed(failure=failure(FailureClass.INVALID_INPUT, f"{self.name} has no kind {call.kind}"))
        try:
            types.judge_payload(call.payload)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        stages = Stages.of(call)
        return self._calls.start(call, lambda report: self._work(call, stages, types, report))

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:  # noqa: ARG002 - the port's shape
        """Yield progress as it is written, then the end; the clocks run since `submit`."""
        async with aclosing(self._calls.observe(ref)) as steps:
            async for step in steps:
                yield step

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Say how the work is; `UNKNOWN` unless this connector began it and still has it."""
        return self._calls.state(ref)

    async def fetch(self, ref: RemoteRef) -> Finished | Failed:
        """Return how the work ended."""
        return self._calls.outcome(ref)

    async def cancel(self, ref: RemoteRef) -> bool:
        """End the process group that does the work."""
        return await self._calls.cancel(ref)

    async def release(self, ref: RemoteRef) -> None:
        """Forget the work, and end it if it goes on."""
        await self._calls.release(ref)

    async def _work(self, call: ServiceCall, stages: Stages, types: Types, report: Report) -> Finished | Failed:
        if self._running >= self._slots:
            raise fault(FailureClass.OVERLOADED, "the command runs as often as it may", retry_after=FULL_PAUSE)
        self._running += 1
        try:
            async with stages.within(Stage.RUN):
                end = await (self._served if self._options.served else self._once)(call, stages, report)
        finally:
            self._running -= 1
        if isinstance(end, Finished):
            types.judge_result(end.result)
        return end

    async def _once(self, call: ServiceCall, stages: Stages, report: Report) -> Finished | Failed:
        async with (
            self._transport.conversation("", _line_of(call), limits=self._limits()) as conversation,
            aclosing(conversation.messages()) as messages,
        ):
            return await self._listener(call, stages, report).until_end(messages, alone=True)

    async def _served(self, call: ServiceCall, stages: Stages, report: Report) -> Finished | Failed:
        server = await self._take(stages)
        try:
            await server.conversation.send(_line_of(call))
            end = await self._listener(call, stages, report).until_end(server.messages, alone=False)
        except BaseException:  # cancelled or failed alike: what it still says belongs to nobody
            await server.close()
            raise
        if server.conversation.alive:
            self._kept.append(server)
        else:
            await server.close()
        return end

    async def _take(self, stages: Stages) -> "Server":
        while self._kept:
            server = self._kept.pop()
            if server.conversation.alive:
                return server
            await server.close()
        server = await Server.start(self._transport, self._limits())
        if self._options.ready:
            try:
                async with stages.within(Stage.LOAD):
                    await server.loaded()
            except BaseException:  # as above
                await server.close()
                raise
        return server

    def _listener(self, call: ServiceCall, stages: Stages, report: Report) -> Listener:
        return Listener(call, stages, report, limit=self._options.output_limit)

    def _limits(self) -> Limits:
        """Return the limits of a line, and of all lines but where the job counts them itself."""
        total = _ENDLESS if self._options.served else self._options.output_limit
        return Limits(message=self._options.message_limit, total=total)


def _line_of(call: ServiceCall) -> bytes:
    """Write the line that hands a job over."""
    left = pass_on(allowance())
    return msgspec.json.encode(
        Job(
            job=call.job_id,
            fence=call.fence,
            kind=call.kind,
            payload=call.payload,
            deadline=call.deadline,
            seconds_left=None if left is None else round(left, 3),
        )
    )


class Server:
    """A command that does job after job."""

    def __init__(
        self, conversation: ProcessConversation, messages: AsyncGenerator[bytes], stack: AsyncExitStack
    ) -> None:
        self.conversation = conversation
        self.messages = messages
        self._stack = stack

    @classmethod
    async def start(cls, transport: ProcessTransport, limits: Limits) -> "Server":
        """Start one."""
        async with AsyncExitStack() as stack:
            conversation = await stack.enter_async_context(transport.conversation("", limits=limits))
            messages = await stack.enter_async_context(aclosing(conversation.messages()))
            return cls(conversation, messages, stack.pop_all())

    async def loaded(self) -> None:
        """Wait until it says that it takes jobs."""
        line = await anext(self.messages, None)
        if line is None or not isinstance(read_line(line), Up):
            raise off_protocol("the command did not say that it is ready before it said something else")

    async def close(self) -> None:
        """End it, with its group."""
        await self._stack.aclose()


_ENDLESS: Final = 2**62

"""Conversations with a command: what is said goes to its standard input, each line of its output is a message."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from msgspec import Struct, structs

from hostler.connectors.faults import ServiceFaultError, fault, off_protocol, timed_out
from hostler.connectors.transports.conversation import LIMITS, Limits, held_to
from hostler.contracts.failure import FailureClass, Stage
from hostler.kernel.units import Bytes, Seconds

CHUNK: Final[Bytes] = 65_536
TAIL: Final[Bytes] = 4_096
"""As much of what a command last wrote to its standard error as a failure may quote."""
LINGER: Final[Seconds] = 1.0
"""How long output is waited for that somebody holds open after the command has ended."""
KILLED: Final[Seconds] = 5.0
"""How long a killed command is waited for."""
LAUNCHER: Final = str(Path(__file__).with_name("launch.py"))


class ResourceLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one process of a command may use; no limit unless given."""

    memory: Bytes | None = None
    """Address space."""
    cpu: Seconds | None = None
    """Processor time, in whole seconds; then it gets SIGXCPU, and five seconds later SIGKILL."""
    open_files: int | None = None
    file_size: Bytes | None = None
    """Of any file that it writes."""

    def named(self) -> dict[str, tuple[int, int]]:
        """Return soft and hard limit by the system's names."""
        found: dict[str, tuple[int, int]] = {}
        if self.memory is not None:
            found["RLIMIT_AS"] = (self.memory, self.memory)
        if self.cpu is not None:
            seconds = max(1, round(self.cpu))
            found["RLIMIT_CPU"] = (seconds, seconds + 5)
        if self.open_files is not None:
            found["RLIMIT_NOFILE"] = (self.open_files, self.open_files)
        if self.file_size is not None:
            found["RLIMIT_FSIZE"] = (self.file_size, self.file_size)
        return {**found, "RLIMIT_CORE": (0, 0)}


class Command(Struct, frozen=True, kw_only=True):
    """A program with its arguments and surroundings; no shell reads it."""

    arguments: tuple[str, ...]
    environment: dict[str, str] = {}
    """All of it: nothing is inherited."""
    directory: str | None = None
    """Where it runs; an empty folder of its own, which is its HOME too and is removed afterwards, unless given."""
    limits: ResourceLimits = ResourceLimits()
    exits: dict[str, FailureClass] = {}
    """Classes by exit status (`"3"`) or signal (`"SIGKILL"`); `transient` for any other but 0."""
    secrets: tuple[str, ...] = ()
    """Texts that arrive as `***`, whatever the command writes."""
    grace: Seconds = 2.0
    """Between SIGTERM and SIGKILL to its whole group."""
    dialogue: bool = False
    """Whether its standard input stays open after the opening."""

    def __repr__(self) -> str:
        return f"Command({self.arguments[0]!r})"

    def find(self) -> str | None:
        """Return the path of the program, or None when it is not there or cannot be run; reads files."""
        return shutil.which(self.arguments[0], path=self.environment.get("PATH", os.defpath))


class ProcessTransport:
    """Starts the command once for each conversation, in a session and process group of its own.

    A conversation ends well when the command ends with status 0. What is left of its group then, or when the
    conversation is left, is killed; on Linux it also dies with this process.
    """

    def __init__(self, command: Command) -> None:
        self._command = command
        self._children: set[Child] = set()
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        await asyncio.gather(*(child.end() for child in tuple(self._children)))

    @asynccontextmanager
    async def conversation(
        self, target: str, opening: bytes = b"", *, limits: Limits = LIMITS
    ) -> AsyncGenerator["ProcessConversation"]:
        """Start the command, with `target` as one more argument unless it is empty, and say the opening."""
        if not self._open:
            raise fault(FailureClass.INTERNAL, "the connector is not open")
        child = await self._start((*self._command.arguments, *([target] if target else ())))
        self._children.add(child)
        try:
            if opening:
                child.say(opening)
            if not self._command.dialogue:
                child.hush()
            yield ProcessConversation(child, limits)
        finally:
            await child.end()
            self._children.discard(child)

    async def _start(self, arguments: tuple[str, ...]) -> "Child":
        command = self._command
        if await asyncio.to_thread(command.find) is None:
            raise fault(FailureClass.TRANSIENT, f"there is no program {arguments[0]} that can be run here")
        try:
            return await Child.start(command, arguments)
        except OSError as error:
            raise fault(FailureClass.TRANSIENT, f"{arguments[0]} cannot be started: {error}") from error


class ProcessConversation:
    """What one run of a command says, as `Dialogue`."""

    def __init__(self, child: "Child", limits: Limits) -> None:
        self._child = child
        self._limits = limits

    @property
    def alive(self) -> bool:
        """Tell whether the command goes on, as far as this loop knows."""
        return self._child.status is None

    def messages(self) -> AsyncGenerator[bytes]:
        """Yield the lines of its output that are not blank until it ends."""
        return held_to(self._limits, self._child.lines(self._limits))

    async def send(self, message: bytes) -> None:
        """Say one line more."""
        self._child.say(message)
        try:
            async with asyncio.timeout(self._limits.opening):
                await self._child.heard()
        except TimeoutError:
            raise timed_out(Stage.CONNECT, self._limits.opening) from None


class Child:
    """One run of a command, with the three pipes to it."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process, pipes: "Pipes", home: str | None) -> None:
        self._command = command
        self._process = process
        self._pipes = pipes
        self._home = home
        self._tail = bytearray()
        self._exited = asyncio.create_task(self._mind(), name=f"command {process.pid}")
        self._errors = asyncio.create_task(self._drain(), name=f"errors of command {process.pid}")
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, command: Command, arguments: tuple[str, ...]) -> Self:
        """Start it; `OSError` when it cannot be."""
        home = None if command.directory else await asyncio.to_thread(tempfile.mkdtemp, prefix="hostler-")
        pipes = Pipes()
        told = json.dumps({"limits": command.limits.named(), "parent": os.getpid()})
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", LAUNCHER, told, *arguments),
                stdin=pipes.theirs[0],
                stdout=pipes.theirs[1],
                stderr=pipes.theirs[2],
                cwd=command.directory or home,
                env={**({"HOME": home} if home else {}), **command.environment},
                start_new_session=True,
            )
        except BaseException:  # cancelled or failed alike: nothing may stay open
            pipes.close()
            await _removed(home)
            raise
        pipes.started()
        try:
            await pipes.connect()
        except BaseException:  # as above: no process may stay
            _signal(process.pid, signal.SIGKILL)
            pipes.close()
            await _removed(home)
            raise
        return cls(command, process, pipes, home)

    @property
    def status(self) -> int | None:
        """Return its exit status, negative for a signal; None while it goes on."""
        return self._process.returncode

    def say(self, message: bytes) -> None:
        """Write a line; what a command that has ended does not read is nobody's loss: its status says the rest."""
        self._pipes.writer.write(message + b"\n")

    async def heard(self) -> None:
        """Wait until what was said has been taken, or nobody is there to take it."""
        with contextlib.suppress(ConnectionError):
            await self._pipes.writer.drain()

    def hush(self) -> None:
        """Say that there is nothing more to say."""
        self._pipes.writer.close()

    async def lines(self, limits: Limits) -> AsyncGenerator[bytes]:
        """Yield lines; raises the fault of a line or an output over its limit, and of an end that is not status 0."""
        rest: list[bytes] = []
        size = total = 0
        while chunk := await self._read():
            total += len(chunk)
            if limits.total is not None and total > limits.total:
                raise off_protocol(f"the service sent more than {limits.total} bytes in one conversation")
            *whole, last = chunk.split(b"\n")
            for piece in whole:
                line, rest, size = b"".join((*rest, piece)), [], 0
                if line.strip():
                    yield self._scrubbed(line.removesuffix(b"\r"))
            rest.append(last)
            size += len(last)
            if size > limits.message:
                raise off_protocol(f"the service sent a message over {limits.message} bytes")
        await asyncio.shield(self._exited)
        if self.status != 0:
            raise await self.fault()
        line = b"".join(rest)
        if line.strip():
            yield self._scrubbed(line.removesuffix(b"\r"))

    async def fault(self) -> ServiceFaultError:
        """Return what its end means: the class of its status or signal, with its last words."""
        await asyncio.wait({self._errors}, timeout=LINGER)
        how = how_it_ended(self.status)
        class_ = self._command.exits.get(how, FailureClass.TRANSIENT)
        words = self.words().strip()
        said = f": {words.splitlines()[-1]}" if words else ""
        shown = f"status {how}" if how.isdecimal() else how
        found = fault(class_, f"the command ended with {shown}{said}", exit=how, stderr=words or None).failure
        stage = Stage.RUN if class_ is FailureClass.TIMEOUT else None
        return ServiceFaultError(structs.replace(found, stage=stage))

    def words(self) -> str:
        """Return what it last wrote to its standard error."""
        return self._scrubbed(bytes(self._tail)).decode(errors="replace")

    async def end(self) -> None:
        """End its whole group: SIGTERM, after the grace SIGKILL; wait until it is gone. Safe to call again."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(), name=f"end of command {self._process.pid}")
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        if not self._exited.done():
            _signal(self._process.pid, signal.SIGTERM)
            await asyncio.wait({self._exited}, timeout=self._command.grace)
        if not self._exited.done():
            _signal(self._process.pid, signal.SIGKILL)
            await asyncio.wait({self._exited}, timeout=KILLED)
        for task in (self._exited, self._errors):
            task.cancel()
        await asyncio.wait({self._exited, self._errors})
        self._pipes.close()
        await _removed(self._home)

    async def _mind(self) -> None:
        """Wait for its end, and end what it left running in its group."""
        await self._process.wait()
        _signal(self._process.pid, signal.SIGKILL)

    async def _read(self) -> bytes:
        """Read more output; nothing when it is at its end, or the command is and somebody else holds it open."""
        reading = asyncio.ensure_future(self._pipes.output.read(CHUNK))
        try:
            await asyncio.wait({reading, self._exited}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.wait({reading}, timeout=LINGER)
            return reading.result() if reading.done() else b""
        finally:
            reading.cancel()

    async def _drain(self) -> None:
        """Read its standard error for as long as it writes, and keep the end."""
        while chunk := await self._pipes.errors.read(CHUNK):
            self._tail += chunk
            del self._tail[: max(0, len(self._tail) - TAIL)]

    def _scrubbed(self, text: bytes) -> bytes:
        for secret in self._command.secrets:
            text = text.replace(secret.encode(), b"***")
        return text


class Pipes:
    """Three pipes, ours and theirs; pipes and not sockets, since programs open `/dev/stdout` again."""

    def __init__(self) -> None:
        read, write = os.pipe(), [os.pipe() for _ in range(2)]
        self.theirs = [read[0], write[0][1], write[1][1]]
        self._ours = [read[1], write[0][0], write[1][0]]
        self.output = asyncio.StreamReader(limit=CHUNK)
        self.errors = asyncio.StreamReader(limit=CHUNK)
        self._input: asyncio.WriteTransport | None = None
        self._transports: list[asyncio.BaseTransport] = []

    def started(self) -> None:
        """Close their ends, which the command has now."""
        theirs, self.theirs = self.theirs, []
        for number in theirs:
            os.close(number)

    async def connect(self) -> None:
        """Let the loop watch our ends."""
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        pipe, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(self._ours.pop(0), "wb", 0))
        self._input = pipe
        self._transports.append(pipe)
        self.writer = asyncio.StreamWriter(pipe, protocol, None, loop)
        for reader in (self.output, self.errors):
            made = asyncio.StreamReaderProtocol(reader)
            number = self._ours.pop(0)
            heard, _ = await loop.connect_read_pipe(lambda made=made: made, os.fdopen(number, "rb", 0))
            self._transports.append(heard)

    def close(self) -> None:
        """Close what is open; what was not yet written is dropped."""
        if self._input is not None and self._input.get_write_buffer_size():
            self._input.abort()
        for transport in self._transports:
            if not transport.is_closing():
                transport.close()
        for number in (*self.theirs, *self._ours):
            os.close(number)
        self.theirs, self._ours = [], []


def how_it_ended(status: int | None) -> str:
    """Return an exit status as text, a signal by its name."""
    if status is None or status >= 0:
        return str(status)
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"SIG{-status}"


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


async def _removed(folder: str | None) -> None:
    if folder is not None:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def environment_of(names: tuple[str, ...], given: Mapping[str, str]) -> dict[str, str]:
    """Return those variables of this process that are named, and those that are given over them."""
    return {**{name: os.environ[name] for name in names if name in os.environ}, **given}

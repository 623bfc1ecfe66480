"""Child processes for handlers: warm, reused, killed with their whole group."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from types import TracebackType
from typing import Self

import structlog

from hostler.contracts.failure import Failure, FailureClass
from hostler.worker.call import Outlet
from hostler.worker.frames import (
    Answer,
    Done,
    FrameError,
    Hello,
    Order,
    Said,
    Saved,
    Stop,
    Up,
    Work,
    Wrong,
    pack,
    read_answer,
    sealed,
)

_LOG = structlog.stdlib.get_logger("hostler.worker.processes")

START_LIMIT = 30.0
"""Seconds that a child may take to start."""
STOP_GRACE = 0.5
"""Seconds that a child has to end its work after a word to stop, before it is killed."""


class ChildProcess:
    """One child, in a session and process group of its own."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @property
    def pid(self) -> int:
        """Return its process id, which is its group's too."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Tell whether it has not ended, as far as this loop knows."""
        return self._process.returncode is None and not self._writer.is_closing()

    @classmethod
    async def start(cls) -> Self:
        """Start one and wait until it runs; `OSError` or `TimeoutError` when it does not.

        Its standard output goes to the worker's standard error: nothing it prints can reach the channel.
        """
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hostler.worker.child",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:  # cancelled or failed alike: nothing may stay open
            ours.close()
            raise
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours)  # no await of the network: it is connected
        child = cls(process, reader, writer)
        try:
            async with asyncio.timeout(START_LIMIT):
                await child._send(Hello(path=tuple(sys.path)))
                await read_answer(reader)  # Up
        except asyncio.IncompleteReadError as error:
            await child.kill()
            raise OSError(f"a child process ended while it started (status {process.returncode})") from error
        except BaseException:  # cancelled or failed alike: no child may stay
            await child.kill()
            raise
        return child

    async def run(self, work: Work, outlet: Outlet) -> Done | Wrong:
        """Run one piece of work, passing on what it says; a child that dies is a `Wrong` of its own."""
        try:
            await self._send(work)
            while True:
                answer: Answer = await read_answer(self._reader)
                match answer:
                    case Said(progress=progress):
                        outlet.progress(progress)
                    case Saved(value=value):
                        outlet.checkpoint(sealed(value))
                    case Done() | Wrong():
                        return answer
                    case Up():
                        _LOG.warning("child said twice that it runs", pid=self.pid)
        except (asyncio.IncompleteReadError, ConnectionError, FrameError) as error:
            await self.kill()
            return Wrong(failure=self._death(error))

    async def stop(self, job_id: str, fence: int) -> None:
        """Send word to stop; the work may look at `call.cancelled`."""
        with contextlib.suppress(ConnectionError):
            await self._send(Stop(job_id=job_id, fence=fence))

    async def kill(self) -> None:
        """Kill its whole group and wait until it is gone; safe to call again."""
        self._writer.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()

    async def _send(self, order: Order) -> None:
        self._writer.write(pack(order))
        await self._writer.drain()

    def _death(self, error: Exception) -> Failure:
        if isinstance(error, FrameError):
            return Failure(class_=FailureClass.INTERNAL, message=str(error))
        status = self._process.returncode
        how = f"signal {signal.Signals(-status).name}" if status is not None and status < 0 else f"status {status}"
        return Failure(
            class_=FailureClass.INTERNAL,
            message=f"the handler's process ended with {how} before it gave a result",
            details={"status": status},
        )


class ProcessPool:
    """Warm children for handlers; how many run at once is the worker's slots' business.

    `async with`: at the end every child is killed.
    """

    def __init__(self, *, idle_max: int = os.cpu_count() or 1) -> None:
        self._idle: list[ChildProcess] = []
        self._idle_max = idle_max
        self._all: set[ChildProcess] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        children = [*self._all]
        self._all.clear()
        self._idle.clear()
        await asyncio.gather(*(child.kill() for child in children))

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the children that live now."""
        return tuple(child.pid for child in self._all)

    async def run(self, work: Work, outlet: Outlet) -> Done | Wrong:
        """Run one piece of work in a warm child; when cancelled, ask it to stop, then kill its group.

        A killed child is replaced when the next one is needed.
        """
        try:
            child = await self._take()
        except (OSError, TimeoutError, FrameError) as error:
            failure = Failure(class_=FailureClass.INTERNAL, message=f"no child process could be started: {error}")
            return Wrong(failure=failure)
        running = asyncio.ensure_future(child.run(work, outlet))
        try:
            answer = await asyncio.shield(running)
        except asyncio.CancelledError:
            await self._end(child, running, work)
            raise
        if child.alive and len(self._idle) < self._idle_max:
            self._idle.append(child)
        else:
            await self._discard(child)
        return answer

    async def _take(self) -> ChildProcess:
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
            await self._discard(child)
        child = await ChildProcess.start()
        self._all.add(child)
        return child

    async def _end(self, child: ChildProcess, running: asyncio.Future[Done | Wrong], work: Work) -> None:
        await child.stop(work.facts.job_id, work.facts.fence)
        await asyncio.wait({running}, timeout=STOP_GRACE)
        if running.done() and child.alive:
            self._idle.append(child)
            return
        _LOG.warning("child killed", pid=child.pid, job=work.facts.job_id)
        await self._discard(child)
        await running  # ends with the channel

    async def _discard(self, child: ChildProcess) -> None:
        self._all.discard(child)
        await child.kill()

"""One attempt in a handler: on the loop, in a thread, or in a child process."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from msgspec import Raw

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import Progress
from hostler.contracts.service import Failed, Finished
from hostler.kernel.errors import PayloadError
from hostler.worker.call import Call, CallFacts, failure_of
from hostler.worker.frames import Done, Work, Wrong, sealed
from hostler.worker.handlers import Handler
from hostler.worker.processes import ProcessPool


class LoopOutlet:
    """A call's way out on the work loop."""

    def __init__(self, progress: Callable[[Progress], None], checkpoint: Callable[[Raw], None]) -> None:
        self._progress = progress
        self._checkpoint = checkpoint
        self.cancelled = False

    def progress(self, progress: Progress) -> None:
        """Hand progress on."""
        if not self.cancelled:
            self._progress(progress)

    def checkpoint(self, value: Raw) -> None:
        """Hand a checkpoint on."""
        if not self.cancelled:
            self._checkpoint(value)


class ThreadOutlet:
    """A call's way out of a thread: onto the loop that started it."""

    def __init__(self, outlet: LoopOutlet, loop: asyncio.AbstractEventLoop) -> None:
        self._outlet = outlet
        self._loop = loop

    @property
    def cancelled(self) -> bool:
        """Tell whether the work was asked to stop."""
        return self._outlet.cancelled

    def progress(self, progress: Progress) -> None:
        """Hand progress to the loop."""
        self._post(self._outlet.progress, progress)

    def checkpoint(self, value: Raw) -> None:
        """Hand a checkpoint to the loop."""
        self._post(self._outlet.checkpoint, value)

    def _post(self, take: Callable[..., None], value: object) -> None:
        if not self._loop.is_closed():  # an abandoned thread may outlive the worker's loop
            self._loop.call_soon_threadsafe(take, value)


class HandlerRun:
    """Runs one attempt in a handler.

    Cancelling the task that awaits `run` stops a coroutine at its next await and kills a child process; a thread
    cannot be stopped: it is told through `call.cancelled` and left behind, its slot is free at once.
    """

    def __init__(
        self, handler: Handler, payload: Raw, facts: CallFacts, outlet: LoopOutlet, processes: ProcessPool
    ) -> None:
        self._handler = handler
        self._payload = payload
        self._facts = facts
        self._outlet = outlet
        self._processes = processes

    async def run(self) -> Finished | Failed:
        """Return the sealed result, or the failure with its class; raises only when cancelled."""
        try:
            if self._handler.mode == "process":
                return await self._in_process()
            payload = self._handler.payload.decode(self._payload)
        except PayloadError as error:
            return Failed(failure=Failure(class_=FailureClass.INVALID_INPUT, message=error.message))
        except asyncio.CancelledError:
            self._outlet.cancelled = True
            raise
        try:
            if self._handler.mode == "loop":
                value = await self._handler.function(Call(payload, self._facts, self._outlet))
            else:
                outlet = ThreadOutlet(self._outlet, asyncio.get_running_loop())
                value = await in_thread(self._handler.function, Call(payload, self._facts, outlet))
            return Finished(result=self._handler.result.encode(value))
        except asyncio.CancelledError:
            self._outlet.cancelled = True
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its failure and has a class
            return Failed(failure=failure_of(error))

    async def _in_process(self) -> Finished | Failed:
        module, name = self._handler.address
        work = Work(module=module, name=name, payload=bytes(self._payload), facts=self._facts)
        answer = await self._processes.run(work, self._outlet)
        match answer:
            case Done(result=result):
                return Finished(result=sealed(result))
            case Wrong(failure=failure):
                return Failed(failure=failure)


async def in_thread(function: Callable[[Call[Any]], Any], call: Call[Any]) -> Any:
    """Call a plain function in a daemon thread of its own and return what it returns.

    No pool: a thread that never comes back must not take a place that others need.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def work() -> None:
        value: Any = None
        raised: BaseException | None = None
        try:
            value = context.run(function, call)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a handler must reach the loop as well
            raised = error if isinstance(error, Exception) else RuntimeError(f"the handler raised {error!r}")
        if not loop.is_closed():  # the worker may have stopped long before an abandoned thread ends
            loop.call_soon_threadsafe(settle, value, raised)

    threading.Thread(target=work, name=f"handler {call.job_id}", daemon=True).start()
    return await done

"""A child process of a worker: runs one handler at a time, and dies with its worker."""

import asyncio
import contextlib
import importlib
import inspect
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Coroutine
from operator import attrgetter
from typing import Any, cast

from msgspec import Raw

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import Progress
from hostler.kernel.errors import PayloadError
from hostler.worker.call import Call, CallFacts, failure_of
from hostler.worker.frames import (
    Answer,
    Done,
    FrameError,
    Hello,
    Said,
    Saved,
    Stop,
    Up,
    Work,
    Wrong,
    pack,
    read_order,
)
from hostler.worker.handlers import Handler, handler_of


class Line:
    """The way back to the worker; one frame at a time, from any thread."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()

    def send(self, answer: Answer) -> None:
        """Send one frame, blocking; `FrameError` when it is too large."""
        frame = pack(answer)
        with self._lock:
            self._channel.sendall(frame)


class PipeOutlet:
    """A call's way out of a child process."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._stop = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Tell whether the worker sent word to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Note that the work should stop."""
        self._stop.set()

    def progress(self, progress: Progress) -> None:
        """Send progress."""
        self._line.send(Said(progress=progress))

    def checkpoint(self, value: Raw) -> None:
        """Send a checkpoint."""
        self._line.send(Saved(value=bytes(value)))


class Child:
    """Reads orders in a thread, runs work in the main thread."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._line = Line(channel)
        self._work: queue.SimpleQueue[tuple[Work, PipeOutlet]] = queue.SimpleQueue()
        self._running: dict[tuple[str, int], PipeOutlet] = {}

    def run(self) -> None:
        """Serve until the worker is gone; never returns."""
        threading.Thread(target=self._listen, name="orders", daemon=True).start()
        self._line.send(Up(pid=os.getpid()))
        while True:
            work, outlet = self._work.get()
            answer = _answer(work, outlet)
            self._running.pop((work.facts.job_id, work.facts.fence), None)
            try:
                self._line.send(answer)
            except FrameError as error:
                self._line.send(Wrong(failure=failure_of(error)))

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while (order := read_order(self._channel)) is not None:
                match order:
                    case Hello(path=path):
                        sys.path[:] = path
                    case Work():
                        outlet = PipeOutlet(self._line)
                        self._running[order.facts.job_id, order.facts.fence] = outlet
                        self._work.put((order, outlet))
                    case Stop(job_id=job_id, fence=fence):
                        if (running := self._running.get((job_id, fence))) is not None:
                            running.stop()
        # The worker is gone: nobody wants what is left, our own children included. A parent-death signal would
        # come sooner, but would end this process before it can end its group.
        os.killpg(0, signal.SIGKILL)


def _answer(work: Work, outlet: PipeOutlet) -> Done | Wrong:
    try:
        handler = _find(work.module, work.name)
        payload: Any = handler.payload.decode(Raw(work.payload))
    except PayloadError as error:
        return Wrong(failure=Failure(class_=FailureClass.INVALID_INPUT, message=error.message))
    except Exception as error:  # noqa: BLE001 - a module that does not import is the handler's failure, not the child's
        return Wrong(failure=failure_of(error))
    try:
        return Done(result=bytes(handler.result.encode(_run(handler, payload, work.facts, outlet))))
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is its failure and has a class
        return Wrong(failure=failure_of(error))


def _run(handler: Handler, payload: object, facts: CallFacts, outlet: PipeOutlet) -> object:
    result: object = handler.function(Call(payload, facts, outlet))
    if inspect.iscoroutine(result):
        return asyncio.run(cast("Coroutine[Any, Any, object]", result))
    return result


def _find(module: str, name: str) -> Handler:
    found = handler_of(attrgetter(name)(importlib.import_module(module)))
    if found is None:
        raise TypeError(f"{module}.{name} is no handler")
    return found


def main() -> None:
    """Serve on the socket whose number is the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's business
    Child(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()

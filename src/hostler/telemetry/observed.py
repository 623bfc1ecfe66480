"""Measures a port once, from outside: the adapter behind it knows nothing of metrics."""

import functools
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

from hostler.kernel.errors import HostlerError
from hostler.telemetry.metrics import Metrics

T = TypeVar("T")


class _Observed:
    """Hands every call on and records how long it took and how it ended."""

    def __init__(self, target: object, *, port: str, metrics: Metrics) -> None:
        self._target = target
        self._port = port
        self._metrics = metrics

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if inspect.iscoroutinefunction(value):
            wrapped: Any = self._call(name, value)
        elif inspect.isasyncgenfunction(value):
            wrapped = self._stream(name, value)
        else:
            return value
        self.__dict__[name] = wrapped
        return wrapped

    def _call(self, verb: str, call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        @functools.wraps(call)
        async def measured(*args: object, **named: object) -> object:
            began = time.perf_counter()
            outcome = "ok"
            try:
                return await call(*args, **named)
            except BaseException as error:  # recorded, then raised on as it is
                outcome = _outcome(error)
                raise
            finally:
                self._record(verb, outcome, began)

        return measured

    def _stream(self, verb: str, call: Callable[..., AsyncIterator[object]]) -> Callable[..., AsyncIterator[object]]:
        @functools.wraps(call)
        async def measured(*args: object, **named: object) -> AsyncIterator[object]:
            began = time.perf_counter()
            outcome = "ok"
            try:
                async for item in call(*args, **named):
                    yield item
            except GeneratorExit:
                raise
            except BaseException as error:  # recorded, then raised on as it is
                outcome = _outcome(error)
                raise
            finally:
                self._record(verb, outcome, began)

        return measured

    def _record(self, verb: str, outcome: str, began: float) -> None:
        self._metrics.observe("hostler_port_seconds", self._port, verb, outcome, value=time.perf_counter() - began)


def _outcome(error: BaseException) -> str:
    if isinstance(error, HostlerError):
        return error.code
    return "cancelled" if isinstance(error, GeneratorExit) or not isinstance(error, Exception) else "internal"


def observed(target: T, *, port: str, metrics: Metrics) -> T:
    """Return `target` with every asynchronous verb measured as `hostler_port_seconds{port,verb,outcome}`.

    Behaviour is unchanged: answers, errors and cancellation pass through.
    """
    return cast("T", _Observed(target, port=port, metrics=metrics))

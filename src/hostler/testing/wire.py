"""A wire to a broker or registry that a test can cut, make lose answers, or make refuse."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from hostler.kernel.errors import EngineTimeoutError, EngineUnavailableError, InvalidError

P = TypeVar("P")


class Wire:
    """Faults of one way to an adapter: `cut` loses the calls, `lose` does them and loses the answer."""

    def __init__(self) -> None:
        self.cut = False
        self.drops = 0
        """How many calls are lost from now on."""
        self.refuse: Callable[[str, tuple[Any, ...]], bool] | None = None
        """Whether a call (verb and arguments) is refused as invalid."""
        self.lose: dict[str, int] = {}
        """How many answers of a verb are lost from now on."""
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        """Every call that was tried, with its arguments."""

    def count(self, verb: str) -> int:
        """Return how often a verb was called."""
        return sum(1 for name, _, _ in self.calls if name == verb)

    def to(self, target: P) -> P:
        """Return `target` as it is seen through this wire."""
        return cast("P", _Wired(self, target))


class _Wired:
    def __init__(self, wire: Wire, target: object) -> None:
        self._wire = wire
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not inspect.iscoroutinefunction(value):
            return value

        async def call(*args: Any, **named: Any) -> Any:
            wire = self._wire
            wire.calls.append((name, args, named))
            await asyncio.sleep(0)
            if wire.refuse is not None and wire.refuse(name, args):
                raise InvalidError("refused")
            if wire.drops > 0:
                wire.drops -= 1
                raise EngineUnavailableError("the call was lost")
            if wire.cut:
                raise EngineUnavailableError("the wire is cut")
            answer = await value(*args, **named)
            if wire.lose.get(name, 0) > 0:
                wire.lose[name] -= 1
                raise EngineTimeoutError("the answer was lost")
            return answer

        return call

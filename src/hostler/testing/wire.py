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
        self.hangs: Callable[[str, tuple[Any, ...]], bool] | None = None
        """Whether a call (verb and arguments) is not answered, until `over` is set."""
        self.over = asyncio.Event()
        self.lose: dict[str, int] = {}
        """How many answers of a verb are lost from now on."""
        self.away: set[str] = set()
        """Queues on a server of a cluster to which nothing gets through, while the others answer."""
        self.silent: set[str] = set()
        """Queues on a server that does what it is asked, and whose answers are lost."""
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
            if wire.hangs is not None and wire.hangs(name, args):
                await wire.over.wait()
                raise EngineTimeoutError("the call was not answered in time")
            if wire.drops > 0:
                wire.drops -= 1
                raise EngineUnavailableError("the call was lost")
            if wire.cut:
                raise EngineUnavailableError("the wire is cut")
            queues = _queues(name, args)
            if queues & wire.away:
                raise EngineUnavailableError("the primary is gone", server="one of several", executed=False)
            answer = await value(*args, **named)
            if queues & wire.silent:
                raise EngineTimeoutError("the answer of the primary was lost", server="one of several")
            if wire.lose.get(name, 0) > 0:
                wire.lose[name] -= 1
                raise EngineTimeoutError("the answer was lost")
            return answer

        return call


def _queues(verb: str, args: tuple[Any, ...]) -> set[str]:
    """Return the queues that a call of `Broker` or `Foreman` concerns."""
    match verb:
        case "claim":
            return {args[0].queue}
        case "demand" | "tick" | "promote" | "stats" | "audit":
            return {args[0]}
        case "renew" | "progress" | "settle":
            return {each.job_id.rpartition(".")[0] for each in args[1]}
        case _:
            return set()

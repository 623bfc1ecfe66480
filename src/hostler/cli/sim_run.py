"""What every `hostler sim` does around its service: start, say so, wait, stop."""

import os
from types import TracebackType
from typing import Protocol, Self, TypeVar

import msgspec
from msgspec import Struct

from hostler.cli.children import stop_requested, tether
from hostler.cli.output import OK, Out
from hostler.kernel.errors import AddressInUseError, SettingsError
from hostler.testing.sims.effects import EffectLog

K = TypeVar("K", bound=Struct)


class SimulatedService(Protocol):
    """A simulator; `async with` starts it."""

    url: str
    effects: EffectLog

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


async def run(service: SimulatedService, *, port: int, tethered: bool, json: bool) -> int:
    """Run a simulator until it is asked to stop."""
    out = Out(json=json)
    if tethered:
        tether()
    stop = await stop_requested()
    try:
        async with service:
            out.answer({"event": "ready", "url": service.url, "pid": os.getpid()}, f"ready: {service.url}")
            await stop.wait()
    except OSError as error:
        if service.url:
            raise
        raise AddressInUseError(f"port {port} cannot be used ({error.strerror}): name another with --port") from error
    out.answer({"event": "stopped", "effects": len(service.effects.effects)}, "stopped")
    return OK


def shares(flag: str, given: tuple[str, ...]) -> dict[str, float]:
    """Read what was given as NAME=SHARE."""
    found: dict[str, float] = {}
    for each in given:
        name, _, share = each.partition("=")
        try:
            found[name] = float(share)
        except ValueError as error:
            raise SettingsError(f"{flag}: expected NAME=SHARE, got {each!r}", problems=()) from error
    return found


def judged(command: str, knobs: dict[str, object], shape: type[K]) -> K:
    """Return the knobs that were given; the others are the simulator's own."""
    try:
        return msgspec.convert({name: value for name, value in knobs.items() if value is not None}, shape)
    except (msgspec.ValidationError, ValueError) as error:
        raise SettingsError(f"hostler sim {command}: {error}", problems=()) from error

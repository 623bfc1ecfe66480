"""Upkeep of one queue, one slice at a time."""

from typing import Any, Final, cast

from hostler.contracts.queue import QueueSpec, UpkeepReport
from hostler.kernel.units import Seconds
from hostler.valkeyio.config import config_hash, pack_config
from hostler.valkeyio.library import Library

_MICRO: Final = 1_000_000
NOT_MUSTERED, NO_MUSTER = -1, -2
"""Instead of a roll: workers did not have to be looked up, or could not be."""
_MORE, _FRESH = 1, 2
"""Words of the function: more is left, or nothing was done because the last upkeep is fresh."""


async def tick(library: Library, queue: str, *, roll: int = NOT_MUSTERED) -> UpkeepReport:
    """Do one slice of upkeep of one shard; see `ports.broker.Foreman.tick`.

    `roll` is what `EngineRegistry.upkeep` returned before workers were looked up for it.
    """
    word, left = cast("list[Any]", await library.call("tick", queue, roll=roll))
    return UpkeepReport(more=word == _MORE, fresh=word == _FRESH, due_in=_seconds(left))


async def promote(library: Library, queue: str) -> Seconds | None:
    """Make delayed jobs of one shard that are due ready; see `ports.broker.Foreman.promote`."""
    return _seconds(await library.call("promote", queue))


async def configure(library: Library, spec: QueueSpec) -> None:
    """Make a queue's row count from the next call on; a queue without one runs with the defaults."""
    packed = pack_config(spec)
    await library.call("configure", spec.name, config=packed, hash=config_hash(packed))


def _seconds(left: Any) -> Seconds | None:
    return None if left < 0 else left / _MICRO

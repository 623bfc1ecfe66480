"""Upkeep of one queue, one slice at a time."""

from hostler.contracts.queue import QueueSpec
from hostler.valkeyio.config import config_hash, pack_config
from hostler.valkeyio.library import Library


async def tick(library: Library, queue: str) -> bool:
    """Do one slice of upkeep and tell whether more is left to do at once; see `ports.broker.Foreman.tick`."""
    return bool(await library.call("tick", queue))


async def configure(library: Library, spec: QueueSpec) -> None:
    """Make a queue's row count from the next call on; a queue without one runs with the defaults."""
    packed = pack_config(spec)
    await library.call("configure", spec.name, config=packed, hash=config_hash(packed))

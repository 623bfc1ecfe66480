"""How a Python program speaks to Hostler: `connect` for asyncio, `connect_sync` for plain code."""

from hostler.client.fleet import Fleet, connect
from hostler.client.handle import JobHandle
from hostler.client.sync import SyncFleet, SyncJob, connect_sync

__all__ = ["Fleet", "JobHandle", "SyncFleet", "SyncJob", "connect", "connect_sync"]

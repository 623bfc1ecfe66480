"""Turns events and states into metrics: jobs from every event, the rest from the state at the time of asking."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from hostler.contracts.event import Event
from hostler.contracts.job import JobState
from hostler.contracts.queue import QueueStats, RegistryRow
from hostler.contracts.result import CacheView
from hostler.contracts.worker import Worker
from hostler.gateway.rooms import Rooms
from hostler.kernel.errors import HostlerError, NotFoundError
from hostler.kernel.units import Seconds
from hostler.kernel.version import __version__
from hostler.ports.broker import Desk
from hostler.telemetry.logs import logger
from hostler.telemetry.metrics import LabelValues, Metrics

T = TypeVar("T")

_LOG = logger("gateway")
NO_SERVICE: Final = "none"
STATUS: Final = {
    JobState.SUCCEEDED: "completed",
    JobState.DEAD: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.EXPIRED: "expired",
}
"""As the prior system's dashboards read them; dead is failure, the last two are values of their own."""
PATIENCE: Final[Seconds] = 3.0
"""Longest that a scrape waits for what there is, and then for how each queue stands."""
MOST_RUNNING: Final = 100_000
"""Running jobs whose start is remembered."""
READS: Final = 16
"""Most jobs looked up at the same time."""


class JobMeter:
    """Counts jobs that end, from every event, with the running time of their last attempt."""

    def __init__(self, metrics: Metrics, desk: Desk) -> None:
        self._metrics = metrics
        self._desk = desk
        self._begun: OrderedDict[str, datetime] = OrderedDict()
        self._reads = asyncio.Semaphore(READS)

    async def counted(self, events: Sequence[Event]) -> None:
        """Take events in, in the order of their stream."""
        ended: list[tuple[Event, datetime | None]] = []
        for event in events:
            if event.job is None or event.state is None:
                continue
            if event.state is JobState.RUNNING:
                self._begun[event.job] = event.at
                if len(self._begun) > MOST_RUNNING:
                    self._begun.popitem(last=False)
                continue
            begun = self._begun.pop(event.job, None)
            if event.state.terminal:
                ended.append((event, begun))
        for (event, begun), service in zip(
            ended, await asyncio.gather(*(self._service(event) for event, _ in ended)), strict=True
        ):
            self._count(event, begun, service)

    def _count(self, event: Event, begun: datetime | None, service: str) -> None:
        if event.state is None:
            return
        self._metrics.count("jobs_total", service, STATUS[event.state])
        if begun is not None and event.state in {JobState.SUCCEEDED, JobState.DEAD}:
            success = "true" if event.state is JobState.SUCCEEDED else "false"
            seconds = max(0.0, (event.at - begun).total_seconds())
            self._metrics.observe("job_duration_seconds", service, success, value=seconds)

    async def _service(self, event: Event) -> str:
        """Return the service that ran the job; the event says it, or the job does while it is kept."""
        told = event.data.get("service")
        if isinstance(told, str):
            return told or NO_SERVICE
        try:
            async with self._reads:
                return (await self._desk.get(event.job or "")).service or NO_SERVICE
        except NotFoundError:
            return NO_SERVICE


class Scrape:
    """Reads the state of everything for one answer of `/metrics`."""

    def __init__(self, rooms: Rooms, offsets: Callable[[], dict[str, int]]) -> None:
        self._rooms = rooms
        self._offsets = offsets
        self._since = time.time()
        self._rows: tuple[RegistryRow, ...] = ()

    async def render(self) -> bytes:
        """Return every series; `hostler_engine_up` is 0 when some of the engine did not answer in `PATIENCE`.

        Of a cluster the rest may have: only what was not answered is left out then.
        """
        metrics = self._rooms.metrics
        metrics.replace("hostler_build_info", {(__version__,): 1})
        metrics.replace("hostler_counting_since_timestamp_seconds", {(): self._since})
        metrics.replace("hostler_degraded", {(): bool(self._rooms.degraded())})
        metrics.replace("hostler_tail_offset", {(queue,): offset for queue, offset in self._offsets().items()})
        for name, values in self._rooms.gauges().items():
            metrics.replace(name, values)
        rooms = self._rooms
        rows, workers, cache = await asyncio.gather(
            _within(rooms.foreman.registry()), _within(rooms.registry.workers()), _within(rooms.results.view())
        )
        self._rows = self._rows if rows is None else rows
        stats = await asyncio.gather(*(_within(rooms.foreman.stats(row.queue.name)) for row in self._rows))
        up = None not in (rows, workers, cache) and None not in stats
        metrics.replace("hostler_engine_up", {(): up})
        _queues(metrics, [each for each in stats if each is not None], datetime.now(UTC))
        _workers(metrics, workers or ())
        _cache(metrics, cache)
        health = {} if workers is None else _services(self._rows, workers)
        metrics.replace("service_health", {(name,): healthy for name, healthy in health.items()})
        return metrics.render()


async def _within(asked: Awaitable[T]) -> T | None:
    try:
        async with asyncio.timeout(PATIENCE):
            return await asked
    except (HostlerError, TimeoutError) as error:
        _LOG.debug("upkeep.failing", task="scrape", error=str(error), code=getattr(error, "code", "timeout"))
        return None


def _queues(metrics: Metrics, stats: Sequence[QueueStats], now: datetime) -> None:
    jobs: dict[LabelValues, float] = {}
    kept: dict[LabelValues, float] = {}
    totals: dict[LabelValues, float] = {}
    shards: dict[LabelValues, float] = {}
    plain: dict[str, dict[LabelValues, float]] = {name: {} for name in _PLAIN}
    for queue in stats:
        for state in ("ready", "scheduled", "running", "waiting", "unworkable"):
            jobs[queue.name, state] = getattr(queue, state)
        kept.update({(queue.name, state): count for state, count in queue.kept.items()})
        totals.update({(queue.name, what): count for what, count in queue.totals.items()})
        shards.update({(queue.name, shard.name): shard.depth for shard in queue.shards})
        for name, read in _PLAIN.items():
            plain[name][queue.name,] = read(queue, now)
    metrics.replace("hostler_queue_jobs", jobs)
    metrics.replace("hostler_queue_kept_jobs", kept)
    metrics.replace("hostler_queue_shard_depth", shards)
    metrics.replace("hostler_queue_jobs_total", totals)
    for name, values in plain.items():
        metrics.replace(name, values)


def _oldest(queue: QueueStats, now: datetime) -> float:
    return max(0.0, (now - queue.oldest_ready_at).total_seconds()) if queue.oldest_ready_at else 0.0


_PLAIN: Final[dict[str, Callable[[QueueStats, datetime], float]]] = {
    "hostler_queue_payload_bytes": lambda queue, _: queue.bytes,
    "hostler_queue_oldest_ready_seconds": _oldest,
    "hostler_queue_paused": lambda queue, _: queue.paused,
    "hostler_queue_draining": lambda queue, _: queue.draining,
    "hostler_queue_lanes": lambda queue, _: queue.lanes,
    "hostler_queue_tenants": lambda queue, _: queue.tenants,
}


def _workers(metrics: Metrics, workers: Sequence[Worker]) -> None:
    states = Counter(str(worker.state) for worker in workers)
    metrics.replace("hostler_workers", {(state,): count for state, count in states.items()})
    metrics.replace("hostler_worker_slots", {(): sum(worker.slots for worker in workers)})
    metrics.replace("hostler_worker_running", {(): sum(worker.running for worker in workers)})


def _cache(metrics: Metrics, cache: CacheView | None) -> None:
    kinds = () if cache is None else cache.kinds
    told = {(each.kind, what): getattr(each, what) for each in kinds for what in ("hits", "misses", "waits", "kept")}
    metrics.replace("hostler_cache_jobs_total", told)
    metrics.replace("hostler_cache_entries", {} if cache is None else {(): cache.entries})
    metrics.replace("hostler_cache_bytes", {} if cache is None else {(): cache.bytes})


def _services(rows: Sequence[RegistryRow], workers: Sequence[Worker]) -> dict[str, bool]:
    """Return every known service and whether one of its endpoints is healthy."""
    health = {kind.service: False for row in rows for kind in row.kinds if kind.service}
    for worker in workers:
        for offer in worker.offers:
            if offer.service is not None:
                health[offer.service] = health.get(offer.service, False) or offer.healthy
    return health

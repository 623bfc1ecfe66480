"""Every metric and every log record that Hostler writes, by name, with its unit and meaning."""

from typing import Final, Literal

from msgspec import Struct

Kind = Literal["counter", "gauge", "histogram"]

FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; for calls."""
SLOW: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Seconds; for work."""


class MetricSpec(Struct, frozen=True, kw_only=True):
    """One metric family."""

    name: str
    kind: Kind
    unit: str
    """`s`, `B`, `1` for a plain number, `bool` for 0 or 1, `unix` for a moment in seconds since 1970."""
    about: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, in its unit."""


class LogSpec(Struct, frozen=True, kw_only=True):
    """One kind of log record."""

    name: str
    level: Literal["debug", "info", "warning", "error"]
    about: str
    fields: tuple[str, ...] = ()


def _counter(name: str, about: str, *labels: str) -> MetricSpec:
    return MetricSpec(name=name, kind="counter", unit="1", about=about, labels=labels)


def _gauge(name: str, unit: str, about: str, *labels: str) -> MetricSpec:
    return MetricSpec(name=name, kind="gauge", unit=unit, about=about, labels=labels)


def _histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> MetricSpec:
    return MetricSpec(name=name, kind="histogram", unit="s", about=about, labels=labels, buckets=buckets)


METRICS: Final[tuple[MetricSpec, ...]] = (
    _histogram(
        "job_duration_seconds",
        "Running time of the last attempt of jobs that ended; service is `none` for handlers.",
        SLOW,
        "service",
        "success",
    ),
    _counter(
        "jobs_total",
        "Jobs that ended: completed, failed (dead), cancelled, expired. From every event, not sampled.",
        "service",
        "status",
    ),
    _gauge("service_health", "bool", "1 while at least one endpoint of the service is healthy.", "service"),
    _gauge("hostler_build_info", "1", "Always 1; the version that runs.", "version"),
    _gauge(
        "hostler_counting_since_timestamp_seconds",
        "unix",
        "Since when the job counters of this process count; earlier jobs are in hostler_queue_jobs_total.",
    ),
    _gauge("hostler_engine_up", "bool", "1 while the engine answers."),
    _gauge("hostler_degraded", "bool", "1 while something is less safe than it should be; readyz says what."),
    _gauge("hostler_engine_pool_in_use", "1", "Connections to the engine in use now, by pool.", "pool"),
    _gauge("hostler_engine_pool_limit", "1", "Most connections to the engine, by pool.", "pool"),
    _gauge("hostler_engine_pool_waiting", "1", "Calls that wait for a connection now, by pool.", "pool"),
    _counter("hostler_engine_pool_waits_total", "Calls that had to wait for a connection, by pool.", "pool"),
    _counter("hostler_engine_pool_wait_seconds_total", "Time that calls waited for a connection, by pool.", "pool"),
    _counter("hostler_engine_pool_refused_total", "Calls that gave up waiting for a connection, by pool.", "pool"),
    _gauge(
        "hostler_queue_jobs",
        "1",
        "Jobs that have not ended, by state; unworkable ones are ready too.",
        "queue",
        "state",
    ),
    _gauge("hostler_queue_kept_jobs", "1", "Jobs that have ended and are still kept in the engine.", "queue", "state"),
    _gauge("hostler_queue_payload_bytes", "B", "Payload bytes of jobs that have not ended.", "queue"),
    _gauge(
        "hostler_queue_oldest_ready_seconds",
        "s",
        "Age of the job that has been ready the longest; 0 when none is.",
        "queue",
    ),
    _gauge("hostler_queue_paused", "bool", "1 while claims are stopped.", "queue"),
    _gauge("hostler_queue_draining", "bool", "1 while submits are refused.", "queue"),
    _gauge("hostler_queue_lanes", "1", "Distinct sets of needs that wait.", "queue"),
    _gauge("hostler_queue_tenants", "1", "Tenants with waiting jobs.", "queue"),
    _gauge("hostler_queue_shard_depth", "1", "Jobs that have not ended in a shard of a queue.", "queue", "shard"),
    _counter(
        "hostler_queue_jobs_total",
        "What happened to jobs since the queue began, as the engine counts.",
        "queue",
        "what",
    ),
    _gauge("hostler_workers", "1", "Live workers, by state.", "state"),
    _gauge("hostler_worker_slots", "1", "Slots of all live workers."),
    _gauge("hostler_worker_running", "1", "Jobs that live workers run now."),
    _counter(
        "hostler_cache_jobs_total",
        "Jobs of kinds with a cache, as the engine counts: hits, misses (had to run), waits, kept (results put there).",
        "kind",
        "what",
    ),
    _gauge("hostler_cache_entries", "1", "Results that are kept for equal jobs."),
    _gauge("hostler_cache_bytes", "B", "Bytes of kept results, without the blobs that they refer to."),
    _counter("hostler_job_events_total", "Events read from the queues' streams.", "queue", "type"),
    _counter("hostler_tail_gaps_total", "Times that events were gone before this process could read them.", "queue"),
    _gauge("hostler_tail_offset", "1", "Offset of the last event read.", "queue"),
    _histogram(
        "hostler_http_request_seconds", "Requests answered, by route template.", FAST, "method", "route", "status"
    ),
    _gauge("hostler_http_streams", "1", "Long polls and event streams open now.", "kind"),
    _histogram(
        "hostler_port_seconds",
        "Calls through a port; outcome is `ok` or an error code.",
        FAST,
        "port",
        "verb",
        "outcome",
    ),
    _counter(
        "hostler_provider_answers_total",
        "Questions to a provider; outcome is `ok`, `cancelled` or an error code.",
        "provider",
        "verb",
        "outcome",
    ),
    _histogram(
        "hostler_provider_answer_seconds", "Time of a question, a load and a wait included.", FAST, "provider", "verb"
    ),
    _gauge("hostler_provider_state", "bool", "1 for the state that a provider is in.", "provider", "state"),
    _gauge("hostler_provider_memory_bytes", "B", "What a provider has loaded, where it can be counted.", "provider"),
    _gauge("hostler_provider_load_seconds", "s", "How long the last load of a provider took.", "provider"),
    _gauge("hostler_provider_error_ratio", "1", "Share of a provider's last 200 answers that failed.", "provider"),
    _gauge("hostler_provider_in_flight", "1", "Questions that a provider works on now.", "provider"),
    _gauge("hostler_provider_waiting", "1", "Questions that wait for a thread of a provider.", "provider"),
)
"""The seeds' three names as their dashboards read them, then Hostler's own."""

LOGS: Final[tuple[LogSpec, ...]] = (
    LogSpec(name="gateway.listening", level="info", about="The gateway takes requests.", fields=("url",)),
    LogSpec(name="gateway.stopped", level="info", about="The gateway has closed its streams and its socket."),
    LogSpec(
        name="http.request",
        level="debug",
        about="One request was answered.",
        fields=("method", "route", "status", "duration_s", "request_id"),
    ),
    LogSpec(
        name="http.defect",
        level="error",
        about="A request ran into a defect of Hostler; the caller got a 500 with this request id.",
        fields=("method", "route", "request_id", "error"),
    ),
    LogSpec(
        name="tail.gap",
        level="warning",
        about="Events of a queue were gone before they could be read; counters miss them, readers look again.",
        fields=("queue", "after", "next"),
    ),
    LogSpec(
        name="upkeep.failing",
        level="warning",
        about="A background task of the gateway cannot do its work; it tries again.",
        fields=("task", "error", "code"),
    ),
    LogSpec(
        name="limit.granted",
        level="debug",
        about="Shared limits let a call go; `granted_at` is by the engine's clock.",
        fields=("job", "granted_at", "wants"),
    ),
    LogSpec(name="provider.loading", level="info", about="A provider is loaded.", fields=("provider",)),
    LogSpec(
        name="provider.ready",
        level="info",
        about="A provider takes questions.",
        fields=("provider", "seconds", "memory_bytes"),
    ),
    LogSpec(
        name="provider.failed",
        level="warning",
        about="A provider could not be loaded; it is tried again when it is next needed, unless a package is absent.",
        fields=("provider", "error"),
    ),
    LogSpec(
        name="provider.defect",
        level="error",
        about="A provider raised what it should not; the caller got a 500 with this request id.",
        fields=("path", "error", "trace"),
    ),
    LogSpec(name="upkeep.recovered", level="info", about="A background task works again.", fields=("task",)),
)
"""Names are `<part>.<what happened>`; a record has one of these names or comes from a library."""


def metric(name: str) -> MetricSpec:
    """Return the row of a metric; `KeyError` when there is none."""
    return _BY_NAME[name]


_BY_NAME: Final = {spec.name: spec for spec in METRICS}

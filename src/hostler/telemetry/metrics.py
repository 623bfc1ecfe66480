"""Metrics of one process: every series is declared in the catalogue, and none exists twice."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hostler.kernel.errors import AddressInUseError
from hostler.kernel.units import Port
from hostler.telemetry.catalogue import MetricSpec, metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

LabelValues = tuple[str, ...]
"""Values of a metric's labels, in the catalogue's order."""


class _Snapshots(Collector):
    """Families whose whole content is replaced at once, so that what is gone does not linger."""

    def __init__(self) -> None:
        self._values: dict[str, dict[LabelValues, float]] = {}

    def replace(self, name: str, values: Mapping[LabelValues, float]) -> None:
        self._values[name] = dict(values)

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        for name, values in self._values.items():
            spec = metric(name)
            shape = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
            family = shape(name, spec.about, labels=spec.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


class Metrics:
    """All series of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self._live: dict[str, Counter | Gauge | Histogram] = {}
        self._snapshots = _Snapshots()
        self.registry.register(self._snapshots)

    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Add `by` (not negative) to a counter."""
        self._counter(metric(name)).labels(*labels).inc(by)

    def observe(self, name: str, *labels: str, value: float) -> None:
        """Add one observation, in the metric's unit, to a histogram."""
        self._histogram(metric(name)).labels(*labels).observe(value)

    def move(self, name: str, *labels: str, by: float) -> None:
        """Raise or lower a gauge."""
        self._gauge(metric(name)).labels(*labels).inc(by)

    def replace(self, name: str, values: Mapping[LabelValues, float]) -> None:
        """Set a whole family at once: label values that are not in `values` disappear."""
        self._snapshots.replace(name, values)

    def render(self) -> bytes:
        """Return every series in the Prometheus text format."""
        return generate_latest(self.registry)

    def _counter(self, spec: MetricSpec) -> Counter:
        found = self._live.get(spec.name)
        if not isinstance(found, Counter):
            found = Counter(spec.name, spec.about, spec.labels, registry=self.registry)
            self._live[spec.name] = found
        return found

    def _gauge(self, spec: MetricSpec) -> Gauge:
        found = self._live.get(spec.name)
        if not isinstance(found, Gauge):
            found = Gauge(spec.name, spec.about, spec.labels, registry=self.registry)
            self._live[spec.name] = found
        return found

    def _histogram(self, spec: MetricSpec) -> Histogram:
        found = self._live.get(spec.name)
        if not isinstance(found, Histogram):
            found = Histogram(spec.name, spec.about, spec.labels, registry=self.registry, buckets=spec.buckets)
            self._live[spec.name] = found
        return found


@contextmanager
def exported(metrics: Metrics, port: Port | None) -> Generator[None]:
    """Serve `/metrics` of this process on loopback while the block runs; nothing when `port` is None.

    `AddressInUseError` when somebody listens there.
    """
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=metrics.registry)
    except OSError as error:
        raise AddressInUseError(
            f"Metrics cannot be served on 127.0.0.1:{port}: {error.strerror}. Choose another --metrics-port.",
            address=f"127.0.0.1:{port}",
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

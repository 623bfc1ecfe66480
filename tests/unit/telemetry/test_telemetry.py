"""Logs of one shape without secrets; metrics that are declared; a wrapper that measures and changes nothing."""

import io
import json
import logging
import socket
import urllib.request
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from hostler.kernel.errors import AddressInUseError, NotFoundError
from hostler.kernel.settings import LogSettings
from hostler.telemetry.catalogue import LOGS, METRICS, metric
from hostler.telemetry.logs import HIDDEN, configure, logger
from hostler.telemetry.metrics import Metrics, exported
from hostler.telemetry.observed import observed


@pytest.fixture
def records() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure(LogSettings(level="info", format="json"), role="gateway", stream=stream)
    yield stream
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers, root.level = handlers, level


@pytest.mark.row("002:246", "003:308")
def test_every_record_is_one_line_of_json_with_the_same_head(records: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        logger("gateway").info("gateway.listening", url="http://127.0.0.1:1")
    logging.getLogger("some.library").warning("old %s", "style")
    logger("gateway").debug("http.request")
    try:
        int("broken")
    except ValueError:
        logger("gateway").exception("http.defect")
    first, second, third = (json.loads(line) for line in records.getvalue().splitlines())
    assert list(first)[:5] == ["at", "level", "event", "role", "logger"]
    assert (first["event"], first["request_id"], first["role"]) == ("gateway.listening", "r1", "gateway")
    assert (second["event"], second["level"], second["logger"]) == ("old style", "warning", "some.library")
    assert "ValueError: invalid literal" in third["exception"]


def test_no_record_shows_a_secret(records: io.StringIO) -> None:
    logger("gateway").info(
        "gateway.listening",
        api_key="sesame",
        Authorization="Basic abc",
        header="Bearer abcdef",
        url="redis://user:sesame@host/0",
        text="key sk-abcdefghijklmnop0123 used",
    )
    text = records.getvalue()
    assert "sesame" not in text
    assert "abcdef" not in text
    assert text.count(HIDDEN) == 5


@pytest.mark.row("002:242")
def test_every_name_of_the_catalogue_is_there_once_and_well_formed() -> None:
    names = [spec.name for spec in METRICS]
    assert len(set(names)) == len(names)
    assert {"job_duration_seconds", "jobs_total", "service_health"} <= set(names)
    for spec in METRICS:
        assert spec.name.endswith("_total") == (spec.kind == "counter"), spec.name
        assert spec.name.endswith("_seconds") or spec.unit != "s", spec.name
        assert bool(spec.buckets) == (spec.kind == "histogram")
        assert spec.about.endswith(".")
    assert len({spec.name for spec in LOGS}) == len(LOGS)
    assert metric("jobs_total").labels == ("service", "status")


def test_a_family_is_replaced_as_a_whole_and_an_unknown_name_is_refused() -> None:
    metrics = Metrics()
    metrics.replace("hostler_workers", {("ready",): 2, ("busy",): 1})
    metrics.replace("hostler_workers", {("busy",): 3})
    metrics.count("jobs_total", "none", "completed")
    text = metrics.render().decode()
    assert 'hostler_workers{state="busy"} 3.0' in text
    assert 'state="ready"' not in text
    assert 'jobs_total{service="none",status="completed"} 1.0' in text
    with pytest.raises(KeyError):
        metrics.count("invented_total")


def test_a_process_serves_its_metrics_on_loopback_while_it_runs() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUseError, match="metrics-port"), exported(Metrics(), port):
            pass
    metrics = Metrics()
    metrics.count("jobs_total", "none", "completed")
    with exported(metrics, port), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert b"jobs_total" in answer.read()
    with exported(metrics, None):
        pass


class Port:
    limit = 3

    async def get(self, name: str, *, times: int = 1) -> str:
        """Return a name."""
        if not name:
            raise NotFoundError("nobody")
        return name * times

    async def each(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            if number == self.limit:
                raise NotFoundError("over")
            yield number


async def test_a_measured_port_behaves_as_before_and_tells_how_each_call_ended() -> None:
    metrics = Metrics()
    port = observed(Port(), port="test", metrics=metrics)
    assert await port.get("a", times=2) == "aa"
    assert port.limit == 3
    with pytest.raises(NotFoundError, match="nobody"):
        await port.get("")
    assert [number async for number in port.each(2)] == [0, 1]
    with pytest.raises(NotFoundError):
        [number async for number in port.each(9)]

    def count(verb: str, outcome: str) -> float | None:
        labels = {"port": "test", "verb": verb, "outcome": outcome}
        return metrics.registry.get_sample_value("hostler_port_seconds_count", labels)

    assert (count("get", "ok"), count("get", "not-found")) == (1, 1)
    assert (count("each", "ok"), count("each", "not-found")) == (1, 1)

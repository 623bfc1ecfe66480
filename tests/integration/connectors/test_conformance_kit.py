"""The conformance kit finds planted defects, and works for connectors that are not ours."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import ClassVar

import pytest
from msgspec import Raw, structs

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.services.simulation.simulation_http import SimulationHttpConnector
from hostler.contracts.job import Progress
from hostler.contracts.service import Finished, Probe, RemoteRef, RemoteState, ServiceCall, Step
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Work
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs


class TwoEnds(SimulationHttpConnector):
    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        async for step in super().observe(call, ref):
            yield step
            if isinstance(step, Finished):
                yield step


class NoEnd(SimulationHttpConnector):
    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        async for step in super().observe(call, ref):
            if isinstance(step, Progress):
                yield step


class Backwards(SimulationHttpConnector):
    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        async for step in super().observe(call, ref):
            fraction = step.fraction if isinstance(step, Progress) else None
            yield step if fraction is None else structs.replace(step, fraction=1.0 - fraction)


class OtherResult(SimulationHttpConnector):
    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        async for step in super().observe(call, ref):
            yield Finished(result=Raw(b'{"surprise": 1}')) if isinstance(step, Finished) else step


class RaisingProbe(SimulationHttpConnector):
    async def probe(self) -> Probe:
        await self.capabilities()
        return await super().probe()


class Guesser(SimulationHttpConnector):
    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        await super().reconcile(ref)
        return RemoteState.SUCCEEDED


class Boaster(SimulationHttpConnector):
    async def cancel(self, ref: RemoteRef) -> bool:
        return bool(ref)


class Forgetful(SimulationHttpConnector):
    async def release(self, ref: RemoteRef) -> None:
        return


class Leaky(SimulationHttpConnector):
    left: ClassVar[list[asyncio.Task[bool]]] = []

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__(config)
        self.left.append(asyncio.create_task(asyncio.Event().wait()))


DEFECTS = [
    (TwoEnds, "test_work_ends_in_exactly_one_end_after_progress_that_only_rises"),
    (NoEnd, "test_work_ends_in_exactly_one_end_after_progress_that_only_rises"),
    (Backwards, "test_work_ends_in_exactly_one_end_after_progress_that_only_rises"),
    (OtherResult, "test_work_ends_in_exactly_one_end_after_progress_that_only_rises"),
    (RaisingProbe, "test_a_probe_says_how_the_endpoint_is_and_never_raises"),
    (Guesser, "test_reconcile_tells_the_truth_and_fetch_gives_the_same_end"),
    (Guesser, "test_an_endpoint_that_is_not_there_is_a_failure_with_a_class"),
    (Boaster, "test_cancel_stops_the_work_and_its_observer_learns_it"),
    (Boaster, "test_another_connector_learns_of_the_work_or_says_that_it_cannot"),
    (Forgetful, "test_release_is_idempotent_and_forgets"),
    (Leaky, "test_closing_leaves_nothing_open"),
]


@pytest.fixture
async def service() -> AsyncGenerator[SimulationHTTPService]:
    async with SimulationHTTPService(SimKnobs(duration=0.1, steps=4)) as service:
        yield service


def harness(service: SimulationHTTPService, defective: type[SimulationHttpConnector]) -> ConnectorHarness:
    def build(url: str) -> SimulationHttpConnector:
        return defective(ConnectorConfig(url=url, endpoint="e", options={"poll": 0.1}))

    prompt = {"prompt": "a lighthouse"}
    return ConnectorHarness(
        build=lambda: build(service.url),
        unreachable=lambda: build("http://127.0.0.1:9"),
        quick=Work(kind="image.generate", payload=prompt),
        slow=Work(kind="image.generate", payload={**prompt, "duration": 20.0}),
        wrong=Work(kind="image.generate", payload={}),
        remembers=True,
    )


@pytest.mark.row("000:31")
@pytest.mark.parametrize(("defective", "promise"), DEFECTS)
async def test_a_planted_defect_breaks_its_promise(
    service: SimulationHTTPService, defective: type[SimulationHttpConnector], promise: str
) -> None:
    kit = ConnectorConformance()
    kit.cycles = 5
    with pytest.raises(Exception):  # noqa: B017 - an assertion, an empty list or the planted error itself
        await asyncio.wait_for(getattr(kit, promise)(harness(service, defective)), 8)
    for task in Leaky.left:
        task.cancel()
    await asyncio.gather(*Leaky.left, return_exceptions=True)
    Leaky.left.clear()


@pytest.mark.parametrize("promise", sorted({promise for _, promise in DEFECTS}))
async def test_the_same_promises_hold_without_a_defect(service: SimulationHTTPService, promise: str) -> None:
    kit = ConnectorConformance()
    kit.cycles = 5
    await getattr(kit, promise)(harness(service, SimulationHttpConnector))


PLUGIN = """
    from hostler.connectors.services.simulation.simulation_http import SimulationHttpConnector

    class LighthouseHttpConnector(SimulationHttpConnector):
        name = "lighthouse-http"
        service = "lighthouse"
"""
PLUGIN_TEST = """
    import pytest
    from hostler.connectors.catalogue import broken_connectors, build, connector_names
    from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Work
    from hostler.testing.sims.http import SimulationHTTPService
    from hostler.testing.sims.knobs import SimKnobs

    def test_it_is_discovered():
        assert "lighthouse-http" in connector_names()
        assert [one.name for one in broken_connectors()] == ["dark-http"]

    class TestLighthouse(ConnectorConformance):
        cycles = 5

        @pytest.fixture
        async def harness(self):
            async with SimulationHTTPService(SimKnobs(duration=0.1, steps=4)) as service:
                prompt = {"prompt": "x"}
                yield ConnectorHarness(
                    build=lambda: build("lighthouse-http", url=service.url, options={"poll": 0.1}),
                    unreachable=lambda: build("lighthouse-http", url="http://127.0.0.1:9"),
                    quick=Work(kind="image.generate", payload=prompt),
                    slow=Work(kind="image.generate", payload={**prompt, "duration": 20.0}),
                    wrong=Work(kind="image.generate", payload={}),
                    remembers=True,
                )
"""
ENTRY_POINTS = """
    [hostler.connectors]
    lighthouse-http = lighthouse:LighthouseHttpConnector
    dark-http = absent_module:DarkHttpConnector
"""


@pytest.mark.timeout(150)
@pytest.mark.row("000:41", "002:113")
async def test_a_package_of_somebody_else_passes_the_shipped_kit_without_an_edit_in_hostler(tmp_path: Path) -> None:
    metadata = tmp_path / "lighthouse-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lighthouse\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(textwrap.dedent(ENTRY_POINTS))
    (tmp_path / "lighthouse.py").write_text(textwrap.dedent(PLUGIN))
    (tmp_path / "test_lighthouse.py").write_text(textwrap.dedent(PLUGIN_TEST))
    found = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-p", "pytest_asyncio.plugin", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-3000:]
    assert " passed" in found.stdout

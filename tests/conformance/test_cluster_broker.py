"""The broker keeps every promise on a cluster too, where a restart is a fail-over and queues lie on three primaries."""

import asyncio
from collections.abc import AsyncGenerator, Generator

import pytest

from hostler.testing.broker import BrokerConformance, BrokerHarness, House
from hostler.testing.broker_engine import QUEUES, cluster_harness
from hostler.testing.broker_lease import LeasePromises
from hostler.testing.cluster_set import ClusterSet


@pytest.fixture(scope="module")
def nodes() -> Generator[ClusterSet]:
    found = ClusterSet()
    try:
        asyncio.run(found.start())
        yield found
    finally:
        asyncio.run(found.end())


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Let the harness start servers where the loop runs: they are no part of what is tested."""


@pytest.mark.row("003:293")
@pytest.mark.long
class TestClusterBroker(BrokerConformance):
    @pytest.fixture
    async def harness(self, nodes: ClusterSet) -> AsyncGenerator[BrokerHarness]:
        async with cluster_harness(nodes) as found:
            yield found


class TestClusterLeases(LeasePromises):
    """What a fail-over may break, in every run."""

    @pytest.fixture
    async def house(self, harness: BrokerHarness) -> House:
        house = House(harness)
        await house.open()
        return house

    @pytest.fixture
    async def harness(self, nodes: ClusterSet) -> AsyncGenerator[BrokerHarness]:
        async with cluster_harness(nodes) as found:
            yield found


async def test_the_queues_of_the_suite_lie_on_all_primaries(nodes: ClusterSet) -> None:
    primaries = {(await nodes.primary_of(queue)).port for queue in QUEUES}
    assert len(primaries) == 3

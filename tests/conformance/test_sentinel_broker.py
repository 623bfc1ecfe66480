"""The broker keeps every promise behind sentinels too, where a restart is a fail-over."""

import asyncio
from collections.abc import AsyncGenerator, Generator

import pytest

from hostler.chaos.sentinel_set import SentinelSet
from hostler.testing.broker import BrokerConformance, BrokerHarness, House
from hostler.testing.broker_engine import sentinel_harness
from hostler.testing.broker_lease import LeasePromises


@pytest.fixture(scope="module")
def sentinels() -> Generator[SentinelSet]:
    found = SentinelSet()
    try:
        asyncio.run(found.start())
        yield found
    finally:
        asyncio.run(found.end())


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Let the harness start servers where the loop runs: they are no part of what is tested."""


@pytest.mark.long
class TestSentinelBroker(BrokerConformance):
    @pytest.fixture
    async def harness(self, sentinels: SentinelSet) -> AsyncGenerator[BrokerHarness]:
        async with sentinel_harness(sentinels) as found:
            yield found


class TestSentinelLeases(LeasePromises):
    """What a fail-over may break, in every run."""

    @pytest.fixture
    async def house(self, harness: BrokerHarness) -> House:
        house = House(harness)
        await house.open()
        return house

    @pytest.fixture
    async def harness(self, sentinels: SentinelSet) -> AsyncGenerator[BrokerHarness]:
        async with sentinel_harness(sentinels) as found:
            yield found

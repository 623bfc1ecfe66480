"""The model keeps every promise that it is the reference for."""

import pytest

from hostler.broker.model import ModelBroker
from hostler.testing.broker import BrokerConformance, BrokerHarness
from hostler.testing.clock import FakeClock


class TestModelBroker(BrokerConformance):
    @pytest.fixture
    async def harness(self) -> BrokerHarness:
        clock = FakeClock()
        broker = ModelBroker(clock)

        async def advance(seconds: float) -> None:
            clock.advance(seconds)

        async def restart() -> None:
            broker.restart()

        return BrokerHarness(
            broker=broker,
            desk=broker,
            foreman=broker,
            registry=broker,
            now=clock.now,
            advance=advance,
            restart=restart,
        )

"""A broker that is measured from outside keeps every promise of the one inside."""

import pytest

from hostler.broker.model import ModelBroker
from hostler.telemetry.metrics import Metrics
from hostler.telemetry.observed import observed
from hostler.testing.broker import BrokerConformance, BrokerHarness
from hostler.testing.clock import FakeClock


class TestObservedBroker(BrokerConformance):
    @pytest.fixture
    async def harness(self) -> BrokerHarness:
        clock = FakeClock()
        broker = ModelBroker(clock)
        metrics = Metrics()

        async def advance(seconds: float) -> None:
            clock.advance(seconds)

        async def restart() -> None:
            broker.restart()

        return BrokerHarness(
            broker=observed(broker, port="broker", metrics=metrics),
            desk=observed(broker, port="desk", metrics=metrics),
            foreman=observed(broker, port="foreman", metrics=metrics),
            registry=observed(broker, port="registry", metrics=metrics),
            now=clock.now,
            advance=advance,
            restart=restart,
        )

"""A fabric on the model broker, for tests of this folder."""

import pytest

from hostler.broker.model import ModelBroker
from hostler.testing.fabric import Fabric, Ports
from hostler.worker.system import SystemClock


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(Ports.of(ModelBroker(clock=SystemClock())))

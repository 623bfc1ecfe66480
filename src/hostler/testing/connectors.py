"""The executable promise of the connector port: one class for every connector, of Hostler or of others."""

import pytest

from hostler.testing.connectors_house import (
    ConnectorHarness,
    Hook,
    Work,
    call_of,
    failure_of,
    steps_of,
    submitted,
)
from hostler.testing.connectors_promises import TroublePromises, WorkPromises


class ConnectorConformance(WorkPromises, TroublePromises):
    """Subclass it, override `harness`, and every promise is a test."""

    @pytest.fixture
    async def harness(self) -> ConnectorHarness:
        """Return (or yield) a fresh service."""
        raise NotImplementedError("override the fixture `harness`")


__all__ = ["ConnectorConformance", "ConnectorHarness", "Hook", "Work", "call_of", "failure_of", "steps_of", "submitted"]

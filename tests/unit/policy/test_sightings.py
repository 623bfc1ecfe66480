"""What is said of how an endpoint became known."""

from datetime import UTC, datetime

import msgspec

from hostler.contracts.service import Endpoint, EndpointState, Source
from hostler.policy.sightings import found_by

LAMP = Endpoint(
    id="lamp",
    service="s",
    connector="s-http",
    url="http://h",
    protocol="http",
    state=EndpointState.READY,
    message="",
    seen_at=datetime(2026, 11, 24, 9, 0, tzinfo=UTC),
    source=Source.CONVENTION,
)


def test_a_command_has_no_port_by_convention() -> None:
    assert "by convention" in found_by(LAMP)
    command = msgspec.structs.replace(LAMP, connector="process", protocol="process", url="process:/lamp")
    assert found_by(command) == "it is a command that its worker runs on its own machine"

"""Every port has one conformance class, and every adapter of it is put through that class."""

import ast
import re
from pathlib import Path

import pytest

from hostler.testing.blobs import BlobsConformance
from hostler.testing.broker import BrokerConformance
from hostler.testing.connectors import ConnectorConformance
from hostler.testing.endpoints import DiscoveryConformance, EndpointConformance
from hostler.testing.limits import LimiterConformance
from hostler.testing.results import ResultsConformance
from hostler.testing.time_and_chance import ClockConformance, DiceConformance

ROOT = Path(__file__).resolve().parents[2]
SUITES: dict[str, type] = {
    "Broker": BrokerConformance,
    "Desk": BrokerConformance,
    "Foreman": BrokerConformance,
    "Registry": BrokerConformance,
    "Connector": ConnectorConformance,
    "EndpointRegistry": EndpointConformance,
    "Discovery": DiscoveryConformance,
    "Limiter": LimiterConformance,
    "Blobs": BlobsConformance,
    "Results": ResultsConformance,
    "Clock": ClockConformance,
    "Dice": DiceConformance,
}
SUBJECTS = {
    "BrokerConformance": {"TestEngineBroker", "TestModelBroker", "TestObservedBroker", "TestRedisBroker"},
    "ConnectorConformance": {
        "TestDirectHttpJsonConnector",
        "TestFollowedHttpJsonConnector",
        "TestInferenceGrpcConnector",
        "TestInferenceHttpConnector",
        "TestLimitedConnector",
        "TestNlpHttpConnector",
        "TestOllamaHttpConnector",
        "TestOpenaiHttpConnector",
        "TestPolledHttpJsonConnector",
        "TestProcessConnector",
        "TestServedProcessConnector",
        "TestSimulationGrpcConnector",
        "TestSimulationHttpConnector",
        "TestSimulationWebsocketConnector",
    },
    "EndpointConformance": {"TestEngineEndpoints"},
    "DiscoveryConformance": {"TestEngineDiscovery"},
    "LimiterConformance": {"TestEngineLimiter"},
    "BlobsConformance": {"TestFolder", "TestS3"},
    "ResultsConformance": {"TestEngineResults"},
    "ClockConformance": {"TestSystemClock", "TestFakeClock"},
    "DiceConformance": {"TestSystemDice", "TestSeededDice"},
}


TRANSPORTS = ROOT / "src/hostler/connectors/transports"


def ports() -> set[str]:
    return {
        node.name
        for path in (ROOT / "src/hostler/ports").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases)
    }


@pytest.mark.row("000:31")
def test_every_port_has_one_conformance_class() -> None:
    assert ports() == set(SUITES)


@pytest.mark.row("000:31")
@pytest.mark.parametrize("suite", sorted(SUBJECTS))
def test_every_adapter_wrapper_and_fake_is_put_through_its_suite(suite: str) -> None:
    assert classes_tested_by(suite) >= SUBJECTS[suite]


@pytest.mark.row("001:196")
def test_every_transport_is_put_through_the_suite_of_transports() -> None:
    transports = {
        name
        for path in TRANSPORTS.glob("*.py")
        for name in re.findall(r"^class (\w+Transport)\b(?!\(Protocol)", path.read_text(), re.MULTILINE)
    }
    assert transports >= {"HttpTransport", "WebsocketTransport"}
    assert classes_tested_by("TransportConformance") >= {f"Test{name}" for name in transports}


def classes_tested_by(suite: str) -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).split("[")[0] == suite for base in node.bases)
    }

"""Connector, transport, endpoint and provider are four things, and there is one interface of connectors."""

import json
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES, TRANSPORTS, PROVIDERS = (
    "hostler.connectors.services",
    "hostler.connectors.transports",
    "hostler.providers",
)
OTHER_VERBS = '''
from hostler.ports.connector import Connector
from hostler.connectors.services.simulation.simulation_http import SimulationHttpConnector


class Enricher:
    """Has the verbs of another time."""

    name = service = endpoint = "enricher"

    async def execute(self, payload: bytes) -> bytes: return payload
    async def enrich_field(self, field: str) -> str: return field
    async def process(self, item: str) -> str: return item


def right(one: SimulationHttpConnector) -> Connector: return one
def wrong(one: Enricher) -> Connector: return one
'''


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


@pytest.fixture(scope="module")
def imports() -> list[tuple[str, str]]:
    """Return who imports whom, module by module."""
    graph = grimp.build_graph("hostler", cache_dir=None)
    return [
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    ]


@pytest.mark.row("002:132")
def test_a_class_with_other_verbs_is_no_connector(tmp_path: Path) -> None:
    file = tmp_path / "enricher.py"
    file.write_text(OTHER_VERBS)
    words = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(file)]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    errors = [one for one in json.loads(found.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    (error,) = [one for one in errors if one["rule"] == "reportReturnType"]
    assert '"Enricher" is incompatible with protocol "Connector"' in error["message"]
    assert error["range"]["start"]["line"] == OTHER_VERBS.splitlines().index(
        "def wrong(one: Enricher) -> Connector: return one"
    )


@pytest.mark.row("002:280")
def test_a_service_is_known_to_its_own_folder_only(imports: list[tuple[str, str]]) -> None:
    strangers = [
        (importer, imported)
        for importer, imported in imports
        if within(imported, SERVICES)
        and imported != SERVICES
        and not within(importer, ".".join(imported.split(".")[:4]))
        and not within(importer, "hostler.testing")
    ]
    assert strangers == []


@pytest.mark.row("002:280")
def test_a_transport_knows_no_service_and_only_services_know_transports(imports: list[tuple[str, str]]) -> None:
    assert [pair for pair in imports if within(pair[0], TRANSPORTS) and within(pair[1], SERVICES)] == []
    rooms = {importer.split(".")[1] for importer, imported in imports if within(imported, TRANSPORTS)}
    assert rooms <= {"connectors", "testing", "cli"}


@pytest.mark.row("002:280")
def test_providers_of_models_and_connectors_know_nothing_of_each_other(imports: list[tuple[str, str]]) -> None:
    between = [
        (importer, imported)
        for importer, imported in imports
        if (within(importer, PROVIDERS) and within(imported, "hostler.connectors"))
        or (within(importer, "hostler.connectors") and within(imported, PROVIDERS))
    ]
    assert between == []
    assert {importer.split(".")[1] for importer, imported in imports if within(imported, PROVIDERS)} <= {
        "providers",
        "cli",
        "testing",
    }


@pytest.mark.row("002:280")
@pytest.mark.parametrize("word", ["connector", "transport", "endpoint", "provider"])
def test_each_of_the_four_has_one_meaning_in_the_glossary(word: str) -> None:
    rows = [line for line in (ROOT / "docs/glossary.md").read_text().splitlines() if line.startswith(f"| {word} |")]
    assert len(rows) == 1

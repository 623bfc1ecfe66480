"""Folder, file, class, configuration and simulator name derive from one another."""

import re
from pathlib import Path

import pytest

import hostler.testing.sims
from hostler.connectors import services
from hostler.connectors.catalogue import (
    GENERIC,
    INSTALLED,
    NAME,
    OLD_NAMES,
    TRANSPORTS,
    class_name,
    configuration_name,
    service_of,
    shipped_modules,
)
from hostler.connectors.config import ConnectorConfig
from hostler.contracts.queue import KindSpec
from hostler.kernel.units import Json

FOLDER = Path(services.__path__[0])
SIMS = Path(hostler.testing.sims.__path__[0])
OPTIONS: dict[str, dict[str, Json]] = {
    "http-json": {"kinds": [{"name": "any.thing", "submit": {"path": "/"}, "payload": {"type": "object"}}]},
    "process": {"command": ["cat"], "kinds": [{"name": "any.thing", "payload": {"type": "object"}}]},
}
"""What a connector for any service must be told before it is one."""
SPELLED = {"http": "HTTP", "grpc": "GRPC"}
"""Transports that a simulated service spells as an abbreviation; other names are words."""


@pytest.mark.row("000:21", "001:25", "001:203")
def test_every_connector_file_is_named_after_its_folder_and_transport() -> None:
    named = {
        (path.parent.name, path.stem)
        for path in FOLDER.rglob("*.py")
        if not path.stem.startswith("_") and ("_" in path.stem or path.stem in TRANSPORTS)
    }
    strangers = [f"{folder}/{stem}" for folder, stem in named if not follows(folder, stem)]
    assert strangers == []
    assert {tuple(module.split(".")[-2:]) for _, module in shipped_modules()} == named


def follows(folder: str, stem: str) -> bool:
    """Whether a file is `<service>_<transport>`, or, for any service, `<transport>` or `<transport>_<format>`."""
    if folder == GENERIC:
        return stem.partition("_")[0] in TRANSPORTS
    return stem in {f"{folder}_{transport}" for transport in TRANSPORTS}


@pytest.mark.row("000:21", "001:25")
def test_every_service_folder_holds_a_connector() -> None:
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert {service_of(name) or GENERIC for name, _ in shipped_modules()} == folders


@pytest.mark.row("000:21", "001:25", "001:31")
def test_class_name_and_configuration_name_derive_from_the_file() -> None:
    assert INSTALLED.broken == ()
    assert set(INSTALLED.names()) >= {name for name, _ in shipped_modules()}
    for name, found in INSTALLED.connectors.items():
        service = service_of(name)
        assert NAME.match(name)
        assert found.__name__ == class_name(name)
        assert configuration_name(found.__name__) == name
        assert (found.name, found.service) == (name, service or name)
        if found.__module__.startswith(services.__name__):
            assert found.__module__ == f"{services.__name__}.{service or GENERIC}.{name.replace('-', '_')}"


@pytest.mark.row("000:21")
@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("simulation-http", "simulation"),
        ("open_inference-grpc", "open_inference"),
        ("process", None),
        ("http-json", None),
        ("http-process", None),
    ],
)
def test_a_name_says_its_service_or_that_it_is_for_any(name: str, service: str | None) -> None:
    assert NAME.match(name)
    assert service_of(name) == service


@pytest.mark.row("000:21")
@pytest.mark.parametrize(
    "name", ["simulation", "simulation-json", "http-", "-http", "Http", "http-json-lines", "http_json"]
)
def test_a_name_without_a_transport_in_its_place_is_none(name: str) -> None:
    assert NAME.match(name) is None


@pytest.mark.row("000:21")
def test_nothing_else_in_the_connectors_room_is_called_a_connector() -> None:
    room = FOLDER.parent
    known = {found.__name__ for found in INSTALLED.connectors.values()} | {"BrokenConnector"}
    classes = {
        name
        for path in room.rglob("*.py")
        for name in re.findall(r"^class (\w+Connector)\b", path.read_text(), re.MULTILINE)
    }
    assert classes == known


@pytest.mark.row("000:21")
def test_a_simulated_service_is_named_by_the_transport_it_speaks() -> None:
    transports = {name.removeprefix("simulation-") for name in INSTALLED.names() if name.startswith("simulation-")}
    simulators = {path.stem for path in SIMS.glob("*.py")} & set(TRANSPORTS)
    assert simulators == transports
    for transport in transports:
        text = (SIMS / f"{transport}.py").read_text()
        assert f"class Simulation{SPELLED.get(transport, transport.capitalize())}Service" in text
        assert f"async def serve_sim_{transport}(" in text


@pytest.mark.row("000:19", "001:31")
def test_old_names_lead_to_names_that_exist() -> None:
    assert set(OLD_NAMES.values()) <= set(INSTALLED.names())
    assert set(OLD_NAMES).isdisjoint(INSTALLED.names())


@pytest.mark.row("000:27")
def test_no_product_module_imports_a_simulator_or_knows_that_it_is_simulated() -> None:
    room = FOLDER.parents[1]
    rooms = ("kernel", "contracts", "policy", "ports", "telemetry", "valkeyio", "broker", "registry", "blobs")
    rooms += ("connectors", "worker", "gateway", "providers", "client")
    importers = [
        str(path.relative_to(room))
        for name in rooms
        for path in (room / name).rglob("*.py")
        if re.search(r"^\s*(from|import) hostler\.testing", path.read_text(), re.MULTILINE)
    ]
    assert importers == []


def test_kinds_of_connectors_are_declared_with_types_and_every_timeout() -> None:
    for name, found in INSTALLED.connectors.items():
        if found.__module__.startswith(services.__name__):
            url = "process:///any" if name == "process" else "http://127.0.0.1:9"
            connector = INSTALLED.build(name, url=url, options=OPTIONS.get(name))
            specs: tuple[KindSpec, ...] = connector.kinds()
            assert specs
            for spec in specs:
                assert (spec.declared_by, spec.service) == (name, found.service)
                assert spec.payload is not None
                limits = spec.timeouts
                assert None not in {limits.connect, limits.first_byte, limits.idle, limits.run}


def test_a_credential_is_not_shown_by_the_configuration_that_holds_it() -> None:
    config = ConnectorConfig(url="http://127.0.0.1:9", endpoint="e", api_key="sk-very-secret")
    assert "sk-very-secret" not in f"{config!r} {config}"

"""Connectors are found by name; what cannot be found or used says why."""

import platform
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hostler.connectors.catalogue import (
    GROUP,
    INSTALLED,
    Catalogue,
    build,
    class_name,
    configuration_name,
    connector_class,
    connector_names,
    endpoint_id,
)
from hostler.connectors.services.simulation.simulation_http import SimulationHttpConnector
from hostler.kernel.errors import InvalidError

FOREIGN = """
from hostler.connectors.services.simulation.simulation_http import SimulationHttpConnector

class LighthouseHttpConnector(SimulationHttpConnector):
    name = "lighthouse-http"
    service = "lighthouse"

class Misnamed(SimulationHttpConnector):
    name = "misnamed-http"

class WrongHttpConnector(SimulationHttpConnector):
    name = "right-http"

class BareHttpConnector:
    name = "bare-http"
    service = "bare"
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "lighthouse_plugin.py").write_text(FOREIGN)
    (tmp_path / "lighthouse_broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for module in ("lighthouse_plugin", "lighthouse_broken"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return "lighthouse_plugin"


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=GROUP)


@pytest.mark.row("000:19")
def test_simulation_http_is_simulation_http_connector() -> None:
    assert connector_class("simulation-http") is SimulationHttpConnector
    assert connector_class("SimulationHttpConnector") is SimulationHttpConnector
    assert {"simulation-http", "openai-http"} <= set(connector_names())


@pytest.mark.row("000:19")
def test_an_old_name_is_refused_with_the_new_one() -> None:
    with pytest.raises(InvalidError, match="simulation-http") as caught:
        connector_class("SimulationConnector")
    assert caught.value.facts["new"] == "simulation-http"


@pytest.mark.row("001:31")
def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidError, match="did you mean simulation-http") as caught:
        connector_class("simulaton-http")
    assert caught.value.facts["field"] == "connector"
    with pytest.raises(InvalidError, match=f"there are {', '.join(connector_names())}"):
        connector_class("zzzz")


@pytest.mark.row("000:41")
def test_a_package_of_somebody_else_brings_a_connector_without_an_edit(package: str) -> None:
    found = Catalogue.scan(points=[point("lighthouse-http", f"{package}:LighthouseHttpConnector")])
    connector = found.build("lighthouse-http", url="http://127.0.0.1:9")
    assert (connector.name, connector.service) == ("lighthouse-http", "lighthouse")
    assert set(found.names()) == {*INSTALLED.names(), "lighthouse-http"}


@pytest.mark.row("002:113")
def test_a_connector_that_fails_to_import_is_listed_with_its_reason_and_the_others_work(package: str) -> None:
    found = Catalogue.scan(points=[point("dark-http", "lighthouse_broken:DarkHttpConnector")])
    assert [(one.name, one.reason) for one in found.broken] == [
        ("dark-http", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'")
    ]
    assert found.names() == INSTALLED.names()
    with pytest.raises(InvalidError, match="dark-http is broken: ModuleNotFoundError"):
        found.connector_class("dark-http")


@pytest.mark.row("001:25", "000:21")
@pytest.mark.parametrize(
    ("name", "attribute", "reason"),
    [
        ("misnamed-http", "Misnamed", "is named MisnamedHttpConnector"),
        ("wrong-http", "WrongHttpConnector", "not 'wrong-http'"),
        ("bare-http", "BareHttpConnector", "lacks kinds, probe"),
        ("lighthouse", "LighthouseHttpConnector", "is not <service>-<transport>"),
        ("absent-http", "AbsentHttpConnector", "AbsentHttpConnector"),
        ("simulation-http", "LighthouseHttpConnector", "is there already"),
    ],
)
def test_a_name_that_does_not_fit_is_broken(package: str, name: str, attribute: str, reason: str) -> None:
    found = Catalogue.scan(points=[point(name, f"{package}:{attribute}")])
    assert [one.name for one in found.broken] == [name]
    assert reason in found.broken[0].reason
    assert found.names() == INSTALLED.names()


@pytest.mark.parametrize(
    ("name", "class_"),
    [
        ("simulation-http", "SimulationHttpConnector"),
        ("openai-http", "OpenaiHttpConnector"),
        ("comfyui-websocket", "ComfyuiWebsocketConnector"),
        ("open_inference-grpc", "OpenInferenceGrpcConnector"),
    ],
)
def test_names_derive_both_ways(name: str, class_: str) -> None:
    assert class_name(name) == class_
    assert configuration_name(class_) == name


@pytest.mark.parametrize(
    "text", ["SimulationConnector", "simulation-http", "Simulation HTTP Connector", "", "Connector"]
)
def test_a_text_off_the_convention_is_no_class_name(text: str) -> None:
    assert configuration_name(text) is None


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8299",
        "ftp://127.0.0.1",
        "http://",
        "http://user:secret@127.0.0.1",
        "http://127.0.0.1?x=1",
        "http://127.0.0.1/#x",
        "http://127.0.0.1:99999",
        "",
    ],
)
def test_a_url_that_cannot_work_is_refused_when_it_is_built(url: str) -> None:
    with pytest.raises(InvalidError) as caught:
        build("simulation-http", url=url)
    assert caught.value.facts["field"] == "url"


def test_options_are_judged_by_the_connectors_own_type() -> None:
    with pytest.raises(InvalidError, match="options of connector simulation-http"):
        build("simulation-http", url="http://127.0.0.1:9", options={"pol": 1})
    with pytest.raises(InvalidError, match=r"\$\.poll"):
        build("simulation-http", url="http://127.0.0.1:9", options={"poll": "often"})


def test_whoever_drives_one_url_names_the_endpoint_alike() -> None:
    first = build("simulation-http", url="http://127.0.0.1:8299")
    second = build("simulation-http", url="http://127.0.0.1:8299/")
    other = build("simulation-http", url="http://127.0.0.1:8300")
    assert first.endpoint == second.endpoint != other.endpoint
    assert build("simulation-http", url="http://127.0.0.1:8299", endpoint="mine").endpoint == "mine"
    assert endpoint_id("openai-http", "https://host/v1/") == "openai-http@host~v1"
    assert endpoint_id("process", "process:///upper/1") == f"process@{platform.node()}~upper~1"

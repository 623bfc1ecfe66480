"""SPEC: which connectors, and how many."""

import pytest

from hostler.kernel.settings import ConnectorSettings, Settings
from hostler.kernel.spec import moved_port, parse_spec, resolve_spec

KNOWN = ("simulation-http", "simulation-grpc", "openai-http")
SETTINGS = Settings(
    connectors={"chat": ConnectorSettings(connector="openai-http", url="http://[::1]:9000/v1", port_increment=10)},
    worker_types={"both": ("chat", "simulation-http")},
)


def urls(spec: str) -> list[str | None]:
    resolved, problems = resolve_spec(spec, name="--workers", settings=SETTINGS, known=KNOWN)
    assert problems == ()
    return [instance.settings.url for _, instances in resolved for instance in instances]


@pytest.mark.parametrize("spec", ["", "none", "  "])
def test_none_is_nothing(spec: str) -> None:
    assert parse_spec(spec) == ((), ())


def test_instances_follow_one_another_by_port() -> None:
    assert urls("simulation-http:2") == ["http://127.0.0.1:8299", "http://127.0.0.1:8300"]
    assert urls("chat:2") == ["http://[::1]:9000/v1", "http://[::1]:9010/v1"]
    assert urls("simulation-http#3") == ["http://127.0.0.1:8302"]
    assert urls("simulation-grpc#1") == ["http://127.0.0.1:8500"]
    assert urls("both") == ["http://[::1]:9000/v1", "http://127.0.0.1:8299"]


@pytest.mark.row("001:126")
def test_an_instance_at_a_port_of_the_convention_is_that_of_its_gpu_unless_its_entry_says_otherwise() -> None:
    settings = Settings(
        connectors={
            "mine": ConnectorSettings(connector="simulation-http", labels={"gpu": "a100"}),
            "far": ConnectorSettings(connector="simulation-http", url="http://sim.example.org:8299"),
        }
    )
    found: dict[str, list[str | None]] = {}
    for spec in ("simulation-http:3", "mine:2", "far:2"):
        resolved, _ = resolve_spec(spec, name="--workers", settings=settings, known=KNOWN)
        found[spec] = [one.settings.labels.get("gpu") for _, instances in resolved for one in instances]
    assert found == {"simulation-http:3": ["0", "1", "2"], "mine:2": ["a100", "a100"], "far:2": [None, None]}


@pytest.mark.row("001:31")
def test_an_unknown_name_is_refused_with_both_lists_and_every_problem_at_once() -> None:
    _, problems = resolve_spec("simulaton-http:2,nobody,chat:0,a b", name="--workers", settings=SETTINGS, known=KNOWN)
    assert len(problems) == 4
    unknown = next(problem for problem in problems if "simulaton" in problem)
    assert "worker type (both, chat)" in unknown
    assert "connector (openai-http, simulation-grpc, simulation-http)" in unknown
    assert "did you mean simulation-http" in unknown


def test_a_process_needs_no_address_and_each_instance_is_one_of_its_own() -> None:
    settings = Settings(connectors={"upper": ConnectorSettings(connector="process")})
    resolved, problems = resolve_spec("upper:2", name="--workers", settings=settings, known=("process",))
    assert problems == ()
    found = [instance.settings.url for _, instances in resolved for instance in instances]
    assert found == ["process:///upper", "process:///upper/1"]


def test_a_connector_without_an_address_is_refused_with_the_setting_to_make() -> None:
    _, problems = resolve_spec("openai-http", name="--workers", settings=SETTINGS, known=KNOWN)
    assert problems == ("--workers: openai-http has no address: set connectors.openai-http.url in hostler.toml",)


def test_the_port_of_a_url_moves_and_all_else_stays() -> None:
    assert moved_port("https://u:p@host/path?q=1", 2) == "https://u:p@host:445/path?q=1"
    assert moved_port("http://host:80/x", 0) == "http://host:80/x"

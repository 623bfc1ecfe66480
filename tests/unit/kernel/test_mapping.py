"""The prior broker's service-mapping.json and WORKERS string load as they are, or say all that is wrong."""

import json
from typing import Any

import pytest

from hostler.kernel.mapping import import_mapping
from hostler.kernel.sources import Reading, Sources, Text, read_settings
from hostler.kernel.spec import resolve_spec

KNOWN = ("simulation-http", "openai-http", "comfyui-websocket")


def sound() -> dict[str, Any]:
    """Return a file as the prior system has it, with what Hostler does not use left in."""
    return {
        "workers": {
            "simulation": {
                "services": ["simulation-http"],
                "is_gpu_bound": True,
                "scaling_strategy": "per_gpu",
                "job_service_required_map": [
                    {"job_service_required": "simulation", "worker_service": "simulation-http"}
                ],
            },
            "openai": {
                "services": ["openai-text", "openai-image"],
                "required_env": ["OPENAI_API_KEY"],
                "job_service_required_map": [
                    {"job_service_required": "openai_text", "worker_service": "openai-text"},
                    {"job_service_required": "openai_image", "worker_service": "openai-image"},
                ],
            },
        },
        "services": {
            "simulation-http": {
                "connector": "SimulationHttpConnector",
                "type": "pm2_service",
                "ports": ["8299"],
                "port_increment": 1,
                "build_stage": "simulation",
            },
            "openai-text": openai(),
            "openai-image": openai(),
        },
        "connectors": {
            "SimulationHttpConnector": {"path": "./redis-direct-worker.js", "description": "simulator"},
            "OpenaiHttpConnector": {"path": "./redis-direct-worker.js"},
        },
        "service_types": {"pm2_service": {"has_ports": True}},
        "machine_capabilities": {"gpu": {"detect": "nvidia-smi"}},
    }


def openai() -> dict[str, Any]:
    return {
        "connector": "OpenaiHttpConnector",
        "type": "external_api",
        "api_config": {
            "base_url": "${OPENAI_BASE_URL:-https://api.openai.com/v1}",
            "api_key": "${OPENAI_API_KEY}",
            "timeout": "${OPENAI_TIMEOUT:-60}",
        },
    }


def read(document: dict[str, Any], workers: str | None = None, **environment: str) -> Reading:
    if workers is not None:
        environment["WORKERS"] = workers
    return read_settings(
        Sources(
            mapping=Text(name="service-mapping.json", text=json.dumps(document)),
            environment=environment,
            connectors=KNOWN,
            renamed={"SimulationConnector": "simulation-http"},
        )
    )


@pytest.mark.row("000:51", "001:399")
def test_the_prior_file_and_workers_string_load_unedited() -> None:
    reading = read(sound(), "simulation:2,openai:1", OPENAI_API_KEY="secret")
    assert reading.problems == ()
    settings = reading.settings
    assert settings.workers == "simulation:2,openai:1"
    assert settings.worker_types == {"simulation": ("simulation-http",), "openai": ("openai-text", "openai-image")}
    chat = settings.connectors["openai-text"]
    assert (chat.connector, chat.url, chat.api_key_env) == (
        "openai-http",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
    )
    assert chat.labels == {"job_service:openai_text": "yes"}
    assert "secret" not in repr(settings)
    resolved, problems = resolve_spec(settings.workers, name="WORKERS", settings=settings, known=KNOWN)
    assert problems == ()
    assert [instance.settings.url for instance in resolved[0][1]] == ["http://127.0.0.1:8299", "http://127.0.0.1:8300"]
    assert any("openai-text.api_config: not used: timeout" in note for note in reading.notes)


@pytest.mark.row("000:51", "001:93", "001:319")
def test_everything_that_is_wrong_is_listed_at_once_by_name() -> None:
    document = sound()
    document["workers"]["simulation"]["job_service_required_map"][0]["worker_service"] = "simulation-htp"
    document["workers"]["twin"] = {"services": ["twin"]}
    document["services"]["twin"] = {"connector": "SimulationHttpConnector", "ports": [8299]}
    document["services"]["openai-image"]["connector"] = "OpenAIText2ImgConnector"
    problems = read(document, "simulation:2,openai:1,twin:1,comfy:3").problems
    texts = "\n".join(problems)
    assert "WORKERS: unknown worker type 'comfy'" in texts
    assert "names the service 'simulation-htp'" in texts
    assert "did you mean simulation-http?" in texts
    assert "services.openai-image.connector: names 'OpenAIText2ImgConnector', which connectors does not have" in texts
    assert "services.openai-image.connector: unknown connector 'OpenAIText2ImgConnector'" in texts
    assert "variable OPENAI_API_KEY is not set; needed by workers.openai.required_env" in texts
    assert "port 8299 is wanted by both services.simulation-http (instance 0) and services.twin (instance 0)" in texts
    assert len(problems) == 6


@pytest.mark.row("000:19", "001:31")
def test_the_old_name_of_the_simulation_connector_is_refused_with_the_new_one() -> None:
    document = sound()
    document["services"]["simulation-http"]["connector"] = "SimulationConnector"
    document["connectors"]["SimulationConnector"] = {"path": "./redis-direct-worker.js"}
    (problem,) = read(document, "simulation:1").problems
    assert problem.endswith("SimulationConnector is now SimulationHttpConnector (simulation-http)")


def test_class_names_of_the_prior_system_resolve_whatever_their_capitals() -> None:
    document = sound()
    document["services"]["openai-text"]["connector"] = "ComfyUIWebSocketConnector"
    document["connectors"]["ComfyUIWebSocketConnector"] = {}
    reading = read(document, "openai:1", OPENAI_API_KEY="secret")
    assert reading.settings.connectors["openai-text"].connector == "comfyui-websocket"


@pytest.mark.row("001:145")
@pytest.mark.parametrize(
    ("service", "port"), [("simulation-http", 8299), ("comfyui", 8188), ("a1111", 7860), ("simulation-websocket", 8399)]
)
def test_ports_follow_the_convention_where_the_file_names_none(service: str, port: int) -> None:
    document = sound()
    document["workers"] = {"w": {"services": [service]}}
    document["services"] = {service: {"connector": "OpenaiHttpConnector"}}
    assert read(document).settings.connectors[service].url == f"http://127.0.0.1:{port}"


@pytest.mark.row("001:145")
def test_a_service_without_port_address_or_convention_is_an_error_not_8080() -> None:
    document = sound()
    document["services"]["simulation-http"] = {"connector": "OpenaiHttpConnector"}
    document["services"]["mystery"] = {"connector": "OpenaiHttpConnector"}
    document["workers"]["mystery"] = {"services": ["mystery"]}
    (problem,) = read(document, "mystery:1").problems
    assert "services.mystery: neither ports nor api_config.base_url, and no port by convention" in problem


def test_only_the_worker_types_that_run_need_their_variables() -> None:
    assert read(sound(), "simulation:1").problems == ()
    (problem,) = read(sound()).problems
    assert "variable OPENAI_API_KEY is not set" in problem


def test_a_credential_written_into_the_file_is_refused_without_being_repeated() -> None:
    document = sound()
    document["services"]["openai-text"]["api_config"]["api_key"] = "sk-verysecret"
    (problem,) = read(document, "openai:1", OPENAI_API_KEY="x").problems
    assert "openai-text.api_config.api_key" in problem
    assert "verysecret" not in problem


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"workers": 1, "services": {"a": 2}}', '{"workers": {"a": {"services": 3}}}']
)
def test_a_file_of_another_shape_is_a_problem_not_a_crash(text: str) -> None:
    imported = import_mapping(text, name="m.json", environment={}, known=KNOWN, renamed={}, workers=None)
    assert imported.problems
    assert all(problem.startswith("m.json: ") for problem in imported.problems)

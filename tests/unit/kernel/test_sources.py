"""Settings: one tree from five sources, every problem at once."""

from typing import Any

import pytest

from hostler.kernel.errors import SettingsError
from hostler.kernel.sources import Reading, Sources, Text, mapping_path, read_settings
from hostler.kernel.table import settings_table

MAPPING = """{"workers": {"simulation-http": {"services": ["simulation-http"]}},
 "services": {"simulation-http": {"connector": "SimulationHttpConnector", "ports": ["8299"]}},
 "connectors": {"SimulationHttpConnector": {"path": "./worker.js"}}}"""


def read(
    toml: str | None = None,
    mapping: str | None = None,
    environment: dict[str, str] | None = None,
    **flags: tuple[str, Any],
) -> Reading:
    return read_settings(
        Sources(
            file=Text(name="hostler.toml", text=toml) if toml is not None else None,
            mapping=Text(name="service-mapping.json", text=mapping) if mapping is not None else None,
            environment=environment or {},
            flags={path.replace("__", "."): flag for path, flag in flags.items()},
            connectors=("simulation-http", "openai-http"),
        )
    )


def test_no_setting_is_needed() -> None:
    reading = read()
    assert reading.problems == ()
    assert reading.settings.gateway.bind == "127.0.0.1:7700"
    assert set(reading.origins.values()) == {"default"}


@pytest.mark.row("001:300")
def test_each_source_wins_over_those_below_it_and_says_so() -> None:
    toml, variable, flag = "[worker]\nslots = 2", {"HOSTLER_WORKER_SLOTS": "3"}, ("--slots", 4)
    ladder = [
        (read(), 8, "default"),
        (read(toml), 2, "hostler.toml"),
        (read(toml, environment=variable), 3, "HOSTLER_WORKER_SLOTS"),
        (read(toml, environment=variable, worker__slots=flag), 4, "--slots"),
        (read(toml, worker__slots=flag), 4, "--slots"),
        (read(environment=variable, worker__slots=flag), 4, "--slots"),
    ]
    assert [(r.settings.worker.slots, r.origins["worker.slots"]) for r, _, _ in ladder] == [
        (v, o) for _, v, o in ladder
    ]


@pytest.mark.row("001:300")
def test_an_imported_mapping_is_below_the_file_and_above_the_defaults() -> None:
    url = "connectors.simulation-http.url"
    alone = read(mapping=MAPPING)
    over = read('[connectors.simulation-http]\nurl = "http://10.0.0.1:9000"', mapping=MAPPING)
    assert alone.settings.connectors["simulation-http"].url == "http://127.0.0.1:8299"
    assert alone.origins[url] == "service-mapping.json"
    assert over.settings.connectors["simulation-http"].url == "http://10.0.0.1:9000"
    assert over.settings.connectors["simulation-http"].connector == "simulation-http"
    assert (over.origins[url], over.origins["connectors.simulation-http.connector"]) == (
        "hostler.toml",
        "service-mapping.json",
    )


@pytest.mark.row("001:315", "001:319")
def test_five_wrong_values_are_five_problems_named_as_typed() -> None:
    reading = read(
        'url = "ftp://x"\n[worker]\nslots = 0\nheartbeat = "often"',
        environment={"HOSTLER_GATEWAY_BIND": "7700", "HOSTLER_LOG_LEVEL": "loud"},
    )
    assert reading.problems == (
        "hostler.toml: url: expected a URL that begins with http:// or https://, got 'ftp://x'",
        "hostler.toml: worker.slots: expected a whole number from 1 to 1024, got 0",
        "hostler.toml: worker.heartbeat: expected a number of seconds of at least 0, got 'often'",
        "HOSTLER_GATEWAY_BIND: expected HOST:PORT, as 127.0.0.1:7700, got '7700'",
        "HOSTLER_LOG_LEVEL: expected debug, info, warning or error, got 'loud'",
    )
    with pytest.raises(SettingsError) as caught:
        reading.checked("--workers: no")
    assert caught.value.facts["problems"] == (*reading.problems, "--workers: no")


@pytest.mark.row("001:91")
def test_an_unknown_name_is_an_error_with_the_nearest_known_one() -> None:
    reading = read(
        "slotz = 1\n[worker]\nslot = 2\n[connectors.a]\nconnector = 'openai-http'\nurls = ''",
        environment={"HOSTLER_WORKER_SLOT": "3", "HOSTLER_ZZZ": "1", "HOSTLER_CONFIG": "x.toml", "HOME": "/"},
    )
    assert len(reading.problems) == 5
    assert any(
        p.startswith("hostler.toml: worker.slot: unknown setting; did you mean worker.slots") for p in reading.problems
    )
    assert "hostler.toml: connectors.a.urls: unknown setting; did you mean url?" in reading.problems
    assert any(
        p.startswith("HOSTLER_WORKER_SLOT: unknown setting; did you mean HOSTLER_WORKER_SLOTS")
        for p in reading.problems
    )
    assert any(p.startswith("HOSTLER_ZZZ: unknown setting") for p in reading.problems)


@pytest.mark.row("001:319")
def test_a_source_that_cannot_be_parsed_is_a_problem_not_skipped() -> None:
    reading = read("[worker\nslots = 1", mapping="{", environment={"HOSTLER_WORKER_SLOTS": "3"})
    assert [problem.split(":")[0] for problem in reading.problems] == ["hostler.toml", "service-mapping.json"]


def test_every_setting_outside_the_tables_has_a_variable_of_its_own_that_sets_it() -> None:
    table = settings_table()
    variables = [setting.variable for setting in table.values() if setting.variable]
    assert len(variables) == len(set(variables))
    examples = {
        "discovery.nameservers": "10.0.0.2:53",
        "engine.url": "redis://h:1",
        "gateway.bind": "h:1",
        "url": "http://h",
        "log.level": "debug",
        "log.format": "json",
    }
    for path, setting in table.items():
        if setting.variable is None:
            continue
        kind = setting.expected
        text = examples.get(path) or ("true" if kind == "true or false" else "a=b" if "table" in kind else "7")
        reading = read(environment={setting.variable: text})
        assert reading.problems == ()
        assert reading.origins[path] == setting.variable


def test_lists_and_tables_can_be_written_in_a_variable() -> None:
    reading = read(environment={"HOSTLER_WORKER_HANDLERS": "a.b, c", "HOSTLER_WORKER_LABELS": "tier=fast,zone=eu"})
    assert reading.settings.worker.handlers == ("a.b", "c")
    assert reading.settings.worker.labels == {"tier": "fast", "zone": "eu"}
    (problem,) = read(environment={"HOSTLER_WORKER_LABELS": "tier"}).problems
    assert problem.startswith("HOSTLER_WORKER_LABELS: expected a table")


def test_a_server_and_a_folder_exclude_each_other_within_one_source_and_the_higher_source_wins() -> None:
    both = read(environment={"HOSTLER_ENGINE": "redis://h:1", "HOSTLER_DATA": "d"})
    assert both.problems == ("HOSTLER_ENGINE and HOSTLER_DATA: expected one of the two, got both",)
    over = read(environment={"HOSTLER_ENGINE": "redis://h:1"}, engine__data=("--data", "d"))
    assert (over.settings.engine.url, over.settings.engine.data) == (None, "d")
    assert over.origins["engine.url"] == "overruled by --data"


def test_a_credential_is_never_shown() -> None:
    (problem,) = read("key = 12345").problems
    assert "12345" not in problem


def test_a_variable_that_a_connector_names_as_its_credential_is_no_unknown_setting() -> None:
    toml = '[connectors.chat]\nconnector = "openai-http"\nurl = "http://h"\napi_key_env = "HOSTLER_OPENAI"'
    assert read(toml, environment={"HOSTLER_OPENAI": "secret"}).problems == ()


def test_a_connector_entry_has_to_say_which_connector_it_is() -> None:
    (problem,) = read('[connectors.chat]\nurl = "http://h"').problems
    assert problem == "hostler.toml: connectors.chat.connector: expected the name of a connector, got nothing"


def test_the_mapping_is_found_by_flag_then_variable_then_file() -> None:
    file = Text(name="hostler.toml", text='mapping = "a.json"')
    environment = {"HOSTLER_MAPPING": "b.json"}
    assert mapping_path(Sources(file=file)) == "a.json"
    assert mapping_path(Sources(file=file, environment=environment)) == "b.json"
    assert mapping_path(Sources(environment=environment, flags={"mapping": ("--mapping", "c.json")})) == "c.json"
    assert mapping_path(Sources()) is None

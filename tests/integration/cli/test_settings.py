"""Wrong usage and wrong settings: exit code 2, all at once, by the names that were typed."""

import json

import pytest

from hostler.connectors.catalogue import connector_names

from .conftest import Shell


@pytest.mark.row("001:91", "001:315")
def test_every_wrong_setting_is_named_in_one_run_and_the_exit_code_is_2(shell: Shell) -> None:
    (shell.folder / "hostler.toml").write_text("[worker]\nslots = 0\nslot = 3\n")
    ran = shell.run("doctor", "--log-level", "loud", HOSTLER_HTTP_CONNECTIONS="few", HOSTLER_NOPE="1")
    assert ran.code == 2
    assert ran.out == ""
    for name in (
        "hostler.toml: worker.slots",
        "hostler.toml: worker.slot:",
        "HOSTLER_HTTP_CONNECTIONS",
        "HOSTLER_NOPE",
        "--log-level",
    ):
        assert name in ran.err
    assert "5 settings are wrong" in ran.err


@pytest.mark.row("001:94")
def test_only_the_one_settings_file_is_ever_read(shell: Shell) -> None:
    elsewhere = shell.folder / "elsewhere"
    elsewhere.mkdir()
    (shell.folder / "hostler.toml").write_text("broken [")
    (elsewhere / "mine.toml").write_text("[worker]\nslots = 3\n")
    by_flag = shell.run("doctor", "--json", "--config", "elsewhere/mine.toml", "--data", "d")
    by_variable = shell.run("doctor", "--json", "--data", "d", HOSTLER_CONFIG="elsewhere/mine.toml")
    for ran in (by_flag, by_variable):
        (slots,) = [row for row in ran.lines[0]["settings"] if row["name"] == "worker.slots"]
        assert (slots["value"], slots["source"]) == (3, "elsewhere/mine.toml")
        assert ran.lines[0]["config"] == str(elsewhere / "mine.toml")
    broken = shell.run("doctor")
    assert broken.code == 2
    assert "hostler.toml: expected TOML" in broken.err


def test_a_settings_file_that_is_named_and_not_there_is_an_error(shell: Shell) -> None:
    ran = shell.run("doctor", "--config", "none.toml")
    assert (ran.code, ran.err) == (2, "hostler: 1 setting is wrong: --config: none.toml: there is no such file\n")


@pytest.mark.row("000:51", "001:93", "000:19")
def test_a_mapping_with_mistakes_stops_every_process_before_anything_starts(shell: Shell) -> None:
    mapping = {
        "workers": {"sim": {"services": ["sim"], "required_env": ["CDN_URL"]}, "old": {"services": ["gone"]}},
        "services": {"sim": {"connector": "SimulationConnector", "ports": ["8299"]}},
        "connectors": {},
    }
    (shell.folder / "service-mapping.json").write_text(json.dumps(mapping))
    (shell.folder / "hostler.toml").write_text('mapping = "service-mapping.json"\n')
    ran = shell.run("up", "--data", "d", "--json", WORKERS="sim:2,old:1")
    assert ran.code == 2
    problems = "\n".join(ran.last["error"]["problems"])
    assert "SimulationConnector is now SimulationHttpConnector (simulation-http)" in problems
    assert "variable CDN_URL is not set" in problems
    assert "names the service 'gone'" in problems
    assert "names 'SimulationConnector', which connectors does not have" in problems
    assert not (shell.folder / "d").exists()


@pytest.mark.row("001:31")
def test_an_unknown_worker_name_is_refused_with_both_lists(shell: Shell) -> None:
    (shell.folder / "hostler.toml").write_text('[connectors.studio]\nconnector = "simulation-http"\n')
    ran = shell.run("up", "--data", "d", "--workers", "simulaton-http:2,studio")
    assert ran.code == 2
    assert "worker type (studio)" in ran.err
    assert f"connector ({', '.join(connector_names())})" in ran.err
    assert "did you mean simulation-http" in ran.err
    assert not (shell.folder / "d").exists()


def test_wrong_usage_is_one_sentence_and_with_json_one_document(shell: Shell) -> None:
    ran = shell.run("jobs", "shw", "--json")
    assert ran.code == 2
    assert "shw" in ran.last["error"]["message"]
    assert ran.err.count("\n") == 1


def test_limits_that_a_connector_cannot_account_for_stop_a_worker_before_anything_starts(shell: Shell) -> None:
    draw = 'connector = "simulation-http"\nurl = "http://127.0.0.1:9"\nlimits = ["100 tokens/min"]\n'
    chat = 'connector = "openai-http"\nurl = "http://127.0.0.1:9"\nlimits = ["3/s", "500 cents/day"]\n'
    (shell.folder / "hostler.toml").write_text(f"[connectors.draw]\n{draw}[connectors.chat]\n{chat}")
    ran = shell.run("worker", "--connectors", "draw,chat:*", "--data", "d")
    assert ran.code == 2
    assert "connectors.draw: '100 tokens/min': simulation-http has no count of tokens" in ran.err
    assert "connectors.chat: '500 cents/day': cents are counted by a price" in ran.err

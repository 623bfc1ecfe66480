"""What a newcomer mistypes or does too early is answered with what would have done."""

import socket

import pytest

from .conftest import Shell


def nowhere() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_submit_that_nobody_takes_names_the_flag_that_waits(shell: Shell) -> None:
    early = shell.run("submit", "text.upper", "--data", "1", "--url", nowhere(), within=90)
    assert early.code == 1
    assert "--wait-engine SECONDS" in early.err
    assert "--key cli-" in early.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("dead", "replay", "--class", "transent"), "--class: 'transent' is not one of invalid_input, "),
        (("dead", "replay", "--class", "transent"), "; did you mean transient?"),
        (("dead", "list", "--class", "timeout:idel"), "did you mean idle?"),
        (("jobs", "list", "--state", "runing"), "did you mean running?"),
    ],
)
def test_a_class_or_state_that_is_none_is_answered_with_those_that_there_are(
    shell: Shell, command: tuple[str, ...], words: str
) -> None:
    ran = shell.run(*command, "--url", nowhere())
    assert ran.code == 2
    assert words in ran.err
    assert "regex" not in ran.err


def test_an_option_or_a_row_with_a_name_that_is_none_is_answered_with_the_nearest(shell: Shell) -> None:
    options = shell.run("connectors", "check", "simulation-http", nowhere(), "--options", '{"tiemout": 3}')
    assert options.code == 1
    assert "unknown field `tiemout`, known are " in options.err
    assert "; did you mean timeout?" in options.err
    (shell.folder / "hostler.toml").write_text("[queues.image]\nlimits = { dept = 3 }\n")
    row = shell.run("connectors", "check", "simulation-http", nowhere())
    assert row.code == 2
    assert "queues.image: " in row.err
    assert "; did you mean depth?" in row.err

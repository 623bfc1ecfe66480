"""`hostler bench` measures on parts of its own, and says what is worse than before."""

import json
from typing import Any

import pytest
from tests.integration.cli.conftest import Shell

RATES = ("submits_singly", "submits_batched", "drained", "paced")
TIMES = ("engine_us_submit", "engine_us_drain", "start_p50_ms", "start_p99_ms")


@pytest.fixture
def measured(shell: Shell) -> dict[str, Any]:
    """One short run."""
    ran = shell.run("bench", "--seconds", "1", "--json", within=120, TMPDIR=str(shell.folder))
    assert ran.code == 0, ran.err
    assert len(ran.lines) == 1
    return ran.last


@pytest.mark.row("001:401")
def test_a_run_measures_each_figure_leaves_nothing_and_tells_which_are_worse_than_before(
    shell: Shell, measured: dict[str, Any]
) -> None:
    figures = measured["figures"]
    assert set(figures) == {*RATES, *TIMES}
    assert all(value > 0 for value in figures.values())
    assert figures["start_p50_ms"] <= figures["start_p99_ms"]
    assert measured["worse"] == []
    assert measured["machine"]["engine"].startswith("valkey ")
    assert list(shell.folder.iterdir()) == []
    # As if the machine had been a thousand times faster at one of them, and a thousand times slower at all others.
    before = {name: figures[name] / 1000 for name in RATES} | {name: figures[name] * 1000 for name in TIMES}
    before["drained"] = figures["drained"] * 1000
    (shell.folder / "before.json").write_text(json.dumps({**measured, "figures": before}))
    ran = shell.run("bench", "--seconds", "1", "--json", "--compare", "before.json", within=120)
    assert ran.code == 1, ran.err
    assert [one["figure"] for one in ran.last["worse"]] == ["drained"]
    assert ran.last["worse"][0]["before"] == pytest.approx(before["drained"])


def test_what_is_no_earlier_run_is_refused_before_anything_is_measured(shell: Shell) -> None:
    (shell.folder / "other.json").write_text('{"figures": 1}')
    for name, words in (("none.json", "cannot be read"), ("other.json", "is not what `hostler bench --json` prints")):
        ran = shell.run("bench", "--compare", name)
        assert ran.code == 2
        assert words in ran.err
    ran = shell.run("bench", "--seconds", "0")
    assert ran.code == 2
    assert "--seconds" in ran.err

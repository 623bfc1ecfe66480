"""`hostler demo`: the main job, end to end, judged by its own verdict and by its parts."""

import pytest

from .conftest import Shell


@pytest.mark.timeout(120)
@pytest.mark.row("000:50", "000:61")
def test_the_demo_ends_by_itself_in_a_minute_with_nothing_lost_and_nothing_twice(shell: Shell) -> None:
    pytest.importorskip("xllamacpp", reason="the extra `demo` is not installed")
    ran = shell.run("demo", "--jobs", "300", "--seed", "3", "--json", within=100)
    assert ran.code == 0, ran.out[-2000:] + ran.err[-2000:]
    verdict = ran.last
    assert verdict["outcome"] == "ok"
    assert (verdict["submitted"], verdict["lost"], verdict["recorded_twice"]) == (300, 0, 0)
    assert verdict["succeeded"] == 297
    assert verdict["deduplicated"] >= 5
    assert verdict["struck"] >= 1
    assert 0 < verdict["max_recovery_s"] < 30
    assert verdict["effects"] > 100
    explained = [line for line in ran.lines if line.get("event") == "explained"]
    assert [line["lacking"] for line in explained] == [["models"], ["labels.tier"], ["amounts.slots"]]
    (killed,) = [line for line in ran.lines if line.get("event") == "killed"]
    assert [line["code"] for line in ran.lines if line.get("event") == "ended"] == [-9]
    assert any(line.get("name") == killed["name"] and line.get("start") == 2 for line in ran.lines)


def test_a_demo_of_a_wrong_size_is_wrong_usage(shell: Shell) -> None:
    assert shell.run("demo", "--jobs", "3").code == 2

"""What the page about reliability says of the checker is so."""

import re
from pathlib import Path

from hostler.chaos.judge import PROMISES, judge
from hostler.chaos.reading import read_history

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text()


def rows(after: str) -> list[list[str]]:
    table = PAGE.partition(after)[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:3] != "|--"]


def test_the_table_of_promises_is_the_checkers_own() -> None:
    assert {row[0]: row[1] for row in rows("| | promise | judged by |\n|---|---|---|\n")} == dict(PROMISES)


def test_the_history_on_the_page_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "history.ndjson"
    file.write_text(text)
    report = judge(read_history(file))
    assert (report.verdict, report.jobs, report.recovery_s.max) == ("held", 1, 11.0)
    assert report.ruling("S1").verdict == "held"


def test_every_seeded_defect_is_on_the_page() -> None:
    source = (ROOT / "tests/integration/chaos/test_mutants.py").read_text()
    seeded = set(re.findall(r'^    "([a-z -]+)": Mutant\(', source, re.MULTILINE))
    named = {row[0] for row in rows("| defect | where it is seeded | found by |\n|---|---|---|\n")}
    assert len(seeded) == 12
    assert seeded <= named
    assert len(named) == 15


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`([a-z_/]+\.py)::(\w+)`", PAGE)
    assert len(named) >= 8
    for path, name in named:
        assert f"def {name}(" in (ROOT / "tests" / path).read_text(), f"{path}::{name}"

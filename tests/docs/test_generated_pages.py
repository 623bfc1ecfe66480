"""What the generated pages tell a reader is whole, and said once."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def rows(page: str) -> list[list[str]]:
    """Return the cells of all tables of a page, their heads left out."""
    found = re.findall(r"^\| (`.*) \|$", (DOCS / page).read_text(), re.MULTILINE)
    return [re.split(r" ?\| ?", row) for row in found]


def test_every_setting_says_what_it_means() -> None:
    found = rows("settings.md")
    assert len(found) > 40
    assert [name for name, *_, meaning in found if not meaning.strip()] == []


def test_no_list_of_kinds_names_one_twice_and_every_kind_of_a_queue_has_its_row() -> None:
    lists = {row[0]: re.findall(r"`([\w.-]+)`", row[5]) for row in rows("queues.md") if len(row) == 6}
    kinds = [(row[1], row[0].strip("`")) for row in rows("queues.md") if len(row) == 8]
    assert len(kinds) == len(set(kinds)) > 15
    assert sorted(kinds) == sorted((queue, kind) for queue, names in lists.items() for kind in names)


@pytest.mark.row("003:218")
def test_every_kind_has_a_row_with_all_its_timeouts_and_its_attempts() -> None:
    found = [row for row in rows("queues.md") if len(row) == 8]
    assert len(found) > 15
    for row in found:
        stages = dict(re.findall(r"(\w+) ([\d.]+)", row[7]))
        assert {"connect", "load", "first_byte", "idle", "run"} <= stages.keys(), row
        assert all(float(seconds) > 0 for seconds in stages.values()), row
        assert int(row[6]) >= 1, row

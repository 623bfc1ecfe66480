"""What the generated pages tell a reader is whole, and said once."""

import re
from pathlib import Path

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

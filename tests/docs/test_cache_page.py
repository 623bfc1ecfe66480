"""What the page about the cache says is what the code does."""

import re
from pathlib import Path

from hostler.cli.config import load
from hostler.contracts.queue import CacheMode, CachePolicy
from hostler.dispatch.sharing import FLIGHT, PATIENCE
from hostler.policy.caching import LABEL, WAIT_FIRST, WAIT_MOST
from hostler.registry.results import BYTES_MOST, ENTRIES_MOST

PAGE = (Path(__file__).parents[2] / "docs" / "cache.md").read_text()


def test_the_configuration_of_the_page_gives_a_kind_its_cache(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "hostler.toml"
    file.write_text(text)
    (kind,) = load({}, config=str(file)).kinds
    assert (kind.name, kind.cache) == ("image.generate", CachePolicy(mode=CacheMode.FIRST, ttl=3600.0))


def test_the_page_names_every_mode_and_the_numbers_that_hold() -> None:
    assert set(re.findall(r"^\| `(\w+)` \| (?!what)", PAGE, re.MULTILINE)) - {"mode"} == set(CacheMode)
    assert f"`{LABEL}`" in PAGE
    for number in (f"{WAIT_FIRST:g} seconds", f"up to {WAIT_MOST:g}", f"{FLIGHT:g} seconds", f"{PATIENCE:g} seconds"):
        assert number in PAGE
    assert f"{BYTES_MOST // 2**20} MiB and {ENTRIES_MOST:,} entries" in " ".join(PAGE.split())

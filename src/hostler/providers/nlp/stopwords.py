"""Words that carry no meaning of their own, by language: enough to cut phrases and to tell languages apart."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

StopWords = Mapping[str, frozenset[str]]
_FILE: Final = Path(__file__).with_name("stopwords.txt")


def read_stop_words() -> StopWords:
    """Read the lists that Hostler ships."""
    rows = (line.partition(":") for line in _FILE.read_text(encoding="utf-8").splitlines() if line[:1] != "#")
    return {language: frozenset(words.split()) for language, _, words in rows}


def guess(words: Iterable[str], stop_words: StopWords) -> str | None:
    """Return the language whose stop words occur most among folded words; None when none does."""
    found = list(words)
    hits = {language: sum(word in stops for word in found) for language, stops in stop_words.items()}
    language = max(hits, key=lambda name: hits[name], default=None)
    return language if language is not None and hits[language] else None

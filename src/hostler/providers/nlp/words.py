"""Words of any language: cut, compared and read from a corpus, never forced into ASCII."""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostler.kernel.errors import InvalidError
from hostler.kernel.units import Bytes

_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019\u02bc-][^\W\d_]+)*")
"""Letters of any script, also with an apostrophe or hyphen inside. Scripts that write no spaces give long words."""
_STOP: Final = re.compile(r"[!?\u2026\u3002\uff01\uff1f\n]|(?<!\d)[.](?=\s)")
"""What ends a sentence; the dots of numbers, of dates (`3. Juni`) and inside names do not."""
CORPUS_LIMIT: Final[Bytes] = 64_000_000


def folded(text: str) -> str:
    """Return text for comparing: composed (NFC) and without case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def words(text: str) -> list[str]:
    """Return the words of a text, folded, in order."""
    return [folded(found[0]) for found in _WORD.finditer(unicodedata.normalize("NFC", text))]


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each word stands in the text as it is."""
    for found in _WORD.finditer(text):
        yield found.span()


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each sentence or line stands, without what ends it."""
    begin = 0
    for stop in _STOP.finditer(text):
        if text[begin : stop.start()].strip():
            yield begin, stop.start()
        begin = stop.end()
    if text[begin:].strip():
        yield begin, len(text)


def read_corpus(path: Path) -> list[list[str]]:
    """Read a corpus (UTF-8, one document a line) as words; `InvalidError` for what is none."""
    if path.stat().st_size > CORPUS_LIMIT:
        raise InvalidError(f"corpus {path} is over {CORPUS_LIMIT} bytes", field="corpus")
    try:
        with path.open(encoding="utf-8") as lines:
            documents = [found for line in lines if (found := words(line))]
    except UnicodeDecodeError as error:
        raise InvalidError(f"corpus {path} is not UTF-8: {error}", field="corpus") from None
    if not documents:
        raise InvalidError(f"corpus {path} holds no words", field="corpus")
    return documents

"""What a provider is asked and what it answers, by verb; scores are cosines or shares, 1 is the same.

Positions in a text count code points, as Python, JavaScript's `Array.from` and SQL count characters.
"""

from enum import StrEnum
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from hostler.kernel.units import Fraction, Instant, Json

Phrase = Annotated[str, Meta(min_length=1, max_length=500)]
Passage = Annotated[str, Meta(min_length=1, max_length=20_000)]
Text = Annotated[str, Meta(min_length=1, max_length=100_000)]
Language = Annotated[str, Meta(pattern=r"^[a-z]{2,3}\Z")]
"""ISO 639 code."""


class Verb(StrEnum):
    """What can be asked of a provider; also the last part of its path."""

    EXPAND = "expand"
    ANALYZE = "analyze"
    SIMILARITY = "similarity"
    COMPARE = "compare"


class ExpandAsk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which terms belong to a concept."""

    concept: Phrase
    media_context: Phrase | None = None
    """What it is about; weighs a quarter of the concept, where a provider can weigh it."""
    max_concepts: Annotated[int, Meta(ge=1, le=50)] = 10
    threshold: Fraction = 0.0
    """Lowest score."""
    language: Language | None = None
    reference: Instant | None = None
    """What relative times are counted from; the service's clock unless set."""


class AnalyzeAsk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is in a text."""

    text: Text
    max_items: Annotated[int, Meta(ge=1, le=1000)] = 50
    language: Language | None = None
    reference: Instant | None = None


class SimilarityAsk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which candidates are most like a query."""

    query: Passage
    candidates: Annotated[tuple[Passage, ...], Meta(min_length=1, max_length=1000)]
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    threshold: Annotated[float, Meta(ge=-1, le=1)] = -1.0


class CompareAsk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How alike two passages are."""

    first: Passage
    second: Passage


class Term(Struct, frozen=True, kw_only=True):
    """A term and how near it is."""

    term: str
    score: float


class ExpandAnswer(Struct, frozen=True, kw_only=True):
    """Terms, best first."""

    terms: tuple[Term, ...]
    unknown: tuple[str, ...] = ()
    """Words of the concept that the provider does not know."""


class Item(Struct, frozen=True, kw_only=True):
    """Something found in a text: `text` is `[start:end]` of it."""

    text: str
    label: str
    start: int
    end: int
    score: float | None = None
    value: str | None = None
    """What it stands for, such as a moment as RFC 3339."""


class AnalyzeAnswer(Struct, frozen=True, kw_only=True):
    """What was found, in the provider's order."""

    items: tuple[Item, ...]


class Match(Struct, frozen=True, kw_only=True):
    """A candidate, by its place in the list, and how alike it is."""

    index: int
    candidate: str
    score: float


class SimilarityAnswer(Struct, frozen=True, kw_only=True):
    """Candidates, best first."""

    matches: tuple[Match, ...]
    unknown: tuple[str, ...] = ()


class CompareAnswer(Struct, frozen=True, kw_only=True):
    """How alike two passages are."""

    score: float
    unknown: tuple[str, ...] = ()


Ask = ExpandAsk | AnalyzeAsk | SimilarityAsk | CompareAsk
Reply = ExpandAnswer | AnalyzeAnswer | SimilarityAnswer | CompareAnswer

ASKS: Final[dict[Verb, type[Ask]]] = {
    Verb.EXPAND: ExpandAsk,
    Verb.ANALYZE: AnalyzeAsk,
    Verb.SIMILARITY: SimilarityAsk,
    Verb.COMPARE: CompareAsk,
}


class Trouble(Struct, frozen=True, kw_only=True):
    """Why there is no result, with a code that programs read."""

    code: str
    message: str
    facts: dict[str, Json] = {}


class Envelope(Struct, frozen=True, kw_only=True):
    """Every answer of a provider's verb."""

    success: bool
    provider_name: str
    execution_time_ms: float
    result: Any = None
    error_message: str | None = None
    error: Trouble | None = None
    metadata: dict[str, Json] = {}


def best(matches: list[Match], ask: SimilarityAsk) -> tuple[Match, ...]:
    """Return matches over the threshold, best first, equal ones in the order of the list."""
    kept = (match for match in matches if match.score >= ask.threshold)
    return tuple(sorted(kept, key=lambda match: (-match.score, match.index))[: ask.limit])

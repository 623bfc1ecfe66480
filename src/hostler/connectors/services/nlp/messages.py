"""What language services take and say: payloads and results of the four kinds, and answers as they come."""

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from hostler.kernel.units import Fraction, Instant, Json, Seconds

Provider = Annotated[str, Meta(min_length=1, max_length=64)]
Phrase = Annotated[str, Meta(min_length=1, max_length=500)]
Passage = Annotated[str, Meta(min_length=1, max_length=20_000)]
Text = Annotated[str, Meta(min_length=1, max_length=100_000)]
Language = Annotated[str, Meta(pattern=r"^[a-z]{2,3}\Z")]


class ExpandPayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Payload of `nlp.expand`: which terms belong to a concept."""

    concept: Phrase
    provider: Provider | None = None
    """Who is asked; the endpoint's option `provider` unless set."""
    max_concepts: Annotated[int, Meta(ge=1, le=50)] | None = None
    threshold: Fraction | None = None
    """Lowest score."""
    media_context: Phrase | None = None
    """What it is about."""
    field_name: Phrase | None = None
    language: Language | None = None
    """ISO 639 code."""
    reference: Instant | None = None
    """What relative times are counted from."""
    options: dict[str, Json] | None = None
    """A provider's own, passed on as they are."""


class AnalyzePayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Payload of `nlp.analyze`: what is in a text."""

    text: Text
    provider: Provider | None = None
    max_items: Annotated[int, Meta(ge=1, le=1000)] | None = None
    language: Language | None = None
    reference: Instant | None = None
    options: dict[str, Json] | None = None


class SimilarityPayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Payload of `nlp.similarity`: which candidates are most like a query."""

    query: Passage
    candidates: Annotated[tuple[Passage, ...], Meta(min_length=1, max_length=1000)]
    provider: Provider | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] | None = None
    threshold: Annotated[float, Meta(ge=-1, le=1)] | None = None
    options: dict[str, Json] | None = None


class ComparePayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Payload of `nlp.compare`: how alike two passages are."""

    first: Passage
    second: Passage
    provider: Provider | None = None
    options: dict[str, Json] | None = None


Payload = ExpandPayload | AnalyzePayload | SimilarityPayload | ComparePayload


class Term(Struct, frozen=True, kw_only=True):
    """A term and how near it is; 1 is the same."""

    term: str
    score: float


class ExpandResult(Struct, frozen=True, kw_only=True):
    """Result of `nlp.expand`: terms, best first."""

    terms: tuple[Term, ...]
    unknown: tuple[str, ...] = ()
    """Words that the provider does not know."""


class Item(Struct, frozen=True, kw_only=True):
    """Something found in a text; `start` and `end` count code points."""

    text: str
    label: str
    start: int
    end: int
    score: float | None = None
    value: str | None = None
    """What it stands for, such as a moment as RFC 3339."""


class AnalyzeResult(Struct, frozen=True, kw_only=True):
    """Result of `nlp.analyze`, in the provider's order."""

    items: tuple[Item, ...]


class Match(Struct, frozen=True, kw_only=True):
    """A candidate, by its place in the list, and how alike it is."""

    index: int
    candidate: str
    score: float


class SimilarityResult(Struct, frozen=True, kw_only=True):
    """Result of `nlp.similarity`: candidates, best first."""

    matches: tuple[Match, ...]
    unknown: tuple[str, ...] = ()


class CompareResult(Struct, frozen=True, kw_only=True):
    """Result of `nlp.compare`; 1 is the same."""

    score: float
    unknown: tuple[str, ...] = ()


class Trouble(Struct, frozen=True, kw_only=True):
    """Why there is no result."""

    code: str | None = None
    message: str = ""


class Answer(Struct, frozen=True, kw_only=True):
    """Answer of every verb; `success: false` may come with status 200."""

    success: bool
    result: Raw | UnsetType = UNSET
    error_message: str | None = None
    error: Trouble | None = None


class ProviderRow(Struct, frozen=True, kw_only=True):
    """One provider as the service lists it, or as its own health says."""

    name: str | None = None
    capabilities: tuple[str, ...] | None = None
    available: bool = True
    """Whether it takes questions."""
    state: str | None = None
    phase: str | None = None
    item: str | None = None
    percent: float | None = None
    slots: int | None = None

    @property
    def where(self) -> str:
        """Where its load is, in words."""
        done = "" if self.percent is None else f"({self.percent:g} %)"
        return " ".join(part for part in (self.phase, self.item, done) if part)


class ProviderList(Struct, frozen=True, kw_only=True):
    """Answer of `/providers`; some services list bare names."""

    providers: tuple[ProviderRow | str, ...]


class Health(Struct, frozen=True, kw_only=True):
    """Answer of `/health`."""

    status: str
    version: str | None = None
    slots: int | None = None
    busy: int | None = None
    uptime_s: Seconds | None = None
    providers: dict[str, ProviderRow] | tuple[Json, ...] | None = None

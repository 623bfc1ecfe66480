"""Provider `temporal`: when something is said to be, in many languages, counted from a given moment (dateparser)."""

from datetime import UTC, datetime
from typing import Any, Final

from hostler.kernel.units import Bytes, Instant
from hostler.providers.messages import (
    AnalyzeAnswer,
    AnalyzeAsk,
    Ask,
    ExpandAnswer,
    ExpandAsk,
    Item,
    Reply,
    Term,
    Verb,
)
from hostler.providers.nlp.parts import require
from hostler.providers.nlp.stopwords import StopWords, guess, read_stop_words
from hostler.providers.nlp.words import sentences, words
from hostler.providers.provider import Halt, Loading, RefusedError

LANGUAGES: Final[tuple[str, ...]] = (
    "en",
    "de",
    "fr",
    "es",
    "it",
    "pt",
    "nl",
    "pl",
    "ru",
    "uk",
    "el",
    "tr",
    "ar",
    "zh",
    "ja",
    "ko",
)
"""Tried where a question names none; loaded at the start."""


class TemporalProvider:
    """Moments found in a text, and an expression widened to day, month, year and decade."""

    name = "temporal"
    about = "Times: moments that a text speaks of, as RFC 3339, counted from a reference"
    verbs: tuple[Verb, ...] = (Verb.ANALYZE, Verb.EXPAND)
    slots = 1  # dateparser keeps caches that threads must not share

    def __init__(self) -> None:
        self._search: Any = None
        self._parser: Any = None
        self._stop_words: StopWords = {}

    def load(self, loading: Loading) -> None:
        """Import dateparser and the data of every language, one by one."""
        loading.step("importing", "dateparser", fraction=0.0)
        date: Any = require("dateparser.date")
        search: Any = require("dateparser.search")
        for number, language in enumerate(LANGUAGES):
            loading.step("reading", f"language {language}", fraction=0.2 + 0.8 * number / len(LANGUAGES))
            search.search_dates("1.1.2000", languages=[language], settings=_settings(datetime(2000, 1, 1, tzinfo=UTC)))
        self._stop_words = read_stop_words()
        self._search, self._parser = search.search_dates, date.DateDataParser

    def answer(self, ask: Ask, halt: Halt) -> Reply:
        """Answer by parsing; a language that dateparser does not know is refused."""
        try:
            match ask:
                case AnalyzeAsk():
                    return self._analyze(ask, halt)
                case ExpandAsk():
                    return self._expand(ask)
                case _:
                    raise RefusedError(404, "unsupported", f"{self.name} does not do that")
        except ValueError as error:
            raise RefusedError(422, "invalid_input", f"the text cannot be read for times: {error}") from error

    def memory(self) -> Bytes | None:
        """Return None: the tables of languages cannot be counted."""
        return None

    def close(self) -> None:
        """Drop the parser."""
        self._search = self._parser = None
        self._stop_words = {}

    def _analyze(self, ask: AnalyzeAsk, halt: Halt) -> AnalyzeAnswer:
        reference = ask.reference or datetime.now(UTC)
        items: list[Item] = []
        for begin, stop in sentences(ask.text):
            halt.check()
            sentence, at = ask.text[begin:stop], 0
            languages = self._languages(ask.language, sentence)
            for text, moment in self._search(sentence, languages=languages, settings=_settings(reference)) or ():
                start = sentence.find(text, at)
                if start < 0:  # it was found in a normalised form that does not stand there
                    continue
                at = start + len(text)
                label = self._period(text, languages, reference)
                value = moment.isoformat()
                items.append(Item(text=text, label=label, start=begin + start, end=begin + at, value=value))
            if len(items) >= ask.max_items:
                break
        return AnalyzeAnswer(items=tuple(items[: ask.max_items]))

    def _expand(self, ask: ExpandAsk) -> ExpandAnswer:
        reference = ask.reference or datetime.now(UTC)
        languages = self._languages(ask.language, ask.concept)
        found: Any = self._parser(languages=languages, settings=_settings(reference)).get_date_data(ask.concept)
        moment: datetime | None = found.date_obj
        if moment is None:
            return ExpandAnswer(terms=(), unknown=(ask.concept,))
        wider = _WIDER.index(found.period) if found.period in _WIDER else 1
        forms = (
            moment.isoformat(),
            f"{moment:%Y-%m-%d}",
            f"{moment:%G-W%V}",
            f"{moment:%Y-%m}",
            f"{moment:%Y}",
            f"{moment.year // 10 * 10}s",
        )[wider:]
        terms = tuple(Term(term=form, score=round(1 - number / len(_WIDER), 6)) for number, form in enumerate(forms))
        return ExpandAnswer(terms=tuple(term for term in terms if term.score >= ask.threshold)[: ask.max_concepts])

    def _languages(self, asked: str | None, sentence: str) -> list[str]:
        """Return which languages to try: the one asked for, the one that its small words show, else all."""
        found = asked or guess(words(sentence), self._stop_words)
        return list(LANGUAGES) if found is None else [found]

    def _period(self, text: str, languages: list[str], reference: Instant) -> str:
        """Return how exact an expression is: `time`, `day`, `week`, `month` or `year`."""
        parser: Any = self._parser(languages=languages, settings=_settings(reference))
        period: str = parser.get_date_data(text).period
        return period if period in _WIDER else "day"


_WIDER: Final = ("time", "day", "week", "month", "year")


def _settings(reference: Instant) -> dict[str, Any]:
    return {
        "RELATIVE_BASE": reference,
        "RETURN_AS_TIMEZONE_AWARE": True,
        "TIMEZONE": "UTC",
        "RETURN_TIME_AS_PERIOD": True,
    }

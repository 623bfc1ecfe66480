"""Provider `keywords`: the phrases of a text that carry it (RAKE: Rose et al. 2010); without a model."""

import unicodedata
from collections import defaultdict

from msgspec import Struct

from hostler.kernel.units import Bytes
from hostler.providers.messages import AnalyzeAnswer, AnalyzeAsk, Ask, Item, Reply, Verb
from hostler.providers.nlp.stopwords import StopWords, guess, read_stop_words
from hostler.providers.nlp.words import folded, sentences, spans
from hostler.providers.provider import Halt, Loading, RefusedError

LONGEST = 4
"""Words of a phrase."""


class _Phrase(Struct, frozen=True, kw_only=True):
    words: tuple[str, ...]
    start: int
    end: int


class KeywordsProvider:
    """Phrases between words without meaning, scored by how often their words stand with others."""

    name = "keywords"
    about = "Keywords: the phrases that carry a text, in seven languages and, less well, in any"
    verbs: tuple[Verb, ...] = (Verb.ANALYZE,)
    slots = 2

    def __init__(self) -> None:
        self._stop_words: StopWords = {}

    def load(self, loading: Loading) -> None:
        """Read the lists of words without meaning."""
        loading.step("reading", "stop words", fraction=0.0)
        self._stop_words = read_stop_words()

    def answer(self, ask: Ask, halt: Halt) -> Reply:
        """Answer with phrases, best first; the best has score 1."""
        if not isinstance(ask, AnalyzeAsk):
            raise RefusedError(404, "unsupported", f"{self.name} does not do that")
        found_words = (folded(ask.text[start:end]) for start, end in spans(ask.text))
        language = ask.language or guess(found_words, self._stop_words)
        stops = self._stop_words.get(language or "", frozenset[str]())
        phrases = [phrase for phrase in _phrases(ask.text, stops, halt) if len(phrase.words) <= LONGEST]
        scores = _scores(phrases)
        found: dict[tuple[str, ...], _Phrase] = {}
        for phrase in phrases:
            found.setdefault(phrase.words, phrase)
        ranked = sorted(found.values(), key=lambda phrase: (-scores[phrase.words], phrase.start))
        top = scores[ranked[0].words] if ranked else 1.0
        return AnalyzeAnswer(
            items=tuple(
                Item(
                    text=ask.text[phrase.start : phrase.end],
                    label="keyword",
                    start=phrase.start,
                    end=phrase.end,
                    score=round(scores[phrase.words] / top, 6),
                )
                for phrase in ranked[: ask.max_items]
            )
        )

    def memory(self) -> Bytes | None:
        """Return the size of the lists."""
        return sum(len(word.encode()) + 64 for stops in self._stop_words.values() for word in stops)

    def close(self) -> None:
        """Drop the lists."""
        self._stop_words = {}


def _phrases(text: str, stops: frozenset[str], halt: Halt) -> list[_Phrase]:
    """Cut a text into runs of words with meaning; a stop word, punctuation or the end of a sentence ends one."""
    found: list[_Phrase] = []
    run: list[tuple[int, int]] = []

    def close() -> None:
        if run:
            words = tuple(folded(text[start:end]) for start, end in run)
            found.append(_Phrase(words=words, start=run[0][0], end=run[-1][1]))
            run.clear()

    for begin, stop in sentences(text):
        halt.check()
        for start, end in spans(text[begin:stop]):
            place = (begin + start, begin + end)
            if run and not _apart_by_space(text[run[-1][1] : place[0]]):
                close()
            if folded(text[place[0] : place[1]]) in stops:
                close()
            else:
                run.append(place)
        close()
    return found


def _apart_by_space(between: str) -> bool:
    return all(letter.isspace() or unicodedata.category(letter) == "Mn" for letter in between)


def _scores(phrases: list[_Phrase]) -> dict[tuple[str, ...], float]:
    """Score a phrase by the sum of degree over frequency of its words."""
    frequency: defaultdict[str, int] = defaultdict(int)
    degree: defaultdict[str, int] = defaultdict(int)
    for phrase in phrases:
        for word in phrase.words:
            frequency[word] += 1
            degree[word] += len(phrase.words)
    return {phrase.words: sum(degree[word] / frequency[word] for word in phrase.words) for phrase in phrases}

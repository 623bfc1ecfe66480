"""Provider `spelling`: how alike words and passages are written, by trigrams of their characters; no model."""

from collections import Counter

from hostler.kernel.units import Bytes
from hostler.providers.messages import (
    Ask,
    CompareAnswer,
    CompareAsk,
    Match,
    Reply,
    SimilarityAnswer,
    SimilarityAsk,
    Verb,
    best,
)
from hostler.providers.nlp.words import folded
from hostler.providers.provider import Halt, Loading, RefusedError

Grams = Counter[str]


class SpellingProvider:
    """Dice's coefficient of trigrams, without regard to case or to how accents are composed."""

    name = "spelling"
    about = "Spelling: which names and passages are written alike"
    verbs: tuple[Verb, ...] = (Verb.SIMILARITY, Verb.COMPARE)
    slots = 2

    def load(self, loading: Loading) -> None:
        """Do nothing: there is nothing to load."""
        loading.step("ready", fraction=1.0)

    def answer(self, ask: Ask, halt: Halt) -> Reply:
        """Answer by trigrams."""
        match ask:
            case SimilarityAsk():
                query = _grams(ask.query)
                matches: list[Match] = []
                for index, candidate in enumerate(ask.candidates):
                    halt.check()
                    matches.append(Match(index=index, candidate=candidate, score=_alike(query, _grams(candidate))))
                return SimilarityAnswer(matches=best(matches, ask))
            case CompareAsk():
                return CompareAnswer(score=_alike(_grams(ask.first), _grams(ask.second)))
            case _:
                raise RefusedError(404, "unsupported", f"{self.name} does not do that")

    def memory(self) -> Bytes | None:
        """Return 0: nothing is kept."""
        return 0

    def close(self) -> None:
        """Do nothing."""


def _grams(text: str) -> Grams:
    padded = f"  {folded(text)} "
    return Counter(padded[at : at + 3] for at in range(len(padded) - 2))


def _alike(first: Grams, second: Grams) -> float:
    return round(2 * (first & second).total() / (first.total() + second.total()), 6)

"""Provider `gensim`: word vectors (word2vec), trained from a corpus when they are first needed."""

from pathlib import Path
from typing import Any, Final

from hostler.kernel.units import Bytes
from hostler.providers.messages import (
    Ask,
    CompareAnswer,
    CompareAsk,
    ExpandAnswer,
    ExpandAsk,
    Match,
    Reply,
    SimilarityAnswer,
    SimilarityAsk,
    Term,
    Verb,
    best,
)
from hostler.providers.nlp.parts import require, shipped_corpus
from hostler.providers.nlp.words import read_corpus, words
from hostler.providers.provider import Halt, Loading, RefusedError

WIDTH: Final = 64
EPOCHS: Final = 40
CONTEXT_WEIGHT: Final = 0.25
COMMON: Final = 1e-3
"""Share of all words from which on a word counts little (smooth inverse frequency: Arora et al. 2017)."""


class VectorsProvider:
    """Nearest words, and passages compared by the weighted mean of theirs; the same corpus gives the same vectors."""

    name = "gensim"
    about = "Word vectors: terms near a concept, passages of like meaning"
    verbs: tuple[Verb, ...] = (Verb.EXPAND, Verb.SIMILARITY, Verb.COMPARE)
    slots = 2

    def __init__(self, corpus: Path | None = None) -> None:
        """Take a corpus (UTF-8, one document a line); the one that gensim ships unless given."""
        self._corpus = corpus
        self._vectors: Any = None
        self._numpy: Any = None
        self._total = 1

    def load(self, loading: Loading) -> None:
        """Import gensim, read the corpus, train."""
        loading.step("importing", "gensim", fraction=0.0)
        models = require("gensim.models")
        self._numpy = require("numpy")
        corpus = self._corpus or shipped_corpus()
        loading.step("reading", corpus.name, fraction=0.2)
        documents = read_corpus(corpus)
        common = 3 if sum(map(len, documents)) >= 10_000 else 1  # noqa: PLR2004 - a small corpus has no word to spare
        model = models.Word2Vec(
            vector_size=WIDTH, window=5, min_count=common, sg=0, negative=5, workers=1, seed=1, epochs=EPOCHS
        )
        model.build_vocab(documents)
        if not len(model.wv):
            raise RefusedError(500, "load_failed", f"corpus {corpus} is too small: no word occurs {common} times")
        callbacks = [_epochs(loading)]
        model.train(
            documents, total_examples=model.corpus_count, epochs=EPOCHS, compute_loss=False, callbacks=callbacks
        )
        model.wv.fill_norms()
        self._total = model.corpus_total_words
        self._vectors = model.wv

    def answer(self, ask: Ask, halt: Halt) -> Reply:
        """Answer by vectors; words that it does not know are named, not guessed."""
        match ask:
            case ExpandAsk():
                return self._expand(ask)
            case SimilarityAsk():
                return self._similarity(ask, halt)
            case CompareAsk():
                first, unknown = self._mean(ask.first)
                second, more = self._mean(ask.second)
                return CompareAnswer(score=self._cosine(first, second), unknown=(*unknown, *more))
            case _:
                raise RefusedError(404, "unsupported", f"{self.name} does not do that")

    def memory(self) -> Bytes | None:
        """Return the size of the vectors and their index."""
        vectors = self._vectors
        if vectors is None:
            return None
        return int(vectors.vectors.nbytes + sum(len(word.encode()) + 64 for word in vectors.index_to_key))

    def close(self) -> None:
        """Drop the vectors."""
        self._vectors = None

    def _expand(self, ask: ExpandAsk) -> ExpandAnswer:
        concept, unknown = self._mean(ask.concept)
        if concept is None:
            return ExpandAnswer(terms=(), unknown=unknown)
        if ask.media_context is not None:
            context, _ = self._mean(ask.media_context)
            concept = concept if context is None else concept + CONTEXT_WEIGHT * context
        own = set(words(ask.concept))
        near = self._vectors.similar_by_vector(concept, topn=ask.max_concepts + len(own))
        terms = [
            Term(term=word, score=round(float(score), 6))
            for word, score in near
            if word not in own and score >= ask.threshold
        ]
        return ExpandAnswer(terms=tuple(terms[: ask.max_concepts]), unknown=unknown)

    def _similarity(self, ask: SimilarityAsk, halt: Halt) -> SimilarityAnswer:
        query, unknown = self._mean(ask.query)
        matches: list[Match] = []
        for index, candidate in enumerate(ask.candidates):
            halt.check()
            mean, _ = self._mean(candidate)
            matches.append(Match(index=index, candidate=candidate, score=self._cosine(query, mean)))
        return SimilarityAnswer(matches=best(matches, ask), unknown=unknown)

    def _mean(self, text: str) -> tuple[Any, tuple[str, ...]]:
        """Return the unit vector of a text (None when no word of it is known), and the words that are not."""
        found = words(text)
        known = [word for word in found if word in self._vectors.key_to_index]
        unknown = tuple(dict.fromkeys(word for word in found if word not in self._vectors.key_to_index))
        if not known:
            return None, unknown
        weights = [COMMON / (COMMON + self._vectors.get_vecattr(word, "count") / self._total) for word in known]
        units = [self._vectors.get_vector(word, norm=True) for word in known]
        mean = self._numpy.average(units, axis=0, weights=weights)
        norm = float(self._numpy.linalg.norm(mean))
        return (mean / norm if norm else None), unknown

    def _cosine(self, first: Any, second: Any) -> float:
        """Return the cosine, 0 when there is nothing to compare."""
        if first is None or second is None:
            return 0.0
        return round(float(self._numpy.dot(first, second)), 6)


def _epochs(loading: Loading) -> Any:
    """Return gensim's callback that says which epoch is under way, and ends the training when it is halted."""
    base: Any = require("gensim.models.callbacks").CallbackAny2Vec

    class Epochs(base):
        def __init__(self) -> None:
            self.done = 0

        def on_epoch_begin(self, model: Any) -> None:  # noqa: ARG002 - gensim's shape
            share = 0.25 + 0.75 * self.done / EPOCHS
            loading.step("training", f"epoch {self.done + 1} of {EPOCHS}", fraction=share)

        def on_epoch_end(self, model: Any) -> None:  # noqa: ARG002 - gensim's shape
            self.done += 1

    return Epochs()

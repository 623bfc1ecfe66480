"""Provider `topics`: what a text is about, which texts are alike, by latent semantics of a corpus (TF-IDF, LSI)."""

from pathlib import Path
from typing import Any, Final

from hostler.kernel.units import Bytes
from hostler.providers.messages import (
    AnalyzeAnswer,
    AnalyzeAsk,
    Ask,
    CompareAnswer,
    CompareAsk,
    Item,
    Match,
    Reply,
    SimilarityAnswer,
    SimilarityAsk,
    Verb,
    best,
)
from hostler.providers.nlp.parts import require, shipped_corpus
from hostler.providers.nlp.words import folded, read_corpus, spans, words
from hostler.providers.provider import Halt, Loading, RefusedError

TOPICS: Final = 100


class TopicsProvider:
    """Telling words of a text (rare in the corpus, frequent here), and passages compared by topic."""

    name = "topics"
    about = "Latent topics: the telling words of a text, passages about the same thing"
    verbs: tuple[Verb, ...] = (Verb.ANALYZE, Verb.SIMILARITY, Verb.COMPARE)
    slots = 2

    def __init__(self, corpus: Path | None = None) -> None:
        """Take a corpus (UTF-8, one document a line); the one that gensim ships unless given."""
        self._corpus = corpus
        self._dictionary: Any = None
        self._weights: Any = None
        self._topics: Any = None
        self._cosine: Any = None

    def load(self, loading: Loading) -> None:
        """Import gensim, read the corpus, weigh its words, find its topics."""
        loading.step("importing", "gensim", fraction=0.0)
        models = require("gensim.models")
        self._cosine = require("gensim.matutils").cossim
        corpus = self._corpus or shipped_corpus()
        loading.step("reading", corpus.name, fraction=0.3)
        documents = read_corpus(corpus)
        dictionary = require("gensim.corpora").Dictionary(documents)
        loading.step("weighing", f"{len(dictionary)} words", fraction=0.5)
        bags = [dictionary.doc2bow(document) for document in documents]
        weights = models.TfidfModel(bags)
        loading.step("training", f"{TOPICS} topics", fraction=0.7)
        self._topics = models.LsiModel(weights[bags], id2word=dictionary, num_topics=TOPICS, random_seed=1)
        self._dictionary, self._weights = dictionary, weights

    def answer(self, ask: Ask, halt: Halt) -> Reply:
        """Answer by weights and topics; words that are not in the corpus are named."""
        match ask:
            case AnalyzeAsk():
                return self._analyze(ask)
            case SimilarityAsk():
                query, unknown = self._place(ask.query)
                matches: list[Match] = []
                for index, candidate in enumerate(ask.candidates):
                    halt.check()
                    place, _ = self._place(candidate)
                    matches.append(Match(index=index, candidate=candidate, score=self._score(query, place)))
                return SimilarityAnswer(matches=best(matches, ask), unknown=unknown)
            case CompareAsk():
                first, unknown = self._place(ask.first)
                second, more = self._place(ask.second)
                return CompareAnswer(score=self._score(first, second), unknown=(*unknown, *more))
            case _:
                raise RefusedError(404, "unsupported", f"{self.name} does not do that")

    def memory(self) -> Bytes | None:
        """Return the size of the topics and the dictionary."""
        if self._topics is None:
            return None
        projection = self._topics.projection
        return int(
            projection.u.nbytes + projection.s.nbytes + sum(len(word) + 120 for word in self._dictionary.token2id)
        )

    def close(self) -> None:
        """Drop the model."""
        self._dictionary = self._weights = self._topics = None

    def _analyze(self, ask: AnalyzeAsk) -> AnalyzeAnswer:
        found = [(folded(ask.text[start:end]), start, end) for start, end in spans(ask.text)]
        bag = self._dictionary.doc2bow([word for word, _, _ in found])
        scores = {self._dictionary[number]: score for number, score in self._weights[bag]}
        items: list[Item] = []
        for word, start, end in found:
            score = scores.pop(word, None)  # the first place of each word
            if score is not None:
                text = ask.text[start:end]
                items.append(Item(text=text, label="telling", start=start, end=end, score=round(float(score), 6)))
        items.sort(key=lambda item: (-(item.score or 0.0), item.start))
        return AnalyzeAnswer(items=tuple(items[: ask.max_items]))

    def _place(self, text: str) -> tuple[Any, tuple[str, ...]]:
        found = words(text)
        known = self._dictionary.token2id
        unknown = tuple(dict.fromkeys(word for word in found if word not in known))
        return self._topics[self._weights[self._dictionary.doc2bow(found)]], unknown

    def _score(self, first: Any, second: Any) -> float:
        return round(float(self._cosine(first, second)), 6) if first and second else 0.0

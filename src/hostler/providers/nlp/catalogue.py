"""The five providers of the language service."""

from collections.abc import Iterable
from pathlib import Path

from hostler.kernel.errors import InvalidError
from hostler.kernel.names import listed, nearest
from hostler.providers.nlp.keywords import KeywordsProvider
from hostler.providers.nlp.spelling import SpellingProvider
from hostler.providers.nlp.temporal import TemporalProvider
from hostler.providers.nlp.topics import TopicsProvider
from hostler.providers.nlp.vectors import VectorsProvider
from hostler.providers.provider import Provider


def nlp_providers(corpus: Path | None = None, *, only: Iterable[str] = ()) -> tuple[Provider, ...]:
    """Return the providers, or `only` some by name; nothing is loaded yet. `InvalidError` for a name that is none."""
    every: tuple[Provider, ...] = (
        VectorsProvider(corpus),
        TopicsProvider(corpus),
        TemporalProvider(),
        KeywordsProvider(),
        SpellingProvider(),
    )
    names = [provider.name for provider in every]
    chosen = tuple(only) or tuple(names)
    for name in chosen:
        if name not in names:
            raise InvalidError(
                f"there is no provider {name!r}{nearest(name, names) or f'; there are {listed(names)}'}",
                field="provider",
                name=name,
            )
    return tuple(provider for provider in every if provider.name in chosen)

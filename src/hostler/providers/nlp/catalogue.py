"""The five providers of the language service."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from hostler.kernel.errors import InvalidError, MissingExtraError
from hostler.kernel.names import listed, nearest
from hostler.providers.nlp.keywords import KeywordsProvider
from hostler.providers.nlp.spelling import SpellingProvider
from hostler.providers.nlp.temporal import TemporalProvider
from hostler.providers.nlp.topics import TopicsProvider
from hostler.providers.nlp.vectors import VectorsProvider
from hostler.providers.provider import Provider

PACKAGES: Final[Mapping[str, str]] = {
    VectorsProvider.name: "gensim",
    TopicsProvider.name: "gensim",
    TemporalProvider.name: "dateparser",
}
"""What the extra `nlp` brings for a provider; the others need nothing."""


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


def judge_packages(chosen: Iterable[Provider]) -> None:
    """Raise `MissingExtraError` when a package is absent without which one of these could never load."""
    names = [provider.name for provider in chosen]
    absent = [name for name in names if name in PACKAGES and find_spec(PACKAGES[name]) is None]
    if absent:
        packages = listed({PACKAGES[name] for name in absent})
        rest = " ".join(f"--provider {name}" for name in names if name not in absent)
        raise MissingExtraError(
            f"{packages}: absent, and {listed(absent)} cannot do without; run: pip install 'hostler[nlp]'"
            f"{f', or serve the rest: {rest}' if rest else ''}",
            extra="nlp",
            providers=absent,
        )

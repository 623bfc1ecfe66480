"""Heavy packages, imported when they are first needed, and the corpus that one of them ships."""

import importlib
import logging
import os
from pathlib import Path
from typing import Any, Final

from hostler.kernel.errors import MissingExtraError

SHIPPED: Final = "lee_background.cor"
"""300 news texts (Lee, Pincombe and Welsh 2005), 60,000 words: part of gensim's own tests."""


def require(module: str) -> Any:
    """Import a module of the extra `nlp`; `MissingExtraError` has the pip line."""
    logging.getLogger("gensim").setLevel(logging.WARNING)  # it tells every epoch; so do we, on request
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read once, by numpy; more threads spin on matrices this small
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{package} is absent; run: pip install 'hostler[nlp]'", extra="nlp", module=package
        ) from error


def shipped_corpus() -> Path:
    """Return the path of the corpus that gensim ships."""
    return Path(require("gensim.test.utils").datapath(SHIPPED))

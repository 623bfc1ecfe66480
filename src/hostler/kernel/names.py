"""Names that people type: what they may have meant, and how a connector's class and name follow from one another."""

import difflib
import re
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the known names most like this one, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence lists them; `none` when there are none."""
    return ", ".join(sorted(names)) or "none"


def class_name(connector: str) -> str:
    """Return the class of a connector: `simulation-http` is `SimulationHttpConnector`."""
    return "".join(part.capitalize() for part in re.split("[-_]", connector)) + "Connector"

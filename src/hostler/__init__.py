"""Hostler: one durable job fabric for fleets of AI services."""

import importlib
from typing import TYPE_CHECKING, Any

from hostler.kernel.version import __version__

if TYPE_CHECKING:
    from hostler.client import connect as connect
    from hostler.client import connect_sync as connect_sync
    from hostler.worker.call import Call as Call
    from hostler.worker.call import Failed as Failed
    from hostler.worker.handlers import handler as handler

__all__ = ["Call", "Failed", "__version__", "connect", "connect_sync", "handler"]

_LAZY = {
    "Call": "hostler.worker.call",
    "Failed": "hostler.worker.call",
    "connect": "hostler.client",
    "connect_sync": "hostler.client",
    "handler": "hostler.worker.handlers",
}
"""Public names by the module that has them: importing `hostler` alone loads nothing else."""


def __getattr__(name: str) -> Any:
    """Return a public name, importing its module on first use."""
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'hostler' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value

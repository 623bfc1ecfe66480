"""How long each stage of a job may take."""

from msgspec import Struct

from hostler.kernel.units import Seconds


class Timeouts(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Limits by stage; `None` in a job means the kind's, `None` in a kind means no limit.

    A kind that says nothing gets `SERVICE_TIMEOUTS` (it drives a service) or `HANDLER_TIMEOUTS` (plain Python).
    """

    queue: Seconds | None = None
    """Longest wait before the first start; then `expired`."""
    connect: Seconds | None = None
    load: Seconds | None = None
    first_byte: Seconds | None = None
    idle: Seconds | None = None
    """Longest silence of running work: no progress, no byte."""
    run: Seconds | None = None
    """Longest single attempt."""


LOADING = frozenset({"load", "loading"})
"""Stages of progress in which a service loads a model: `load` is the limit then, not `idle`."""
SERVICE_TIMEOUTS = Timeouts(connect=5.0, load=300.0, first_byte=120.0, idle=120.0, run=900.0)
HANDLER_TIMEOUTS = Timeouts(idle=900.0, run=900.0)

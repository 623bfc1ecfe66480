"""What a worker offers, and whose amounts it uses up."""

from msgspec import Struct


class Pool(Struct, frozen=True, kw_only=True):
    """Where an amount comes from: a worker, an endpoint, a GPU, a provider account."""

    id: str
    """Same id, same pool: two workers in front of one GPU share it."""
    total: float
    free: float | None = None
    """What this worker can spare now (it may serve several queues); None means all."""


class Offer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a worker can do: some kinds, on some service, with what that service has.

    A worker fits a lane when at least one of its offers does.
    """

    kinds: tuple[str, ...]
    service: str | None = None
    endpoint: str | None = None
    healthy: bool = True
    """Whether the endpoint answers; an unhealthy offer serves nothing."""
    models: tuple[str, ...] = ()
    """What is available; meaningless unless `models_known`."""
    models_known: bool = True
    labels: dict[str, str] = {}
    versions: dict[str, str] = {}
    isolation: tuple[str, ...] = ("none",)
    pools: dict[str, Pool] = {}
    """Amounts it has, by name."""

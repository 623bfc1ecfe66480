"""What a worker offers, and whose amounts it uses up."""

from typing import Annotated

from msgspec import Meta, Struct


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


class Standing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an offer stands now beside the worker's others: it decides which of them a job gets, never whether one fits.

    It changes with every call, so it goes with each claim and is no part of what a worker announces.
    """

    weight: Annotated[float, Meta(ge=0.001, le=1000.0)] = 1.0
    """How dear a call is, 1 being the usual: slow endpoints and those that have just come cost more."""
    loaded: tuple[str, ...] | None = None
    """Models in its memory; None when it does not say."""
    swaps: tuple[str, ...] | None = None
    """Models that it may load now in place of those; None for any."""

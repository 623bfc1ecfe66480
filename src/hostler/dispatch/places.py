"""An endpoint's slots, where several queues share them."""

from collections.abc import Mapping, Sequence

from hostler.contracts.limit import Limit, LimitKind, Want
from hostler.contracts.offer import Pool
from hostler.contracts.service import Failed, Finished, ServiceCall
from hostler.policy.limits import safe


class SharedPlaces:
    """The slots of one endpoint as a limit of calls in flight.

    A claim counts what runs in its own queue, exactly and for nothing. Only where jobs of several queues go to one
    endpoint is there more to count, so only there calls take a place of this as well.
    """

    def __init__(self) -> None:
        self.shared = False
        """Whether jobs of several queues go there."""
        self.pool: Pool | None = None
        """Its slots; None while it does not say how many calls it takes."""

    def wants(self, call: ServiceCall) -> tuple[tuple[Want, bool], ...]:  # noqa: ARG002 - a place is a place
        """Return one place, where places are shared."""
        pool = self.pool
        if not self.shared or pool is None or pool.total < 1:
            return ()
        limit = Limit(name=safe(f"{pool.id}|shared"), kind=LimitKind.IN_FLIGHT, most=int(pool.total))
        return ((Want(limit=limit), False),)

    def used(self, call: ServiceCall, wants: Sequence[Want], ended: Finished | Failed) -> Mapping[str, int]:  # noqa: ARG002 - as above
        """Return nothing: places are no amounts."""
        return {}

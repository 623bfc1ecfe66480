"""The executable promise of the broker and registry ports: one class for every adapter, wrapper and fake."""

import pytest

from hostler.testing.broker_affinity import AffinityPromises
from hostler.testing.broker_apart import ApartPromises
from hostler.testing.broker_claim import AmountPromises, KeyPromises, MatchPromises, OrderPromises
from hostler.testing.broker_house import BrokerHarness, House
from hostler.testing.broker_lease import LeasePromises, SettlePromises
from hostler.testing.broker_life import AgainPromises, CancelPromises, ExpiryPromises, ShownPromises, WhyPromises
from hostler.testing.broker_place import PlacePromises
from hostler.testing.broker_preview import PreviewPromises
from hostler.testing.broker_submit import LimitPromises, SubmitPromises
from hostler.testing.broker_watch import BookPromises, EventPromises, RosterPromises


class BrokerConformance(
    SubmitPromises,
    LimitPromises,
    OrderPromises,
    MatchPromises,
    AmountPromises,
    PlacePromises,
    AffinityPromises,
    KeyPromises,
    LeasePromises,
    ApartPromises,
    SettlePromises,
    PreviewPromises,
    CancelPromises,
    AgainPromises,
    ShownPromises,
    ExpiryPromises,
    WhyPromises,
    EventPromises,
    BookPromises,
    RosterPromises,
):
    """Subclass it, override `harness`, and every promise is a test.

    `harness` gives a fresh, empty broker whose clock the test holds; nothing is declared in it yet.
    """

    @pytest.fixture
    async def harness(self) -> BrokerHarness:
        """Return (or yield) the broker under test."""
        raise NotImplementedError("override the fixture `harness`")

    @pytest.fixture
    async def house(self, harness: BrokerHarness) -> House:
        """Return the harness with its queue and kinds declared."""
        house = House(harness)
        await house.open()
        return house


__all__ = ["BrokerConformance", "BrokerHarness", "House"]

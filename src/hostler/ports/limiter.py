"""Limits that hold for all processes together."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from hostler.contracts.limit import Grant, Limit, LimitLook, LimitView, Wait, Want
from hostler.kernel.units import Seconds


class Limiter(Protocol):
    """Grants calls; what it grants keeps to each limit by its own clock, whoever asks, from wherever.

    In every window of a limit's `per` seconds, not more than `most` calls, or units of an amount, are granted.
    Amounts count when they are reserved; a call that used more than it reserved is charged for it when it is settled.
    """

    async def take(
        self,
        call: str,
        wants: Sequence[Want],
        *,
        fence: int = 0,
        lease: Seconds = 60.0,
        narrow: Collection[str] = (),
        held: str | None = None,
        patience: Seconds = 0.0,
    ) -> Grant | Wait:
        """Take what `call` needs of all these limits in one step, or nothing of any.

        Amounts and places in flight are leased to the call for `lease` seconds: a process that dies gives its places
        back then; what it reserved stays charged. A call that holds its lease already pays nothing of those again.
        A higher `fence` is a later attempt at the same call: it takes over the place that an earlier one held, reserves
        amounts anew, and no earlier one has a say over them any more.

        Limits that are named `narrow` have a line: who is refused by one is told a moment of its own (`Wait.line`),
        after those of all who were refused before, and nobody without one goes before them. `held` names the limit in
        whose line the call had a moment, which is now: when it cannot go even so, it keeps that as long as it would
        wait for no longer than `patience`, else it is told another. Moments whose calls do not come are given up soon.
        `InvalidError` for a call that needs more units than may ever go at once, or names a limit twice.
        """
        ...

    async def settle(
        self, call: str, wants: Sequence[Want], *, fence: int = 0, used: Mapping[str, int] | None = None
    ) -> bool:
        """End a call: free its places in flight, and give back or charge what amounts it `used` by a limit's name.

        An amount that `used` does not name was used as reserved. What was reserved is given back as far as it has not
        come back by time already. False when no lease of the call was left. Idempotent.
        """
        ...

    async def renew(self, call: str, wants: Sequence[Want], *, fence: int = 0, lease: Seconds = 60.0) -> bool:
        """Prolong the leases of a call that takes longer; False when one of them had run out.

        A higher `fence` takes them over, amounts as they were reserved.
        """
        ...

    async def hold(self, name: str, seconds: Seconds) -> None:
        """Grant nothing of this limit for so long, since the service said so (429, a reset time); a day at most.

        The longest that anybody heard counts.
        """
        ...

    async def lift(self, name: str, *, reason: str = "") -> bool:
        """End a hold before its time, with an event; what was used stays used. False when there was none."""
        ...

    async def list(self, *, most: int = 10_000) -> tuple[LimitView, ...]:
        """Return the limits that say anything now, by name, `most` of them at most; the others are as if unused."""
        ...

    async def look(self, limits: Sequence[Limit]) -> tuple[LimitLook, ...]:
        """Return how these limits are now, in this order; changes nothing."""
        ...

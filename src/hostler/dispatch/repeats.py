"""How much of a service's work one process does again: the one place where retries, hedges among them, are bounded."""

from hostler.kernel.units import Seconds
from hostler.policy import budget
from hostler.policy.budget import Budget
from hostler.policy.latency import Latency
from hostler.ports.clock import Clock, Dice


class Repeats:
    """The retry budget of one service; not safe for several threads."""

    def __init__(self, service: str, *, clock: Clock, dice: Dice) -> None:
        self.service = service
        self._clock, self._dice = clock, dice
        self._budget = Budget()

    @property
    def spent(self) -> bool:
        """Tell whether nothing may be repeated now."""
        return budget.left(self._budget, self._clock.monotonic()) < 1.0

    def called(self) -> None:
        """Note that work is handed over for the first time."""
        self._budget = budget.called(self._budget, self._clock.monotonic())

    def unsaid(self) -> None:
        """Take a first call back that was never sent."""
        self._budget = budget.unsaid(self._budget, self._clock.monotonic())

    def take(self) -> bool:
        """Take one repeat out; False when there is none left."""
        taken = budget.repeat(self._budget, self._clock.monotonic())
        self._budget = taken or self._budget
        return taken is not None

    def hedge_after(self, latency: Latency) -> Seconds | None:
        """Return after how long a second call may be sent beside a first; None for never, as things are."""
        return budget.hedge_after(latency, budget=self._budget, now=self._clock.monotonic())

    def give_back(self) -> None:
        """Put a repeat back that went well or was never sent: it adds to no storm, and the next ones need not wait."""
        self._budget = budget.given_back(self._budget, self._clock.monotonic())

    def pause(self) -> Seconds:
        """Return how long a job waits that found nothing left."""
        return budget.put_off(self._dice.roll())

"""What an endpoint that holds one model at a time has in its memory, as the calls that go there tell."""

import math
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.offer import Standing
from hostler.contracts.service import Shared
from hostler.kernel.units import Seconds
from hostler.policy.pressure import DWELL, Line, Loaded, free, swap
from hostler.ports.clock import Clock

LULL: Final[Seconds] = 3.0
"""How long nothing may come of jobs that are said to wait; then they evidently cannot come here, and others may."""
LOADS: Final = 10.0
"""A model need stay no longer than so many loads take, where one was seen: then loads are a tenth of the time."""
RECENT: Final[Seconds] = 30.0
"""How fast it is forgotten that a model was asked for."""
DEAREST: Final = 64.0
"""An endpoint whose model is in demand counts as so many times dearer to those who would put that out, at most."""
BESIDE: Final[Seconds] = 0.6
"""A call that another worker told of counts as under way for so long: each tells several times a second."""
SMOOTH: Final = 0.25
"""Weight of the latest call in the usual length of one."""
_CANNOT: Final = frozenset({FailureClass.OUT_OF_MEMORY, FailureClass.CAPABILITY_MISMATCH})


class Memory:
    """Follows which model is in memory from calls and probes, and says which jobs may make it change.

    A call that names a model brings it there, from its beginning on; a probe corrects that while nothing runs. Where
    `single` is False (the endpoint holds several, or does not say) it says nothing and keeps nobody away.

    Of several workers in front of one endpoint one decides; the others follow it and load nothing else.
    """

    def __init__(self, clock: Clock, *, dwell: Seconds = DWELL) -> None:
        self._clock = clock
        self._dwell = dwell
        self._loaded = self._before = Loaded()
        self._lines: Mapping[str, Line] = {}
        self._usual: Seconds | None = None
        self._asked = 0.0
        """Calls for the model in memory; each counts less as time goes by."""
        self._asked_at = clock.monotonic()
        self._under_way = 0
        self._quiet_since = clock.monotonic()
        self.single = False
        """Whether a load puts the model that is there out."""
        self.next: str | None = None
        """The model that it is to load, once what runs has ended."""
        self.begun: tuple[str, ...] = ()
        """Models that were begun to be loaded, and other workers were not told yet."""
        self._heard: int = 0
        """Number of the latest load that was told."""
        self._follows = False
        """Whether another worker decides."""
        self._beside_until = -math.inf
        """Until when calls of other workers count as under way."""

    @property
    def models(self) -> Collection[str]:
        """Return the names of the model in memory; empty for none."""
        return self._loaded.models

    def saw(self, models: Collection[str] | None, *, single: bool) -> None:
        """Take in what a probe found; None when the endpoint does not say."""
        self.single = single
        if models is None or self._under_way or self._is_beside:
            return
        if set(models) & set(self._loaded.models):  # the same one, by all its names
            self._loaded = msgspec.structs.replace(self._loaded, models=tuple(models))
        elif set(models) != set(self._loaded.models):
            self._hold(models)

    def begins(self, models: Collection[str]) -> bool:
        """Note that a call for these models begins; tell whether they have to be loaded for it."""
        if not models:
            return False
        self._under_way += 1
        loads = not set(models) <= set(self._loaded.models)
        if loads:
            self._before = self._loaded
            self._hold(models)
            self.begun = tuple(models)
        now = self._clock.monotonic()
        self._asked, self._asked_at = 1.0 + (0.0 if loads else self._demand(now)), now
        return loads

    def ended(self, models: Collection[str], failure: Failure | None, took: Seconds, *, loads: bool) -> None:
        """Note how a call for these models ended, `loads` as `begins` told."""
        if not models:
            return
        self._under_way -= 1
        self._quiet_since = self._clock.monotonic()
        if failure is None:
            self._learn(took, loads=loads)
        elif loads and (failure.unsent or failure.class_ is FailureClass.CANCELLED):
            if set(models) == set(self._loaded.models):  # as far as is known it loaded nothing; a probe knows better
                self._loaded = self._before
        elif loads and (failure.class_ in _CANNOT or failure.stage is Stage.LOAD):
            failed = {**self._loaded.failed, **dict.fromkeys(models, self._quiet_since)}
            self._loaded = msgspec.structs.replace(self._loaded, models=(), failed=failed)

    def decide(self, lines: Mapping[str, Line], able: Collection[str]) -> None:
        """Decide which model it is to load next, from the jobs that wait, unless another worker decides."""
        if self._follows:
            self._lines = lines
            return
        if self._is_quiet:
            came_not = {self.next, *self._loaded.models}
            lines = {model: line for model, line in lines.items() if model not in came_not}
        before, self._lines = self.next, lines
        dwell = min(self._dwell, LOADS * self._loaded.load) if self._loaded.load else self._dwell
        self.next = swap(self._loaded, lines, able=able, now=self._clock.monotonic(), dwell=dwell)
        if self.next is not None and before is None:
            self._quiet_since = self._clock.monotonic()

    def heed(self, shared: Shared, *, worker: str, told: Collection[str]) -> None:
        """Take in what all workers in front of it told; `told` are the models that this one, `worker`, just told of."""
        now = self._clock.monotonic()
        if tuple(told) == self.begun:
            self.begun = ()
        if shared.idle is not None:
            self._quiet_since = max(self._quiet_since, now - shared.idle)
            self._beside_until = now - shared.idle + BESIDE
        if shared.loads != self._heard:
            self._heard = shared.loads
            if shared.by != worker and shared.models and not set(shared.models) <= set(self._loaded.models):
                self._hold(shared.models)
                self._loaded = msgspec.structs.replace(self._loaded, since=now - shared.age)
        self._follows = shared.keeper != worker
        if self._follows:
            self.next = None if shared.coming in self._loaded.models else shared.coming

    def standing(self, weight: float, able: Collection[str], *, busy: bool, taken: Collection[str]) -> Standing:
        """Return how it stands: what it holds, and what may be loaded.

        While it is to change, it takes only jobs of the next model, and while something runs none that name one. Else
        it takes those of its own model, and others while nobody waits for that, unless another endpoint holds theirs
        (`taken`) or another worker decides.
        """
        loaded, busy = tuple(self._loaded.models), busy or self._is_beside
        if self.next is not None:
            return Standing(weight=weight, loaded=(), swaps=() if busy else (self.next,))
        wanted = any((line := self._lines.get(name)) is not None and line.waiting > 0 for name in loaded)
        if busy or wanted or self._follows:
            return Standing(weight=weight, loaded=loaded, swaps=())
        now = self._clock.monotonic()
        open_to = free(self._loaded, able, now=now) - frozenset(taken)
        dear = min(DEAREST, 1.0 + self._demand(now))  # so that what is put out is what is asked for least
        return Standing(weight=weight * dear, loaded=loaded, swaps=tuple(sorted(open_to)))

    @property
    def _is_beside(self) -> bool:
        return self._clock.monotonic() < self._beside_until

    @property
    def _is_quiet(self) -> bool:
        return self._under_way == 0 and not self._is_beside and self._clock.monotonic() - self._quiet_since >= LULL

    def _demand(self, now: Seconds) -> float:
        return self._asked * math.exp((self._asked_at - now) / RECENT)

    def _hold(self, models: Collection[str]) -> None:
        failed = {name: at for name, at in self._loaded.failed.items() if name not in models}
        self._loaded = msgspec.structs.replace(
            self._loaded, models=tuple(models), since=self._clock.monotonic(), failed=failed
        )
        if self.next in models:
            self.next = None

    def _learn(self, took: Seconds, *, loads: bool) -> None:
        """A call that had to load took so much longer than the others as the load did."""
        if not loads:
            self._usual = took if self._usual is None else self._usual + SMOOTH * (took - self._usual)
        elif self._usual is not None:
            self._loaded = msgspec.structs.replace(self._loaded, load=max(0.0, took - self._usual))

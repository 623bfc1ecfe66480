"""Which endpoints could run a job, and what keeps each of them from it now: pure, from what workers report."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from hostler.contracts.explain import Candidate, Hindrance, Obstacle
from hostler.contracts.needs import Lane
from hostler.contracts.offer import Offer, Pool
from hostler.contracts.service import BreakerMode, Cooling, Endpoint, EndpointState, Traffic
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.units import Instant, Seconds
from hostler.policy.matching import Lack, misses

CANDIDATES: Final = 200
"""Most candidates that one explanation lists."""
OLD: Final[Seconds] = 5.0
"""Facts older than this are said with their age; a worker reports every few seconds."""

_TAKING: Final = frozenset({WorkerState.READY, WorkerState.BUSY})
_WELL: Final = frozenset({EndpointState.READY, EndpointState.DEGRADED})
_ASKED_FOR: Final = ("models", "versions.", "labels.", "amounts.", "avoid.models", "avoid.versions.", "avoid.labels.")
"""Needs of which only the endpoint itself can say whether it meets them."""

Amounts = Mapping[str, float]
"""Amounts by name; those that running jobs take, by `<pool>|<amount>`."""
NONE: Final[Amounts] = {}


class Survey:
    """What a job meets at the workers of its queue, at one moment of the engine's clock.

    `asked` are the amounts as the job names them, which its lane rounds.
    """

    def __init__(
        self, lane: Lane, workers: Sequence[Worker], *, now: Instant, taken: Amounts = NONE, asked: Amounts = NONE
    ) -> None:
        self._lane = lane
        self._now = now
        self._taken, self._asked = taken, asked
        self._sights: list[tuple[str, Candidate, bool]] = []
        """The name of the place, what it is, and whether it has what the job needs."""
        for worker in workers:
            self._sights += self._of(worker)

    @property
    def endpoints(self) -> int:
        """Return how many endpoints there are, handlers of this kind counted as one per worker."""
        return len({place for place, _, _ in self._sights})

    @property
    def open(self) -> int:
        """Return how many of them can take the job now."""
        return len({place for place, candidate, _ in self._sights if not candidate.hindrances})

    def kept_out(self) -> dict[Obstacle, int]:
        """Return how many cannot, by what keeps them."""
        free = {place for place, candidate, _ in self._sights if not candidate.hindrances}
        pairs = {
            (place, each.what)
            for place, candidate, _ in self._sights
            for each in candidate.hindrances
            if place not in free
        }
        counts = {what: sum(one is what for _, one in pairs) for what in Obstacle}
        return {what: count for what, count in counts.items() if count}

    def candidates(self) -> tuple[Candidate, ...]:
        """Return those that have what the job needs, by endpoint and worker."""
        fit = [candidate for _, candidate, has in self._sights if has]
        return tuple(sorted(fit, key=lambda one: (one.endpoint or "", one.worker))[:CANDIDATES])

    def sentences(self) -> list[str]:
        """Return what is to be said of them; nothing while one can take the job."""
        if self.open or not self._sights:
            return []
        counts = ", ".join(f"{count} {what}" for what, count in self.kept_out().items())
        said = [f"no endpoint can take it now (of {self.endpoints}: {counts})"]
        return said + [_sentence(one) for one in self.candidates()[:10]]

    def _of(self, worker: Worker) -> Iterator[tuple[str, Candidate, bool]]:
        seen: dict[str, list[Endpoint]] = {}
        for endpoint in worker.endpoints:
            seen.setdefault(endpoint.id, []).append(endpoint)
        age = max(0.0, (self._now - worker.seen_at).total_seconds())
        for offer in worker.offers:
            endpoint = None
            if offer.endpoint is None:
                if self._lane.kind not in offer.kinds:
                    continue
            elif told := seen.get(offer.endpoint):
                endpoint = told.pop(0)  # one address may be served twice, with other options: both in the same order
            lacked = self._lacked(offer, worker)
            hindrances = (*_unfit(lacked), *self._held_up(worker, offer, endpoint))
            candidate = Candidate(worker=worker.id, endpoint=offer.endpoint, hindrances=hindrances, age_s=round(age, 3))
            yield offer.endpoint or f" {worker.id}", candidate, not lacked

    def _lacked(self, offer: Offer, worker: Worker) -> list[Lack]:
        own = {"slots": Pool(id=worker.id, total=float(worker.slots))}
        found = [lack for lack in misses(self._lane, offer, worker=worker.id, pools=own) if lack.key != "healthy"]
        if not offer.healthy and "slots" not in offer.pools:  # it was never asked what it has
            return [lack for lack in found if not lack.key.startswith(_ASKED_FOR)]
        return found

    def _held_up(self, worker: Worker, offer: Offer, endpoint: Endpoint | None) -> Iterator[Hindrance]:
        if worker.state not in _TAKING:
            because = f": {worker.reason}" if worker.reason else ""
            yield Hindrance(what=Obstacle.WORKER, words=f"the worker is {worker.state}{because}")
        if endpoint is None:
            if not offer.healthy:
                yield Hindrance(what=Obstacle.HEALTH, words="it is unhealthy")
        else:
            yield from self._at(worker, endpoint)
        full = next(self._full(worker, offer), None)
        if full is None and endpoint is not None:
            full = _learned(endpoint.traffic)
        if full is not None:
            yield full

    def _at(self, worker: Worker, endpoint: Endpoint) -> Iterator[Hindrance]:
        traffic = endpoint.traffic
        if endpoint.state is EndpointState.DRAINING:
            yield Hindrance(what=Obstacle.DRAINING, words="it leaves: nothing new begins there")
        elif endpoint.state not in _WELL:
            words = f"it is {endpoint.state}: {endpoint.message or 'it was not probed yet'}"
            yield Hindrance(what=Obstacle.HEALTH, words=words)
        if endpoint.paused is not None:
            because = f": {endpoint.paused}" if endpoint.paused else ""
            yield Hindrance(what=Obstacle.PAUSE, words=f"an operator paused it{because}")
        yield from self._broken(worker, traffic)
        models = set(self._lane.needs.models) - set(endpoint.loaded or ())
        if endpoint.may_load is not None and not models <= set(endpoint.may_load):
            held = ", ".join(endpoint.loaded or ()) or "none"
            words = f"it holds one model at a time, now {held}: {', '.join(sorted(models))} may not be loaded yet"
            yield Hindrance(what=Obstacle.MODEL, words=words)
        if traffic.cooled_s and (until := self._later(worker, traffic.cooled_s)) is not None:
            yield Hindrance(what=_COOLED[traffic.cooled_by or Cooling.ASKED], words=_cooled(traffic), until=until)

    def _broken(self, worker: Worker, traffic: Traffic) -> Iterator[Hindrance]:
        last = f"last error: {traffic.last_error}" if traffic.last_error else "no error is known"
        if traffic.forced:
            return
        if traffic.breaker is BreakerMode.OPEN:
            until = self._later(worker, traffic.breaker_s or 0.0)
            if until is not None:
                failed = f"{traffic.failed} of {traffic.calls} calls failed, " if traffic.calls else ""
                yield Hindrance(what=Obstacle.BREAKER, words=f"its breaker is open; {failed}{last}", until=until)
        elif traffic.breaker is BreakerMode.HALF_OPEN and traffic.in_flight:
            words = f"a call tries it out, since its breaker was open; {last}"
            yield Hindrance(what=Obstacle.BREAKER, words=words)

    def _full(self, worker: Worker, offer: Offer) -> Iterator[Hindrance]:
        """Yield an amount that is used up here: the worker's own, or what the endpoint has for all workers."""
        own = Pool(id=worker.id, total=float(worker.slots))
        for name, amount in self._lane.needs.amounts.items():
            for pool in (own if name == "slots" else None, offer.pools.get(name)):
                if pool is None or pool.total < amount:
                    continue
                left = pool.total - self._taken.get(f"{pool.id}|{name}", 0.0)
                if left < amount:
                    wanted = self._asked.get(name, amount)
                    words = f"it needs {wanted:.10g} {name}: {pool.id} has {left:g} of {pool.total:g} left"
                    yield Hindrance(what=Obstacle.FULL, words=words)
                    break

    def _later(self, worker: Worker, seconds: Seconds) -> Instant | None:
        """Return the end of a pause that a worker reported; None when it is over by now."""
        until = worker.seen_at + timedelta(seconds=seconds)
        return until if until > self._now else None


_COOLED: Final = {
    Cooling.ASKED: Obstacle.COOLING,
    Cooling.MISMATCH: Obstacle.COOLING,
    Cooling.QUOTA: Obstacle.QUOTA,
    Cooling.LIMIT: Obstacle.QUOTA,
}


def _cooled(traffic: Traffic) -> str:
    words = {
        Cooling.ASKED: "the service asked to be left alone",
        Cooling.MISMATCH: "it lacks what it says it has",
        Cooling.QUOTA: "its account has nothing left",
        Cooling.LIMIT: "a limit that all workers share is used up",
    }[traffic.cooled_by or Cooling.ASKED]
    return f"{words}: {traffic.cooled_why}" if traffic.cooled_why else words


def _learned(traffic: Traffic) -> Hindrance | None:
    if traffic.limit is None or traffic.in_flight < traffic.limit:
        return None
    words = f"the worker has {traffic.in_flight} calls there, as many as it has learned to send at a time"
    return Hindrance(what=Obstacle.FULL, words=words)


def _unfit(lacked: Sequence[Lack]) -> Iterator[Hindrance]:
    for lack in lacked:
        what = Obstacle.ISOLATION if lack.key.endswith("isolation") else Obstacle.CAPABILITY
        has = "none" if lack.has is None else lack.has
        yield Hindrance(what=what, words=f"{lack.key}: wanted {lack.wanted}, it has {has}")


def _sentence(one: Candidate) -> str:
    place = f"{one.endpoint} (by {one.worker})" if one.endpoint else f"handlers of {one.worker}"
    said = [f"{each.words}{f', until {each.until.isoformat()}' if each.until else ''}" for each in one.hindrances]
    age = f" (as {one.worker} reported {one.age_s:.0f} s ago)" if one.age_s >= OLD else ""
    return f"{place}: {'; '.join(said)}{age}"

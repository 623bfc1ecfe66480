"""A record, sorted into what the invariants look at."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final, TypeVar

import msgspec

from hostler.chaos.acts import Act, acts_of
from hostler.chaos.facts import History, Seen, Submission, Told
from hostler.chaos.reading import Record
from hostler.chaos.record import (
    Books,
    Effect,
    Events,
    Fault,
    Mark,
    Op,
    Roster,
    Said,
    Terms,
)
from hostler.chaos.record import (
    Final as FinalJob,
)
from hostler.chaos.values import Answers, Endings, Refs, Requests, Stale, Words
from hostler.contracts.event import Event, Life
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import Job
from hostler.kernel.errors import InvalidError
from hostler.kernel.units import Seconds

NO_QUEUE: Final = ""
"""Where submits are kept that name no queue, of a record without events."""

WORKS_ON: Final = timedelta(seconds=30)
"""How long a service may go on with work whose claim the engine lost: until its worker was told, and it was stopped."""

L = TypeVar("L", bound=Said)


class Whole:
    """One history with the look-ups that several rules share; `InvalidError` when its parts cannot belong together."""

    def __init__(self, record: Record) -> None:
        self.header = record.header
        self.torn = record.torn
        self.leaks = record.leaks
        self._lines: dict[type[Said], list[Said]] = {}
        for line in record.lines:
            self._lines.setdefault(type(line), []).append(line)
        self.acts: tuple[Act, ...] = acts_of(self.of(Op))

    def of(self, kind: type[L]) -> list[L]:
        """Return the lines of one kind, as they stand in the record."""
        return [line for line in self._lines.get(kind, ()) if isinstance(line, kind)]

    @cached_property
    def faults(self) -> list[Fault]:
        """Return what was broken on purpose, in order of beginning."""
        return sorted(self.of(Fault), key=lambda fault: fault.begin)

    def mark(self, what: str) -> Mark | None:
        """Return the last mark of this kind."""
        return next((mark for mark in reversed(self.of(Mark)) if mark.what == what), None)

    @cached_property
    def read(self) -> bool:
        """Tell whether the record says that it was finished: all that could be read at the end stands in it."""
        return self.mark("read") is not None and not self.torn

    @cached_property
    def streams(self) -> Mapping[str, tuple[Event, ...]]:
        """Return each queue's events by offset, each once; of jobs that began before the record only the offsets."""
        found: dict[str, dict[bytes, Event]] = {}
        for line in self.of(Events):
            mine = found.setdefault(line.queue, {})
            mine.update({msgspec.json.encode(event): event for event in line.events})
        return {
            queue: _masked(sorted(events.values(), key=lambda event: event.offset))
            if queue in self.partial
            else tuple(sorted(events.values(), key=lambda event: event.offset))
            for queue, events in found.items()
        }

    @cached_property
    def partial(self) -> frozenset[str]:
        """Return the queues whose first events were gone before they were read."""
        return frozenset(line.queue for line in self.of(Events) if line.gap)

    @cached_property
    def lives(self) -> Mapping[str, tuple[Life, ...]]:
        """Return the last epochs of each queue's stream, oldest first."""
        return {line.queue: line.lives for line in self.of(Books)}

    @cached_property
    def home(self) -> Mapping[str, str]:
        """Return each job's queue, as its events and its last state tell."""
        homes = {event.job: queue for queue, events in self.streams.items() for event in events if event.job}
        return homes | {line.job.id: line.job.queue for line in self.of(FinalJob)}

    @cached_property
    def windows(self) -> tuple[tuple[Seconds, Seconds], ...]:
        """Return the times, by `t_mono`, in which what the engine acknowledged may have been lost by it."""
        return tuple(window for fault in self.faults for window in fault.loses)

    def undone(self, act: Act) -> bool:
        """Tell whether what was answered may have been lost: the answer came in such a time."""
        return any(begin <= act.end <= end for begin, end in self.windows)

    @cached_property
    def forgotten(self) -> frozenset[str]:
        """Return the jobs that were acknowledged in such times only, and of which nothing is known at the end."""
        said = [
            (answer.id, self.undone(act))
            for act in self.acts
            if act.op == "submit" and isinstance(act.answered, Answers)
            for answer in act.answered.answers
            if answer.id is not None and answer.id not in self.home
        ]
        return frozenset(job for job, undone in said if undone) - {job for job, undone in said if not undone}

    @cached_property
    def holders(self) -> frozenset[str]:
        """Return the workers that ever claimed."""
        return frozenset(event.worker for stream in self.streams.values() for event in stream if event.worker)

    @cached_property
    def queues(self) -> tuple[str, ...]:
        """Return every queue of which anything is known."""
        named = [line.queue for line in (*self.of(Events), *self.of(Books))]
        named += [act.queue for act in self.acts if act.queue is not None]
        named += [*self.header.queues, *self.home.values()]
        return tuple(dict.fromkeys(named)) or (NO_QUEUE,)

    @cached_property
    def histories(self) -> Mapping[str, History]:
        """Return what was recorded of each queue, as the rules for one queue take it."""
        submitted, unknown = self._submits()
        seen = _seen(self.of(Roster))
        told, renewed = self._told(), self._renewed() if self.header.one_clock else None
        final, effects, books = self._final(), self._effects(), {line.queue: line for line in self.of(Books)}
        found: dict[str, History] = {}
        for queue in self.queues:
            terms, events = self.header.queues.get(queue, Terms()), self.streams.get(queue, ())
            known = books.get(queue)
            stats = known.stats if known and queue not in self.partial else None
            if stats is not None and events and events[-1].offset > stats.offset:
                stats = None  # they are of an earlier moment
            found[queue] = History(
                events=events,
                submitted=None if submitted is None else submitted.get(queue, []),
                final=final.get(queue, {}) if final is not None else None,
                told=None if told is None else [one for one in told if self.home.get(one.job) == queue],
                effects=None if effects is None else effects.get(queue, []),
                stats=stats,
                renewed=renewed,
                seen=seen,
                unclaimed=_unclaimed(self.of(Effect), events, self.faults),
                audit=known.audit if known else None,
                terms=msgspec.structs.replace(
                    terms, unknown_submits=terms.unknown_submits + unknown, slots=terms.slots or _slots(self.of(Roster))
                ),
            )
        return found

    def _submits(self) -> tuple[dict[str, list[Submission]] | None, int]:
        """Return the acknowledged submits by queue in the order of their answers, and how many answers never came."""
        if not any(act.op == "submit" for act in self.acts):
            return None, 0
        found: dict[str, list[Submission]] = {}
        unknown = 0
        for act in sorted(self.acts, key=lambda act: act.end):
            if act.op != "submit":
                continue
            if not isinstance(act.asked, Requests):
                raise InvalidError(f"a submit of process {act.process} does not say what was asked")
            if act.type == "info":
                unknown += len(act.asked.requests)
            if not isinstance(act.answered, Answers):
                continue
            for request, answer in zip(act.asked.requests, act.answered.answers, strict=False):
                if answer.id is not None and answer.id not in self.forgotten:
                    queue = self.home.get(answer.id) or act.queue or self.queues[0]
                    one = Submission(id=answer.id, created=answer.created, request=request)
                    found.setdefault(queue, []).append(one)
        return found, unknown

    def _told(self) -> list[Told] | None:
        found: list[Told] = []
        for act in sorted(self.acts, key=lambda act: act.end):
            if isinstance(act.asked, Endings) and isinstance(act.answered, Words):
                for one, word in zip(act.asked.endings, act.answered.words, strict=False):
                    found.append(
                        Told(job=one.job, fence=attempt_of(one.fence), accepted=word.accepted, delay=one.delay)
                    )
        return found or None

    def _renewed(self) -> dict[tuple[str, int], list[datetime]]:
        """Return when each granted renewal was asked for."""
        found: dict[tuple[str, int], list[datetime]] = {}
        for act in self.acts:
            if act.op == "renew" and isinstance(act.asked, Refs) and isinstance(act.answered, Stale):
                for ref in act.asked.leases:
                    if ref not in act.answered.lost:
                        found.setdefault((ref.job_id, attempt_of(ref.fence)), []).append(act.begun_at)
        return found

    def _final(self) -> dict[str, dict[str, Job]] | None:
        """Return the jobs that could be read at the end; None when the record does not say that those are all."""
        if not self.read:
            return None
        found: dict[str, dict[str, Job]] = {}
        for line in self.of(FinalJob):
            found.setdefault(line.job.queue, {})[line.job.id] = line.job
        return found if found or not self.streams else None

    def _effects(self) -> dict[str, list[Effect]] | None:
        """Return what was done, by queue; what was done for a job that never was is the first queue's."""
        lines = self.of(Effect)
        if not lines:
            return None
        found: dict[str, list[Effect]] = {}
        for line in lines:
            if line.type == "finished" and line.job not in self.forgotten:
                found.setdefault(self.home.get(line.job, self.queues[0]), []).append(line)
        return found


def _seen(rows: Iterable[Roster]) -> dict[str, list[Seen]]:
    """Return what each worker was seen to offer."""
    found: dict[str, list[Seen]] = {}
    for line in sorted(rows, key=lambda line: line.at):
        found.setdefault(line.worker, []).append(Seen(at=line.at, offers=line.offers))
    return {worker: seen for worker, seen in found.items() if any(one.offers for one in seen)}


def _slots(rows: Iterable[Roster]) -> dict[str, int] | None:
    """Return how many slots each worker ever said that it has; None when none said so."""
    slots: dict[str, int] = {}
    for line in rows:
        if line.slots is not None:
            slots[line.worker] = max(line.slots, slots.get(line.worker, 0))
    return slots or None


def _late(effect: Effect, faults: Iterable[Fault]) -> bool:
    """Tell whether it may be of a claim that was lost: it came in such a time, or while its worker went on."""
    at = effect.at if effect.type == "finished" else None
    return at is not None and any(
        fault.began_at - timedelta(seconds=fault.begin - fault.loses[0][0]) <= at <= fault.ended_at + WORKS_ON
        for fault in faults
        if fault.loses
    )


def _unclaimed(effects: Iterable[Effect], events: Iterable[Event], faults: Sequence[Fault]) -> Counter[str]:
    """Return for each job how many of its effects may be of claims that a fault undid.

    Such a claim had a fence of its own, and none stands in the events; so each fence counts once, whatever was done
    under it, and only beside those that were claimed.
    """
    fences: dict[tuple[str, int], set[int]] = {}
    late: dict[tuple[str, int], set[int]] = {}
    for effect in effects:
        place = (effect.job, attempt_of(effect.fence))
        if effect.type == "finished":
            fences.setdefault(place, set()).add(effect.fence)
        if _late(effect, faults):
            late.setdefault(place, set()).add(effect.fence)
    claims = Counter((event.job, event.attempt) for event in events if event.type == "claim")
    found: Counter[str] = Counter()
    for (job, attempt), undone in late.items():
        found[job] += max(0, min(len(undone), len(fences[job, attempt]) - claims[job, attempt]))
    return found


def _masked(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events with those of jobs whose submit is not among them made facts about nothing."""
    whole: set[str] = set()
    found: list[Event] = []
    for event in events:
        if event.type == "submit" and event.job is not None:
            whole.add(event.job)
        known = event.job is None or event.job in whole
        found.append(event if known else msgspec.structs.replace(event, type="earlier", job=None, state=None))
    return tuple(found)


__all__ = ["NO_QUEUE", "Whole"]

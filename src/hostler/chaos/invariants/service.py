"""Invariants of what clients, operators and readers saw: S1's parts, S16 to S20."""

import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from msgspec import Struct

from hostler.chaos.acts import Act
from hostler.chaos.facts import CLOSING, NEVER, OPENING, Finding
from hostler.chaos.record import Granted, Heard
from hostler.chaos.values import Answer, Answers, Leases, Refused
from hostler.chaos.whole import Whole
from hostler.contracts.event import Event, Life
from hostler.contracts.limit import Limit, LimitKind
from hostler.kernel.units import Seconds
from hostler.policy.lifecycle import Verb

NEAR: Final = timedelta(seconds=1)
"""How far two readings of one machine's wall clock may lie apart while it is busy."""

WholeRule = Callable[[Whole], "list[Finding] | str"]
"""Judges one invariant over a whole record; a sentence when too little was recorded to judge it."""


class Lost(Struct, frozen=True, kw_only=True):
    """Where, among the acknowledged submits, those stood that are lost."""

    prefix: int = 0
    """Before the first that is there."""
    middle: int = 0
    """Between others that are there: the damning ones."""
    postfix: int = 0
    """After the last that is there, as an engine loses that did not sync."""


def lost_where(acknowledged: Sequence[str], lost: frozenset[str]) -> Lost:
    """Sort lost jobs by their place in the order of acknowledgement."""
    kept = [place for place, job in enumerate(acknowledged) if job not in lost]
    first, last = (kept[0], kept[-1]) if kept else (len(acknowledged), len(acknowledged))
    places = [place for place, job in enumerate(acknowledged) if job in lost]
    return Lost(
        prefix=sum(place < first for place in places),
        middle=sum(first < place < last for place in places),
        postfix=sum(place > last for place in places),
    )


def one_answer(whole: Whole) -> list[Finding] | str:
    """S9: an operation sent again under its id is answered as before; a claim by what is still held, at most."""
    same: dict[tuple[str, str], list[Act]] = {}
    for act in whole.acts:
        if act.operation is not None and act.type == "ok":
            same.setdefault((act.op, act.operation), []).append(act)
    twice = {key: acts for key, acts in same.items() if len(acts) > 1}
    if not twice:
        return "no operation was answered twice under one id"
    found: list[Finding] = []
    for (op, operation), acts in twice.items():
        first, *later = sorted(acts, key=lambda act: act.end)
        if any(not _same(first, act) for act in later):
            jobs = tuple(dict.fromkeys(job for act in acts for job in _jobs(act)))
            sentence = f"the {op} with operation {operation!r} was answered twice, and differently"
            found.append(Finding(invariant="S9", sentence=sentence, jobs=jobs))
    return found


def _same(first: Act, later: Act) -> bool:
    if isinstance(first.answered, Leases) and isinstance(later.answered, Leases):
        return set(later.answered.leases) <= set(first.answered.leases)
    return first.answered == later.answered


def _jobs(act: Act) -> list[str]:
    if isinstance(act.answered, Leases):
        return [lease.job for lease in act.answered.leases]
    if isinstance(act.answered, Answers):
        return [answer.id for answer in act.answered.answers if answer.id is not None]
    return [] if act.job is None else [act.job]


FULL: Final = "queue-full"


def full_says_when(whole: Whole) -> list[Finding] | str:
    """S15: who is refused since a queue is full is told when to come back."""
    refused = [
        (act, one.retry_after)
        for act in whole.acts
        if act.op == "submit"
        for one in (act.answered.answers if isinstance(act.answered, Answers) else (act.answered,))
        if isinstance(one, Answer | Refused) and one.code == FULL
    ]
    if not refused:
        return "no submit was refused by a full queue"
    return [
        Finding(invariant="S15", sentence=f"{act.process} was refused by a full queue, and not told when to come back")
        for act, after in refused
        if after is None or after <= 0
    ]


def within_rates(whole: Whole) -> list[Finding] | str:
    """S16: no window of a limit's length, wherever it begins, has more grants or units than the limit says."""
    by_limit: dict[Limit, list[Granted]] = {}
    for line in whole.of(Granted):
        if line.limit.kind is not LimitKind.IN_FLIGHT and line.limit.per is not None:
            by_limit.setdefault(line.limit, []).append(line)
    if not by_limit:
        return "no grants of a rate limit are in the record"
    found: list[Finding] = []
    for limit, lines in by_limit.items():
        found.extend(_overrun(limit, sorted(lines, key=lambda line: line.at)))
    return found


def _overrun(limit: Limit, grants: list[Granted]) -> list[Finding]:
    per = timedelta(seconds=limit.per or 0.0)
    first, units = 0, 0
    for last, grant in enumerate(grants):
        units += grant.units
        while grants[first].at + per <= grant.at:
            units -= grants[first].units
            first += 1
        if units > limit.most:
            window = f"{grants[first].at.isoformat()} to {grant.at.isoformat()}"
            sentence = f"{limit.name} let {units} go from {window}, {limit.most} in {limit.per:g} s are allowed"
            return [Finding(invariant="S16", sentence=f"{sentence} ({last - first + 1} grants)")]
    return []


def paused_as_told(whole: Whole) -> list[Finding] | str:
    """S17: once an operator was told that a queue is paused, nothing of it is claimed until somebody asks to resume."""
    found: list[Finding] = []
    judged = False
    for act in whole.acts if whole.header.one_clock else ():
        if act.op not in CLOSING or act.type != "ok" or whole.undone(act):
            continue
        stream = whole.streams.get(act.queue or "")
        resumes = [one for one in whole.acts if one.op == OPENING and one.queue == act.queue]
        if stream is None or any(one.begin <= act.end < one.end for one in resumes):
            continue  # nobody knows which of the two came first
        judged = True
        since = act.begun_at + timedelta(seconds=act.end - act.begin) + NEAR
        until = min((one.begun_at for one in resumes if one.begin > act.end), default=NEVER)
        claim = next((event for event in stream if event.type == Verb.CLAIM and since <= event.at < until), None)
        if claim is not None:
            sentence = f"{claim.job} was claimed after {act.process} was told of the {act.op} of its queue"
            found.append(Finding(invariant="S17", sentence=sentence, offsets=(claim.offset,)))
    return found if judged else "no client was told of a pause"


def delivered(whole: Whole) -> list[Finding] | str:
    """S18: each reader gets every move of what it asked for, once and in order, over all its connections.

    It is never told that a job is not there which was acknowledged, and which the engine may not have lost.
    """
    heard = [line for line in whole.of(Heard) if line.queue in whole.streams]
    gone = [line for line in whole.of(Heard) if line.end == "gone"]
    if not heard and not gone:
        return "no reader of a live stream whose events are known is in the record"
    known = set(_acknowledged(whole)) - _purged(whole) - whole.forgotten
    found = [
        Finding(
            invariant="S18",
            sentence=f"{line.reader} was told that there is no {line.job}, which was acknowledged",
            jobs=(line.job,),
        )
        for line in gone
        if line.job is not None and line.job in known
    ]
    readers: dict[tuple[str, str, str | None], list[Heard]] = {}
    for line in heard:
        readers.setdefault((line.reader, line.queue, line.job), []).append(line)
    for (reader, queue, _), lines in readers.items():
        found.extend(listened(reader, whole.streams[queue], lines, whole.lives.get(queue, ())))
    return found


def listened(reader: str, stream: Sequence[Event], lines: Sequence[Heard], lives: Sequence[Life] = ()) -> list[Finding]:
    """S18 for one reader of one stream, over its connections in their order."""
    return _Listener(reader, stream, lives, lines).judge() if lines else []


class _Listener:
    """One reader of one stream, over its connections."""

    def __init__(self, reader: str, stream: Sequence[Event], lives: Sequence[Life], lines: Sequence[Heard]) -> None:
        self._reader = reader
        self._stream = {event.offset: event for event in stream}
        self._lives = lives
        self._lines = lines
        self._found: list[Finding] = []

    def judge(self) -> list[Finding]:
        for number, line in enumerate(self._lines):
            self._connection(line, self._stands(number))
        self._between()
        self._whole()
        return self._found

    def _connection(self, line: Heard, stands: float) -> None:
        place = line.after
        for push in line.pushes:
            true = self._stream.get(push.offset)
            said = (push.type, push.job, push.state)
            if true is not None and push.offset <= stands and said != (true.type, true.job, true.state):
                self._say(f"was told {push.type} of {push.job} where {true.type} of {true.job} stands", push.offset)
            if push.offset <= place:
                self._say(f"got {push.offset} again after {place}", push.offset)
            elif not line.gap:
                self._skipped(line, place, min(push.offset, stands + 1))
            place = max(place, push.offset)
        if line.until is not None and not line.gap:
            self._skipped(line, place, min(line.until, stands) + 1)

    def _stands(self, number: int) -> float:
        """Return up to which offset what was told on a connection is still true: the rest was lost by the engine."""
        line = self._lines[number]
        ends = [life.after for life in self._lives if line.epoch and life.epoch > line.epoch]
        ends += [later.after for later in self._lines[number + 1 :] if later.reset]
        return min(ends, default=math.inf)

    def _between(self) -> None:
        """A connection goes on where the one before ended: a reader that asks behind that gets things again."""
        place = 0
        for line in self._lines:
            place = min(place, line.after) if line.reset else place
            if line.after < place:
                self._say(f"asked for what stands above {line.after} and had {place} already", line.after)
            elif line.after > place and not line.gap and place:
                self._skipped(line, place, line.after + 1)
            place = max([place, *(push.offset for push in line.pushes)])

    def _whole(self) -> None:
        """Who was told that this is all was told every move; who waited for that until the end should have been."""
        last = self._lines[-1]
        if last.end == "missed":
            self._say(f"was not told how {last.job} ended, though it went on asking", last.after)
        if self._found or last.end != "told" or any(line.gap for line in self._lines):
            return
        if any(push.offset > self._stands(len(self._lines) - 1) for push in last.pushes):
            return  # the end that it was told was lost after that
        told = {
            push.offset
            for number, line in enumerate(self._lines)
            for push in line.pushes
            if push.offset <= self._stands(number)
        }
        for offset in sorted(self._stream.keys() - told):
            event = self._stream[offset]
            if offset > self._lines[0].after and event.state is not None and last.job in (None, event.job):
                self._say(f"was told that this was all, and never got the {event.type} of {event.job}", offset)
                return

    def _skipped(self, line: Heard, place: int, until: float) -> None:
        """Moves above `place` and below `until` that the reader was not told."""
        for offset in range(place + 1, int(until)):
            event = self._stream.get(offset)
            if event is not None and event.state is not None and line.job in (None, event.job):
                self._say(f"never got the {event.type} of {event.job} after {place}", offset)
                return

    def _say(self, sentence: str, offset: int) -> None:
        event = self._stream.get(offset)
        jobs = (event.job,) if event is not None and event.job else ()
        self._found.append(
            Finding(invariant="S18", sentence=f"{self._reader} {sentence}", jobs=jobs, offsets=(offset,))
        )


def secret(whole: Whole) -> list[Finding] | str:
    """S19: no canary stands anywhere in the record but in its header."""
    if not whole.header.canaries:
        return "the header names no canaries"
    return [
        Finding(
            invariant="S19",
            sentence=f"canary {leak.canary} of {len(whole.header.canaries)} stands in {leak.place.file}, line "
            f"{leak.place.number}",
        )
        for leak in whole.leaks
    ]


NOT_FOUND: Final = "not-found"


def read_your_submit(whole: Whole) -> list[Finding] | str:
    """S20: a job that was acknowledged before a `get` began is found by it, unless it was purged meanwhile."""
    acked, gone = _acknowledged(whole), _purged(whole)
    asked = [act for act in whole.acts if act.op == "get" and act.job in acked and act.begin >= acked[act.job]]
    if not asked:
        return "no acknowledged job was looked at by a client of the record"
    return [
        Finding(
            invariant="S20",
            sentence=f"{act.process} did not find {act.job} {act.begin - acked[act.job]:.3f} s after its submit",
            jobs=(act.job,),
        )
        for act in asked
        if act.job is not None and act.job not in gone | whole.forgotten and _missing(act)
    ]


def _acknowledged(whole: Whole) -> dict[str, Seconds]:
    """Return when each job was acknowledged first."""
    found: dict[str, Seconds] = {}
    for act in whole.acts:
        if act.op == "submit" and isinstance(act.answered, Answers):
            for answer in act.answered.answers:
                if answer.id is not None:
                    found[answer.id] = min(act.end, found.get(answer.id, act.end))
    return found


def _purged(whole: Whole) -> set[str | None]:
    """Return the jobs that were removed, or may have been."""
    gone = {event.job for events in whole.streams.values() for event in events if event.type == "purge"}
    return gone | {act.job for act in whole.acts if act.op == "purge" and act.type != "fail"}


def _missing(act: Act) -> bool:
    return act.type == "fail" and isinstance(act.answered, Refused) and act.answered.code == NOT_FOUND


SERVICE: Final[tuple[tuple[str, WholeRule], ...]] = (
    ("S9", one_answer),
    ("S15", full_says_when),
    ("S16", within_rates),
    ("S17", paused_as_told),
    ("S18", delivered),
    ("S19", secret),
    ("S20", read_your_submit),
)

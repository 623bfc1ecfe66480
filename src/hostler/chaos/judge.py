"""One verdict per invariant over a whole record, and what the run was like.

report = judge(read_history(path))
report.verdict       # held, broken, or not judged
report.rulings       # one each for S1 to S20, LIN and L1 to L5
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Literal

from msgspec import Struct

from hostler.chaos.check import RULES
from hostler.chaos.facts import CLOSING, Finding, History
from hostler.chaos.invariants.bounds import BOUNDS
from hostler.chaos.invariants.service import SERVICE, Lost, lost_where
from hostler.chaos.linear import NAME, linearizable
from hostler.chaos.reading import Record
from hostler.chaos.recovery import Spread, recoveries, spread
from hostler.chaos.search import NODES_MOST
from hostler.chaos.whole import Whole
from hostler.policy.lifecycle import Verb

Word = Literal["held", "broken", "not judged"]

PROMISES: Final[Mapping[str, str]] = {
    "S1": "no acknowledged job is lost",
    "S2": "nothing happens that nobody asked for",
    "S3": "a job ends once, and stays ended",
    "S4": "only moves of the life table, offsets without gaps",
    "S5": "one lease per job, workers and keys within their limits",
    "S6": "fences rise, and only the current one is accepted",
    "S7": "effects are fenced, and no more than attempts",
    "S8": "attempts, crashes and delays within their budgets",
    "S9": "one key, one job; one operation, one answer",
    "S10": "who gets a job can do it",
    "S11": "jobs go in their order",
    "S12": "counters and indexes agree with the events",
    "S13": "the dead are kept, and records say what events say",
    "S14": "a cancelled job ends cancelled",
    "S15": "no queue is deeper than its limit, and a full one says when to come back",
    "S16": "no limit lets more go than it says",
    "S17": "nothing is claimed while paused",
    "S18": "readers get every move, once and in order",
    "S19": "no secret stands anywhere",
    "S20": "who submitted finds the job",
    NAME: "each job's answers have one order that explains them",
    "L1": "every job ends",
    "L2": "what a fault struck is claimed again in time",
    "L3": "submits are answered, and another server takes over in time",
    "L4": "no lease is stuck, none is lost without a fault",
    "L5": "breakers close again",
}

FINDINGS_MOST: Final = 20
"""Findings of one invariant that are told; the rest is counted."""


class Ruling(Struct, frozen=True, kw_only=True):
    """The verdict on one invariant."""

    invariant: str
    promise: str
    verdict: Word
    why: str = ""
    """Why it was not judged, or only in part."""
    broken: int = 0
    """How often it was found broken."""
    findings: tuple[Finding, ...] = ()
    """The first of them, the one with the fewest events first."""


class Report(Struct, frozen=True, kw_only=True):
    """What the check of one history found."""

    verdict: Word
    """`not judged` when nothing at all could be."""
    rulings: tuple[Ruling, ...]
    jobs: int
    events: int
    operations: int
    faults: dict[str, int]
    lost: Lost
    recovery_s: Spread
    torn: tuple[str, ...] = ()
    """Files that were cut in their last line: their writers died."""

    def broken(self) -> tuple[str, ...]:
        """Return the invariants that were found broken."""
        return tuple(ruling.invariant for ruling in self.rulings if ruling.verdict == "broken")

    def ruling(self, invariant: str) -> Ruling:
        """Return the verdict on one of them."""
        return next(ruling for ruling in self.rulings if ruling.invariant == invariant)


class _Docket:
    """Collects what the rules say of each invariant."""

    def __init__(self) -> None:
        self._findings: dict[str, list[Finding]] = {}
        self._why: dict[str, list[str]] = {}

    def add(self, invariant: str, found: list[Finding] | str) -> None:
        if isinstance(found, str):
            self._why.setdefault(invariant, []).append(found)
        else:
            self._findings.setdefault(invariant, []).extend(found)

    def note(self, invariant: str, why: str) -> None:
        self._why.setdefault(invariant, []).append(why)

    def rule(self, invariant: str) -> Ruling:
        found = self._findings.get(invariant)
        why = "; ".join(dict.fromkeys(self._why.get(invariant, ())))
        word: Word = "not judged" if found is None else "broken" if found else "held"
        ordered = sorted(found or (), key=lambda one: len(one.offsets) + len(one.jobs))
        return Ruling(
            invariant=invariant,
            promise=PROMISES[invariant],
            verdict=word,
            why=why if word != "broken" else "",
            broken=len(ordered),
            findings=tuple(ordered[:FINDINGS_MOST]),
        )


def judge(record: Record, *, most: int = NODES_MOST) -> Report:
    """Judge a record by every invariant; `most` bounds the search for an order of each job's operations.

    `InvalidError` when its lines cannot belong together.
    """
    whole = Whole(record)
    docket = _Docket()
    used = {queue for queue, history in whole.histories.items() if history.events or history.submitted}
    for queue, history in whole.histories.items():
        for invariant, rule in RULES:
            lacking = _lacking(whole, queue, history, invariant)
            found = lacking or rule(history)
            if used and queue not in used and not isinstance(found, list):
                continue  # nothing ever was in it: there is nothing to lack
            docket.add(invariant, "what it is judged by is not in the record" if found is None else found)
    for invariant, rule in (*SERVICE, *BOUNDS):
        docket.add(invariant, rule(whole))
    _order(docket, whole, most)
    rulings = tuple(docket.rule(invariant) for invariant in PROMISES)
    words = {ruling.verdict for ruling in rulings}
    return Report(
        verdict="broken" if "broken" in words else "held" if "held" in words else "not judged",
        rulings=rulings,
        jobs=len(whole.home),
        events=sum(map(len, whole.streams.values())),
        operations=len(whole.acts),
        faults=dict(Counter(fault.kind for fault in whole.faults)),
        lost=_lost(whole, rulings),
        recovery_s=spread([one.waited for one in recoveries(whole) if one.waited is not None]),
        torn=record.torn,
    )


def _order(docket: _Docket, whole: Whole, most: int) -> None:
    found = linearizable(whole, most=most)
    if isinstance(found, str):
        docket.add(NAME, found)
        return
    if found.undecided:
        jobs = ", ".join(found.undecided[:5])
        docket.note(NAME, f"not decided within {most} configurations for {len(found.undecided)} jobs: {jobs}")
    if found.findings or len(found.undecided) < found.jobs:
        docket.add(NAME, list(found.findings))


def _lost(whole: Whole, rulings: tuple[Ruling, ...]) -> Lost:
    ruling = next(one for one in rulings if one.invariant == "S1")
    if ruling.verdict != "broken":
        return Lost()
    lost: set[str] = set()
    acknowledged: list[str] = []
    for history in whole.histories.values():
        rule = dict(RULES)["S1"]
        lost.update(job for finding in rule(history) or () for job in finding.jobs)
        acknowledged.extend(one.id for one in history.submitted or ())
    return lost_where(tuple(dict.fromkeys(acknowledged)), frozenset(lost))


_BY_EVENTS: Final = frozenset({"S3", "S4", "S5", "S6", "S8", "S9", "S10", "S11", "S13", "S14", "S15", "S17"})
"""Without events these say nothing."""
_OF_ALL: Final = frozenset({"S1", "S11", "S12"})
"""Of a record that does not begin with the queue, or was not finished, these say nothing."""


def _claimed(history: History) -> bool:
    return any(event.type == Verb.CLAIM for event in history.events)


_CASES: Final[Mapping[str, tuple[Callable[[History], bool], str]]] = {
    "S5": (_claimed, "nothing was claimed"),
    "S6": (_claimed, "nothing was claimed"),
    "S10": (_claimed, "nothing was claimed"),
    "S11": (_claimed, "nothing was claimed"),
    "S9": (
        lambda history: any(one.request and one.request.idempotency_key for one in history.submitted or ()),
        "no idempotency key was used",
    ),
    "S14": (lambda history: any(event.type == Verb.CANCEL for event in history.events), "nothing was cancelled"),
    "S17": (
        lambda history: any(event.type in CLOSING for event in history.events),
        "no queue was paused or drained",
    ),
}
"""What must have happened for the others to say anything."""


def _lacking(whole: Whole, queue: str, history: History, invariant: str) -> str | None:
    """Return why an invariant cannot be judged for this queue; None when it can."""
    if invariant in _BY_EVENTS and not history.events:
        return f"no events of {queue or 'any queue'} are in the record"
    if invariant in _OF_ALL and queue in whole.partial:
        return f"the first events of {queue} were gone before they were read"
    if invariant == "S1" and not whole.read:
        return "the record ends before all that was there was read"
    happened, otherwise = _CASES.get(invariant, (None, ""))
    return None if happened is None or happened(history) else otherwise

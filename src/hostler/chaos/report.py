"""The report of a run, for people."""

from collections.abc import Iterable, Sequence

from hostler.chaos.judge import Ruling
from hostler.chaos.outcome import Facts, Outcome
from hostler.chaos.record import Fault, Mark
from hostler.chaos.recovery import recoveries, spread
from hostler.kernel.units import Seconds

BAR = 40
"""Characters of the longest bar."""


def markdown(outcome: Outcome, facts: Facts, *, command: str) -> str:
    """Return the report as Markdown; `command` plays the same run again."""
    parts = (
        (f"# {outcome.scenario}, seed {outcome.seed}: {outcome.verdict}", f"Again with `{command}`."),
        _numbers(outcome, facts),
        _violations(outcome),
        _faults(facts),
        _recovery(facts),
        _rulings(facts.report.rulings),
        _unavailable(outcome),
    )
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _numbers(outcome: Outcome, facts: Facts) -> Sequence[str]:
    recovery, gap = outcome.recovery_s, outcome.failover_s
    rows = (
        ("jobs acknowledged", outcome.submitted),
        ("lost", outcome.lost),
        ("lost in a fail-over, as it may", outcome.lost_in_window),
        ("recorded twice", outcome.recorded_twice),
        ("executed again", outcome.executed_again),
        *((f"ended {state}", number) for state, number in sorted(outcome.ended.items())),
        ("answered with an earlier job", outcome.deduplicated),
        ("asks without an answer", outcome.unanswered),
        ("events", facts.report.events),
        ("pauses of queues in which work waited", outcome.pauses),
        (
            "between settled jobs around a fail-over p50 / p99 / max, s",
            f"{_s(gap.p50)} / {_s(gap.p99)} / {_s(gap.max)}",
        ),
        ("recovery p50 / p99 / max, s", f"{_s(recovery.p50)} / {_s(recovery.p99)} / {_s(recovery.max)}"),
    )
    return _table(("what", "how many"), rows)


def _violations(outcome: Outcome) -> Sequence[str]:
    if not outcome.violations:
        return ()
    return ("## Violations", "", *(f"- {sentence}" for sentence in outcome.violations))


def _faults(facts: Facts) -> Sequence[str]:
    began = next((mark.t_mono for mark in facts.whole.of(Mark) if mark.what == "began"), 0.0)
    rows = [_fault(fault, began) for fault in facts.whole.faults]
    if not rows:
        return ("## Faults", "", "None.")
    return ("## Faults", "", *_table(("at, s", "kind", "target", "for, s", "what there is to say"), rows))


def _fault(fault: Fault, began: float) -> tuple[object, ...]:
    return (f"{fault.begin - began:.1f}", fault.kind, fault.target, f"{fault.end - fault.begin:.1f}", fault.how)


def _recovery(facts: Facts) -> Sequence[str]:
    bars = facts.report.recovery_s.histogram
    if not bars:
        return ()
    longest = max(bars.values())
    rows = [(f"{edge} s", number, "#" * max(1, round(BAR * number / longest))) for edge, number in bars.items()]
    return ("## Recovery", "", "From a fault's end to the next claim of what it struck, up to:", "",
            *_table(("within", "jobs", ""), rows), "", *_by_kind(facts))  # fmt: skip


def _by_kind(facts: Facts) -> Sequence[str]:
    waited: dict[str, list[Seconds]] = {}
    for one in recoveries(facts.whole):
        if one.waited is not None:
            waited.setdefault(one.fault.kind, []).append(one.waited)
    spreads = [(kind, spread(times)) for kind, times in sorted(waited.items())]
    rows = [(kind, one.count, _s(one.p50), _s(one.p99), _s(one.max)) for kind, one in spreads]
    return _table(("fault", "jobs", "p50, s", "p99, s", "max, s"), rows)


def _rulings(rulings: Sequence[Ruling]) -> Sequence[str]:
    rows = [(one.invariant, one.promise, one.verdict, one.why) for one in rulings]
    return ("## Invariants", "", *_table(("", "promise", "verdict", "why"), rows))


def _unavailable(outcome: Outcome) -> Sequence[str]:
    if not outcome.unavailable:
        return ()
    return ("## Not shown on this machine", "", *(f"- {kind}: {why}" for kind, why in outcome.unavailable.items()))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Sequence[str]:
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return (lines[0], f"|{'---|' * len(head)}", *lines[1:])


def _s(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds:.2f}"

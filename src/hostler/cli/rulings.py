"""How the verdicts on a history are printed."""

from hostler.chaos.judge import Report
from hostler.cli.output import FAILED, OK, Out

JOBS_SHOWN = 8


def print_rulings(out: Out, report: Report) -> int:
    """Print a report; the exit code is the verdict, and a record by which nothing can be judged is no success."""
    if out.json:
        out.document(report)
        return OK if report.verdict == "held" else FAILED
    rows = [(one.invariant, one.verdict, one.promise, one.why) for one in report.rulings]
    out.table(("", "verdict", "promise", "why not"), rows, empty="nothing was judged")
    for ruling in report.rulings:
        for finding in ruling.findings:
            jobs = f" [{', '.join(finding.jobs[:JOBS_SHOWN])}]" if finding.jobs else ""
            out.say(f"{finding}{jobs}")
        if ruling.broken > len(ruling.findings):
            out.say(f"{ruling.invariant}: and {ruling.broken - len(ruling.findings)} more")
    for file in report.torn:
        out.say(f"{file} ends in the middle of a line: its writer died")
    lost, recovery = report.lost, report.recovery_s
    if lost.prefix or lost.middle or lost.postfix:
        out.say(f"lost: {lost.prefix} before, {lost.middle} between, {lost.postfix} after what is there")
    if recovery.count:
        out.say(f"recovery: p50 {recovery.p50} s, p99 {recovery.p99} s, max {recovery.max} s of {recovery.count}")
    out.say(
        f"{report.verdict}: {report.jobs} jobs, {report.events} events, {report.operations} operations, "
        f"{sum(report.faults.values())} faults"
    )
    return OK if report.verdict == "held" else FAILED

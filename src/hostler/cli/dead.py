"""`hostler dead`: jobs that failed for good."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from hostler.cli.flags import ToGateway
from hostler.cli.jobs import show
from hostler.cli.output import OK, Out
from hostler.cli.talk import JOB_COLUMNS, LIMIT, Narrowed, job_rows, print_report, talking
from hostler.contracts.job import Job
from hostler.kernel.errors import SettingsError

dead = App(name="dead", help="List, show, replay and purge dead jobs.")
dead.command(show, name="show")

Ids = Annotated[str, Parameter(help="Which dead jobs.")]
All = Annotated[bool, Parameter(name="--all", negative="", help="Every dead job.")]
DryRun = Annotated[bool, Parameter(negative="", help="Only say which.")]
Reason = Annotated[str, Parameter(help="Why; it is kept with the event.")]


@dead.command(name="list")
async def list_(
    *,
    narrowed: Narrowed = Narrowed(),
    limit: Annotated[int, Parameter(help="Most jobs.")] = LIMIT,
    common: ToGateway = ToGateway(),
) -> int:
    """List dead jobs, newest first."""
    out = Out(json=common.json)
    found: list[Job] = []
    async with talking(common) as fleet:
        async for job in fleet.dead.list(narrowed.filter()):
            found.append(job)
            if len(found) >= limit:
                break
    if out.json:
        out.document({"items": found})
    else:
        out.table(JOB_COLUMNS, job_rows(found), empty="no dead jobs")
    return OK


@dead.command
async def replay(
    *ids: Ids,
    narrowed: Narrowed = Narrowed(),
    all_: All = False,
    dry_run: DryRun = False,
    reason: Reason = "",
    common: ToGateway = ToGateway(),
) -> int:
    """Make dead jobs ready again: by id, by what they have in common, or all."""
    which = _which(ids, narrowed, everything=all_)
    async with talking(common) as fleet:
        report = await fleet.dead.replay(**which, dry_run=dry_run, reason=reason)
    return print_report(Out(json=common.json), report)


@dead.command
async def purge(
    *ids: Ids,
    narrowed: Narrowed = Narrowed(),
    all_: All = False,
    dry_run: DryRun = False,
    yes: Annotated[bool, Parameter(negative="", help="Remove them without being asked.")] = False,
    reason: Reason = "",
    common: ToGateway = ToGateway(),
) -> int:
    """Remove dead jobs with all that is kept of them: by id, by what they have in common, or all."""
    which = _which(ids, narrowed, everything=all_)
    out = Out(json=common.json)
    async with talking(common) as fleet:
        if not dry_run and not yes:
            found = await fleet.dead.purge(**which, dry_run=True)
            raise SettingsError(
                f"this would remove {found.matched} dead jobs for good: say --yes, or --dry-run to see which",
                problems=(),
                matched=found.matched,
            )
        report = await fleet.dead.purge(**which, dry_run=dry_run, reason=reason)
    return print_report(out, report)


def _which(ids: tuple[str, ...], narrowed: Narrowed, *, everything: bool) -> dict[str, Any]:
    if sum((bool(ids), not narrowed.empty, everything)) != 1:
        words = "name jobs by id, by what they have in common (--queue, --class, --since, ...), or say --all"
        raise SettingsError(f"{words}: one of the three", problems=())
    if ids:
        return {"ids": list(ids)}
    return {"all": True} if everything else {"filter": narrowed.filter()}

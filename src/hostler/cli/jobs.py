"""`hostler jobs`: look at jobs and steer them."""

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from hostler.cli.flags import ToGateway
from hostler.cli.follow import follow_job, line_of
from hostler.cli.output import OK, Out, shown
from hostler.cli.submit import conclude
from hostler.cli.talk import JOB_COLUMNS, LIMIT, Narrowed, facts_table, job_rows, said_of, state_of, talking
from hostler.contracts.explain import Candidate, Explanation
from hostler.contracts.job import Job
from hostler.kernel.errors import InvalidError

jobs = App(name="jobs", help="List, show, follow and steer jobs.")

Reason = Annotated[str, Parameter(help="Why; it is kept with the event.")]


@jobs.command(name="list")
async def list_(
    *,
    state: Annotated[tuple[str, ...], Parameter(negative="", help="One or more states.")] = (),
    narrowed: Narrowed = Narrowed(),
    limit: Annotated[int, Parameter(help="Most jobs.")] = LIMIT,
    common: ToGateway = ToGateway(),
) -> int:
    """List jobs, newest first."""
    out = Out(json=common.json)
    which = narrowed.filter(states=state)
    found: list[Job] = []
    async with talking(common) as fleet:
        async for job in fleet.jobs(which):
            found.append(job)
            if len(found) >= limit:
                break
    if out.json:
        out.document({"items": found})
    else:
        out.table(JOB_COLUMNS, job_rows(found), empty="no jobs")
    return OK


@jobs.command
async def show(job: str, /, *, common: ToGateway = ToGateway()) -> int:
    """Show one job with its attempts."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.get(job, payload=True)
    if out.json:
        out.document(found)
        return OK
    facts_table(
        out,
        (
            ("job", found.id),
            ("kind", found.kind),
            ("state", state_of(found)),
            ("said", said_of(found)),
            ("queue", found.queue),
            ("tenant", found.tenant),
            ("priority", found.priority),
            ("generation", found.generation),
            ("attempt", found.attempt),
            ("created", found.created_at),
            ("started", found.started_at),
            ("finished", found.finished_at),
            ("worker", found.worker),
            ("service", found.service),
            ("labels", ", ".join(f"{name}={value}" for name, value in found.labels.items())),
            ("payload", bytes(found.payload).decode() if found.payload else None),
            ("result", bytes(found.result).decode() if bytes(found.result) != b"null" else None),
            ("result", f"blob {found.result_ref.sha256}" if found.result_ref else None),
        ),
    )
    for attempt in found.attempts:
        error = f" {attempt.error.label}: {attempt.error.message}" if attempt.error else ""
        out.say(f"attempt {attempt.number:<6}{attempt.outcome} by {attempt.worker}{error}")
    return OK


@jobs.command
async def timeline(job: str, /, *, common: ToGateway = ToGateway()) -> int:
    """Tell what happened to a job, in order."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.timeline(job)
    if out.json:
        out.document(found)
        return OK
    if not found.complete:
        out.say("older events are no longer kept")
    for event in found.events:
        out.say(line_of(event))
    return OK


@jobs.command
async def explain(job: str, /, *, common: ToGateway = ToGateway()) -> int:
    """Say why a job is where it is: who lacks what, its place in the line, an estimate."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.explain(job)
    if out.json:
        out.document(found)
    else:
        _explain(out, found)
    return OK


@jobs.command
async def preview(
    job: str,
    /,
    *,
    out: Annotated[Path, Parameter(help="The file to write the picture to.")],
    common: ToGateway = ToGateway(),
) -> int:
    """Save the latest picture of a running job, where its service shows any."""
    said = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.preview(job)
    try:
        await asyncio.to_thread(out.write_bytes, found.data)
    except OSError as error:
        raise InvalidError(f"{out} cannot be written: {error.strerror or error}.") from error
    said.answer(
        {"id": job, "media_type": found.media_type, "size": len(found.data), "file": str(out)},
        f"{job} {found.media_type} of {len(found.data)} bytes in {out}",
    )
    return OK


@jobs.command
async def follow(job: str, /, *, common: ToGateway = ToGateway()) -> int:
    """Show a job's progress until it has ended; exit 0 only on success."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        handle = fleet.job(job)
        await follow_job(out, handle)
        return await conclude(out, handle)


@jobs.command
async def cancel(job: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Cancel a job; one that runs is asked to stop."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        state = await fleet.cancel(job, reason=reason)
    asked = "" if state.terminal else " (asked to stop)"
    out.answer({"id": job, "state": state}, f"{job} {state}{asked}")
    return OK


@jobs.command
async def retry(job: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Make a dead job ready again, as a new generation."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        state = await fleet.retry(job, reason=reason)
    out.answer({"id": job, "state": state}, f"{job} {state}")
    return OK


def _explain(out: Out, found: Explanation) -> None:
    out.say(f"{found.state}{' and unworkable: no live worker can serve it' if found.unworkable else ''}")
    for reason in found.reasons:
        out.say(f"- {reason}")
    for need in found.needs:
        avoided = need.key.removeprefix("avoid.")
        out.say(f"{'needs' if avoided == need.key else 'avoids'} {avoided} = {need.wanted}")
        for holding in need.lacking:
            out.say(f"    {holding.worker} has {'none' if holding.has is None else holding.has}")
    kept = ", ".join(f"{count} {what}" for what, count in found.kept_out.items())
    if found.endpoints:
        out.say(f"endpoints {found.endpoints}{f', kept from it: {kept}' if kept else ''}")
    for one in found.candidates:
        out.say(f"    {_candidate(one)}")
    if found.position is not None:
        out.say(f"position {found.position} in its tenant's line, {found.ahead} ahead")
    if found.estimate_s is not None:
        out.say(f"starts in about {found.estimate_s:.0f} s")


def _candidate(one: Candidate) -> str:
    place = f"{one.endpoint} by {one.worker}" if one.endpoint else f"handlers of {one.worker}"
    words = "; ".join(f"{each.what}{f' until {shown(each.until)}' if each.until else ''}" for each in one.hindrances)
    return f"{place}: {words or 'free'}, as of {one.age_s:.0f} s ago"

"""Speaking to a gateway as the commands of users do."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from hostler.cli.config import load
from hostler.cli.flags import Common
from hostler.cli.output import Out, shown
from hostler.client import Fleet, connect
from hostler.contracts.api import ActionReport, JobFilter
from hostler.contracts.job import Job, JobState
from hostler.kernel.errors import SettingsError

LIMIT = 50
"""Rows of a list, unless told."""


@asynccontextmanager
async def talking(common: Common) -> AsyncGenerator[Fleet]:
    """Speak to the gateway that the settings name."""
    settings = load(common.settings(), config=common.config).settings
    async with connect(settings.url, settings.key) as fleet:
        yield fleet


def pairs(given: Iterable[str], *, flag: str) -> dict[str, str]:
    """Return `k=v` arguments as a table; `SettingsError` names the flag."""
    found: dict[str, str] = {}
    for pair in given:
        name, sign, value = pair.partition("=")
        if not name or not sign:
            raise SettingsError(f"{flag}: expected name=value, got {pair!r}", problems=())
        found[name] = value
    return found


def selected(
    *, queue: str | None, kind: str | None, states: Iterable[str] = (), tenant: str | None, labels: Iterable[str] = ()
) -> JobFilter:
    """Return which jobs are meant; `SettingsError` for a value that cannot be one."""
    facts = {
        "queue": queue,
        "kind": kind,
        "states": list(states),
        "tenant": tenant,
        "labels": pairs(labels, flag="--label"),
    }
    try:
        return msgspec.convert(facts, JobFilter)
    except msgspec.ValidationError as error:
        raise SettingsError(f"which jobs: {error}; states are {', '.join(JobState)}", problems=()) from error


def job_rows(jobs: Iterable[Job]) -> list[tuple[Any, ...]]:
    """Return jobs as rows of a table."""
    return [(job.id, job.kind, state_of(job), job.priority, job.attempt, job.created_at, said_of(job)) for job in jobs]


JOB_COLUMNS = ("job", "kind", "state", "priority", "attempt", "created (UTC)", "")


def state_of(job: Job) -> str:
    """Return a job's state as people read it."""
    if job.unworkable:
        return f"{job.state} (unworkable)"
    return f"{job.state} (cancel asked)" if job.cancel_requested and not job.state.terminal else str(job.state)


def said_of(job: Job) -> str:
    """Return the most telling words about a job."""
    if job.error is not None:
        return f"{job.error.class_}: {job.error.message}"
    if job.waiting_for:
        return f"waits for {job.waiting_for}"
    if job.progress is not None and not job.state.terminal:
        share = "" if job.progress.fraction is None else f"{job.progress.fraction:.0%} "
        return f"{share}{job.progress.stage or ''}"
    return ""


def facts_table(out: Out, rows: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, those that are empty left out."""
    width = 14
    for name, value in rows:
        if value not in (None, "", (), {}):
            out.say(f"{name:<{width}}{shown(value).replace(chr(92) + '[', '[')}")


def print_report(out: Out, report: ActionReport) -> int:
    """Print what an action on many jobs did; the exit code."""
    for item in report.items:
        if out.json:
            out.document(item)
        elif item.problem is not None:
            out.say(f"{item.id}: {item.problem.detail or item.problem.title}")
    summary = msgspec.structs.replace(report, items=())
    verb = f"would {report.verb}" if report.dry_run else f"{report.verb}: done"
    failed = f", {report.failed} refused" if report.failed else ""
    count = report.matched if report.dry_run else report.done
    out.answer(summary, f"{verb} {count} {'job' if count == 1 else 'jobs'}{failed}")
    return 1 if report.failed else 0

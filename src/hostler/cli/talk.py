"""Speaking to a gateway as the commands of users do."""

import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from hostler.cli.config import load
from hostler.cli.flags import Common
from hostler.cli.output import Out, shown
from hostler.client import Fleet, connect
from hostler.contracts.api import ActionReport, JobFilter
from hostler.contracts.failure import FailureClass, Stage
from hostler.contracts.job import Job, JobState
from hostler.kernel.errors import SettingsError
from hostler.kernel.names import nearest

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


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """Which jobs, as lists and the verbs for many of them take it; every part given must hold."""

    queue: str | None = None
    kind: str | None = None
    tenant: str | None = None
    label: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """NAME=VALUE, one or more."""
    class_: Annotated[str | None, Parameter(name="--class")] = None
    """Class of the error, as transient or timeout:idle; timeout alone stands for every stage."""
    since: str | None = None
    """Ended then or later: a time (RFC 3339) or an age, as 2h, 30m, 7d."""
    until: str | None = None
    """Ended before that: a time or an age."""

    @property
    def empty(self) -> bool:
        """Tell whether nothing was given."""
        return self == Narrowed()

    def filter(self, *, states: Iterable[str] = ()) -> JobFilter:
        """Return which jobs are meant; `SettingsError` for a value that cannot be one."""
        now = datetime.now(UTC)
        wanted = list(states)
        for state in wanted:
            _judge_word(state, JobState, flag="--state")
        if self.class_ is not None:
            head, colon, stage = self.class_.partition(":")
            _judge_word(head, FailureClass, flag="--class")
            if colon:
                _judge_word(stage, Stage, flag=f"--class {head}:STAGE")
        facts = {
            "queue": self.queue,
            "kind": self.kind,
            "states": wanted,
            "tenant": self.tenant,
            "labels": pairs(self.label, flag="--label"),
            "error_class": self.class_,
            "ended_since": self.since and moment(self.since, now, flag="--since"),
            "ended_until": self.until and moment(self.until, now, flag="--until"),
        }
        try:
            return msgspec.convert(facts, JobFilter)
        except msgspec.ValidationError as error:
            raise SettingsError(f"which jobs: {error}", problems=()) from error


def _judge_word(word: str, known: type[StrEnum], *, flag: str) -> None:
    if word not in set(known):
        words = f"{flag}: {word!r} is not one of {', '.join(known)}{nearest(word, known)}"
        raise SettingsError(words, problems=())


def moment(text: str, now: datetime, *, flag: str) -> datetime:
    """Return a time as typed: RFC 3339, or an age before `now`; `SettingsError` names the flag."""
    if (age := _AGE.fullmatch(text)) is not None:
        return now - timedelta(seconds=float(age["number"]) * _AGE_UNITS[age["unit"]])
    return exact_moment(text, flag=flag, other=" or an age like 2h")


def exact_moment(text: str, *, flag: str, other: str = "") -> datetime:
    """Return a time as typed, RFC 3339; `SettingsError` names the flag, and what `other` forms it takes."""
    try:
        found = msgspec.convert(text, datetime)
        if found.tzinfo is not None:
            return found
    except (msgspec.ValidationError, OverflowError):
        pass
    words = f"expected a time like 2026-11-24T09:00:00Z{other}, got {text!r}"
    raise SettingsError(f"{flag}: {words}", problems=())


_AGE: Final = re.compile(r"(?P<number>\d{1,6}(\.\d{1,3})?)(?P<unit>[smhd])")
_AGE_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


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

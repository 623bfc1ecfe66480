"""What two brokers must agree on, as plain values."""

from collections.abc import Sequence
from typing import Any

from hostler.contracts.api import JobFilter
from hostler.contracts.event import Event
from hostler.contracts.job import Job, JobState
from hostler.contracts.queue import QueueStats
from hostler.ports.broker import Desk

QUEUE_WORDS = frozenset({"pause", "resume", "drain"})
"""Events of the queue that both must have, in order; when lanes are marked is left to each."""


def job_facts(job: Job) -> dict[str, Any]:
    """Return what is promised about a job, without what only an adapter knows."""
    facts: dict[str, Any] = {
        name: getattr(job, name)
        for name in (
            "id",
            "kind",
            "state",
            "tenant",
            "priority",
            "attempt",
            "generation",
            "created_at",
            "finished_at",
            "deadline",
            "labels",
            "cancel_requested",
            "waiting_for",
        )
    }
    facts["attempts"] = [
        (one.number, one.generation, one.worker, one.outcome, one.counted, one.error and one.error.label)
        for one in job.attempts
    ]
    facts["error"] = job.error and job.error.class_
    facts["progress"] = job.progress and job.progress.fraction
    facts["result"] = bytes(job.result)
    if job.state is JobState.RUNNING:
        facts["worker"], facts["started_at"] = job.worker, job.started_at
    if job.state in (JobState.READY, JobState.SCHEDULED):
        facts["ready_at"] = job.ready_at
    return facts


def stats_facts(stats: QueueStats) -> dict[str, Any]:
    """Return the counters that both must agree on."""
    facts: dict[str, Any] = {
        name: getattr(stats, name)
        for name in ("paused", "draining", "ready", "scheduled", "running", "waiting", "depth")
    }
    facts["totals"] = {name: count for name, count in stats.totals.items() if count}
    facts["kept"] = {name: count for name, count in stats.kept.items() if count}
    return facts


def story(events: Sequence[Event]) -> dict[str | None, list[tuple[Any, ...]]]:
    """Return each job's events, and the queue's own, in order."""
    found: dict[str | None, list[tuple[Any, ...]]] = {}
    for event in events:
        if event.job is not None:
            near = event.data.get("affinity")
            found.setdefault(event.job, []).append((event.type, event.state, event.attempt, event.at, near))
        elif event.type in QUEUE_WORDS:
            found.setdefault(None, []).append((event.type, event.at))
    return found


async def all_jobs(desk: Desk, queue: str) -> dict[str, Job]:
    """Return every job that is kept."""
    jobs: dict[str, Job] = {}
    cursor: str | None = None
    while True:
        page, cursor = await desk.find(JobFilter(queue=queue), cursor=cursor, limit=100)
        jobs.update({job.id: job for job in page})
        if cursor is None:
            return jobs


async def all_events(desk: Desk, queue: str) -> list[Event]:
    """Return every event that is kept."""
    events: list[Event] = []
    after = 0
    while (page := await desk.events(queue, after=after, limit=1000)).events:
        events.extend(page.events)
        after = page.next
    return events

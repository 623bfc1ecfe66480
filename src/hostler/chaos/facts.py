"""What a history is made of, and what the judge says about it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from msgspec import Struct

from hostler.chaos.record import Effect, Terms
from hostler.contracts.event import Event
from hostler.contracts.job import Job, JobRequest, JobState
from hostler.contracts.offer import Offer
from hostler.contracts.queue import QueueStats
from hostler.kernel.units import Instant, Seconds

CLOSING: Final = ("pause", "drain")
OPENING: Final = "resume"
"""Events of a queue between which nothing of it is claimed."""
NEVER: Final = datetime.max.replace(tzinfo=UTC)


class Submission(Struct, frozen=True, kw_only=True):
    """One acknowledged submit, as its client saw it."""

    id: str
    created: bool = True
    """False when the answer was an earlier job's id."""
    request: JobRequest | None = None


class Told(Struct, frozen=True, kw_only=True):
    """What a worker was told about one settlement."""

    job: str
    fence: int
    """As events tell it: the attempt."""
    accepted: bool
    delay: Seconds | None = None
    """How long the next attempt had to wait, if the settlement said so."""


class Seen(Struct, frozen=True, kw_only=True):
    """What a worker offered, from a moment on, as the registry showed it."""

    at: Instant
    offers: tuple[Offer, ...]


class Finding(Struct, frozen=True, kw_only=True):
    """One broken invariant with its smallest witness."""

    invariant: str
    """`S1` to `S17`."""
    sentence: str
    jobs: tuple[str, ...] = ()
    offsets: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f" at {', '.join(str(offset) for offset in self.offsets)}" if self.offsets else ""
        return f"{self.invariant}: {self.sentence}{where}"


class Verdict(Struct, frozen=True, kw_only=True):
    """What the judge found."""

    findings: tuple[Finding, ...]
    judged: tuple[str, ...]
    unjudged: tuple[str, ...]
    """Invariants for which too little was recorded."""

    @property
    def clean(self) -> bool:
        """Tell whether nothing was found."""
        return not self.findings

    def broken(self) -> tuple[str, ...]:
        """Return the invariants that were found broken, each once."""
        return tuple(dict.fromkeys(finding.invariant for finding in self.findings))

    def __str__(self) -> str:
        if self.clean:
            return f"clean ({', '.join(self.judged)})"
        return "\n".join(str(finding) for finding in self.findings)


class History:
    """All that was recorded, with the look-ups that several rules share."""

    def __init__(
        self,
        *,
        events: tuple[Event, ...],
        submitted: Sequence[Submission] | None,
        final: Mapping[str, Job] | None,
        told: Sequence[Told] | None,
        effects: Sequence[Effect] | None,
        stats: QueueStats | None,
        audit: Sequence[str] | None,
        terms: Terms,
        renewed: Mapping[tuple[str, int], Sequence[datetime]] | None = None,
        seen: Mapping[str, Sequence[Seen]] | None = None,
        unclaimed: Mapping[str, int] | None = None,
    ) -> None:
        self.events = events
        self.submitted = submitted
        self.final = final
        self.told = told
        self.effects = effects
        self.stats = stats
        self.audit = audit
        self.terms = terms
        self.renewed = renewed or {}
        """When the renewals of each job's fence were asked for, of those that were granted."""
        self.seen = seen or {}
        """What each worker was seen to offer, in order of time."""
        self.unclaimed = unclaimed or {}
        """Effects of each job that may be of claims which the engine lost by what is promised of it."""

    @cached_property
    def jobs(self) -> dict[str, list[Event]]:
        """Return each job's events, in order."""
        jobs: dict[str, list[Event]] = {}
        for event in self.events:
            if event.job is not None:
                jobs.setdefault(event.job, []).append(event)
        return jobs

    @cached_property
    def closed(self) -> tuple[tuple[datetime, datetime], ...]:
        """Return from when to when nothing could be claimed since somebody had paused or drained the queue."""
        found: list[tuple[datetime, datetime]] = []
        since: datetime | None = None
        for event in self.events:
            if event.type in CLOSING:
                since = since or event.at
            elif event.type == OPENING and since is not None:
                found.append((since, event.at))
                since = None
        return (*found, (since, NEVER)) if since is not None else tuple(found)

    @property
    def shut(self) -> bool:
        """Whether it is paused or drained at the end."""
        return bool(self.closed) and self.closed[-1][1] == NEVER

    def closed_for(self, since: datetime, until: datetime) -> Seconds:
        """Return for how long of this time nothing could be claimed."""
        spans = ((max(begin, since), min(end, until)) for begin, end in self.closed)
        return sum((max(0.0, (end - begin).total_seconds()) for begin, end in spans), 0.0)

    @cached_property
    def requests(self) -> dict[str, JobRequest]:
        """Return what was submitted, by job, as far as it is known."""
        return {one.id: one.request for one in self.submitted or () if one.created and one.request is not None}

    @cached_property
    def states(self) -> dict[str, JobState]:
        """Return each job's last state by its events; purged jobs are absent."""
        states: dict[str, JobState] = {}
        for event in self.events:
            if event.job is not None and event.state is not None:
                states[event.job] = event.state
            if event.type == "purge" and event.job is not None:
                states.pop(event.job, None)
        return states


Rule = Callable[[History], list[Finding] | None]
"""Judges one invariant; None when too little was recorded to judge it."""


def terminal(event: Event) -> bool:
    """Tell whether this event ended its job."""
    return event.state is not None and event.state.terminal

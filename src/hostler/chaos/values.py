"""What operations asked and what they were answered."""

from typing import Literal

from msgspec import Struct

from hostler.contracts.job import JobRequest, JobState
from hostler.contracts.lease import LeaseRef
from hostler.kernel.units import Seconds

How = Literal["succeed", "again", "hold", "die", "stopped"]


class Requests(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="is", tag="requests"):
    """A `submit` of these jobs in one call."""

    requests: tuple[JobRequest, ...]


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to one of them."""

    id: str | None = None
    """None when it was refused."""
    created: bool = True
    code: str | None = None
    """Why it was refused."""
    retry_after: Seconds | None = None


class Answers(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="is", tag="answers"):
    """What a `submit` was answered, in order."""

    answers: tuple[Answer, ...]


class Wanted(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="is", tag="wanted"):
    """A `claim` of jobs."""

    worker: str
    limit: int = 1


class Leased(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One lease that a `claim` gave."""

    job: str
    fence: int
    generation: int = 1


class Leases(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="is", tag="leases"):
    """What a `claim` was answered."""

    leases: tuple[Leased, ...]


class Refs(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="is", tag="refs"):
    """A `renew` of these leases, or a `progress` under them."""

    worker: str
    leases: tuple[LeaseRef, ...]


class Stale(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="is", tag="stale"):
    """What a `renew` or `progress` was answered: these leases are lost, these jobs are asked to stop."""

    lost: tuple[LeaseRef, ...] = ()
    cancelled: tuple[LeaseRef, ...] = ()


class Ended(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt's end."""

    job: str
    fence: int
    how: How
    delay: Seconds | None = None
    """How long the next attempt has to wait."""


class Endings(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="is", tag="endings"):
    """A `settle` of these attempts."""

    worker: str
    endings: tuple[Ended, ...]


class Word(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The word on one of them."""

    accepted: bool
    state: JobState | None = None
    """The job's state then."""


class Words(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="is", tag="words"):
    """What a `settle` was answered, in order."""

    words: tuple[Word, ...]


class Seen(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="is", tag="seen"):
    """The job as a `get` showed it, or its state after `cancel`, `replay` or `wake`."""

    state: JobState
    attempt: int | None = None
    """Claims so far."""
    generation: int | None = None


class Refused(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="is", tag="refused"):
    """Why it did not happen: the error's code."""

    code: str
    retry_after: Seconds | None = None
    """When to ask again, where that was said."""


Value = Requests | Answers | Wanted | Leases | Refs | Stale | Endings | Words | Seen | Refused

"""The right to run one attempt of a job."""

from enum import IntEnum

from msgspec import UNSET, Raw, Struct, UnsetType, field

from hostler.contracts.failure import Failure
from hostler.contracts.job import Attempt, BlobRef, Progress, null_json
from hostler.contracts.needs import Lane
from hostler.contracts.offer import Offer, Pool, Standing
from hostler.contracts.preview import Preview
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.units import Instant, Seconds


class Suspicion(IntEnum):
    """How near a job is to being dead as poison (`policy.suspicion`)."""

    NONE = 0
    """It lost no worker in this generation."""
    SUSPECT = 1
    """It lost one; the next loss does not end it."""
    LAST = 2
    """The next loss ends it."""


class Lease(Struct, frozen=True, kw_only=True):
    """A claimed job with all that is needed to run it.

    `(job_id, fence)` goes with every later call; a lower fence is refused for ever.
    """

    job_id: str
    kind: str
    queue: str
    fence: int
    """Rises with every claim of this job."""
    generation: int
    attempts_used: int
    """Attempts of this generation that counted, before this one."""
    attempts_max: int
    crashes: int
    """Leases of this generation that were lost."""
    crashes_max: int = 3
    """The loss that ends it."""
    overloads: int
    """Times in a row that the service had no room."""
    payload: Raw
    lane: Lane
    offer: int | None = None
    """Index of the request's offer that the broker matched; None when it cannot say."""
    lease_s: Seconds
    expires_at: Instant
    """On the engine's clock."""
    now: Instant
    """The engine's clock when the lease was given: the two together give a local deadline."""
    deadline: Instant | None
    timeouts: Timeouts
    """The job's own; the kind's fill the gaps in the worker."""
    tenant: str
    labels: dict[str, str]
    remote: str | None
    """The service's id of the work that an earlier attempt started: ask `reconcile` about it first."""
    remote_endpoint: str | None = None
    checkpoint: Raw | UnsetType = UNSET
    """What an earlier attempt saved with `call.checkpoint`."""
    history: tuple[Attempt, ...] = ()
    """Earlier attempts, so that the next can do better."""


class LeaseRef(Struct, frozen=True, kw_only=True):
    """One lease that a worker holds."""

    job_id: str
    fence: int


class Renewal(Struct, frozen=True, kw_only=True):
    """What one batch renewal found."""

    lost: tuple[LeaseRef, ...] = ()
    """No longer ours: abort the work at once."""
    cancelled: tuple[LeaseRef, ...] = ()
    """Still ours, but somebody asked for it to stop: stop it, then `finish` as cancelled."""
    expires_at: Instant | None = None
    drained: tuple[str, ...] = ()
    """Queues of these leases that are being drained: their jobs may finish, no new claim comes."""


class Update(Struct, frozen=True, kw_only=True):
    """One progress report under a lease; what is absent stays as it was."""

    job_id: str
    fence: int
    progress: Progress | None = None
    remote: str | None = None
    """The service's id of the work, stored before it is waited for, so that a crash can be reconciled."""
    remote_endpoint: str | None = None
    checkpoint: Raw | UnsetType = UNSET
    preview: Preview | None = None
    """Replaces the one before; shown for a minute at most, and never in an event."""


class Succeed(Struct, frozen=True, kw_only=True, tag="succeed"):
    """The attempt has a result: running -> succeeded."""

    result: Raw = field(default_factory=null_json)
    ref: BlobRef | None = None


class Again(Struct, frozen=True, kw_only=True, tag="again"):
    """The attempt ends and the job runs again: running -> ready | scheduled (`retry`)."""

    failure: Failure | None
    """None when a draining worker gives work back."""
    delay: Seconds = 0.0
    counted: bool = True
    """Uses up an attempt."""
    overload: bool = False
    """Counts against the overload budget instead."""
    lane: Lane | None = None
    """Moves to this (derived) lane; None stays in its own."""


class Hold(Struct, frozen=True, kw_only=True, tag="hold"):
    """The job needs a resource, a secret or a person: running -> waiting (`wait`)."""

    reason: str
    failure: Failure | None = None
    until: Seconds | None = None
    """Wakes by itself after this; None waits for `wake`."""


class Die(Struct, frozen=True, kw_only=True, tag="die"):
    """The job failed for good: running -> dead (`fail`)."""

    failure: Failure


class Stopped(Struct, frozen=True, kw_only=True, tag="stopped"):
    """A requested cancel is acknowledged: running -> cancelled (`cancel`)."""


Ending = Succeed | Again | Hold | Die | Stopped
"""How an attempt ends: a closed union, so the type checker proves that each is handled."""


class Settlement(Struct, frozen=True, kw_only=True):
    """One attempt's end, under its lease."""

    job_id: str
    fence: int
    ending: Ending
    endpoint: str | None = None


class Settled(Struct, frozen=True, kw_only=True):
    """The broker's word on one settlement."""

    job_id: str
    accepted: bool
    """False: the lease was stale, nothing changed (an event says so)."""
    state: str
    """The job's state now; a success that lost against a cancel request says `cancelled`."""
    reason: str = ""


class ClaimRequest(Struct, frozen=True, kw_only=True):
    """What one worker asks of one queue."""

    queue: str
    worker: str
    limit: int
    """Most leases wanted: free slots, 1 to 64. 0 asks what was given under this operation, and ends it."""
    offers: tuple[Offer, ...] = ()
    """What the worker can do now; a lane fits when one healthy offer does (`policy.matching`)."""
    standings: tuple[Standing, ...] = ()
    """How each of the offers stands, in their order: a job gets the best of those with room (`policy.balance`)."""
    pools: dict[str, Pool] = {}
    """The worker's own amounts by name, `slots` at least; a fitting offer's pools are taken from as well.
    Checked and taken in the same step as the lease."""
    lease_s: Seconds | None = None
    """The queue's own unless set."""
    suspicion: Suspicion = Suspicion.NONE
    """Of the worst that the worker holds, over all its queues: another suspect is kept from it for a while."""

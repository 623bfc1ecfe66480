"""Positions and names inside the engine's packed values: the one source for the functions and for Python.

The library loader writes these numbers into the Lua text (`F.state` becomes `1`), so that neither side can
disagree with the other. Times are microseconds since the epoch as integers, 0 where there is none; absent
text is `false`. Positions here count from 0; Lua's count from 1. Version 1 is frozen: only append.
"""

from typing import Final

from hostler.contracts.fence import CLAIMS
from hostler.contracts.job import JobState
from hostler.contracts.preview import PREVIEW_LIFE
from hostler.policy.lifecycle import Verb

VERSION: Final = 1

SEQ_BASE: Final = 100_000_000_000
"""Job numbers count from here, so that their text sorts like their value; events store the difference."""

SEQ_BEGIN: Final = 1_767_225_600
"""The second from which lives and job numbers are counted where a queue begins, or another server takes over: 2026."""

LIVES_A_SECOND: Final = 8
"""How fine lives, and epochs, are numbered by the clock; with `FENCE_STEP` fences stay whole in a double until 2060."""

JOBS_A_SECOND: Final = 1000
"""Job numbers for each second since then: what a queue may take in, averaged over its life; room for 28 years."""

JOBS_LOST: Final = 10_000
"""So many submits may at least have been lost with the server that acknowledged them: no number is given twice."""

LANES_LOST: Final = 64
"""The same for lanes."""

FENCE_STEP: Final = CLAIMS
"""What a fence's part for the queue's life is multiplied by; below it are the claims so far."""

ATTEMPTS_KEPT: Final = 200
"""Claims of one job that are kept; a job that waits for a limit or a result may come back any number of times."""

STATES: Final[tuple[JobState, ...]] = tuple(JobState)
"""A state is stored as its place in here, from 1."""

VERBS: Final[tuple[Verb, ...]] = tuple(Verb)
"""A verb is stored as its place in here, from 1; a queue's own event is stored as its name."""

RECORD: Final[tuple[str, ...]] = (
    "state",  # STATES
    "lane",  # number
    "tenant",
    "vt",  # effective arrival
    "ckey",  # concurrency key or false
    "fence",  # contracts.fence: claims so far, raised by every new life of the queue
    "attempts",  # counted, this generation
    "crashes",  # this generation
    "overloads",  # in a row
    "generation",  # from 1
    "worker",  # holder, or the last one; false before the first claim
    "created",
    "ready_at",  # when it became, or will become, ready
    "started",  # the running or last attempt's start
    "finished",
    "deadline",  # of the whole job
    "queue_until",  # end of the queue wait; 0 once it was started
    "size",  # bytes of the envelope
    "cancel",  # 0, or the end of the grace of a requested cancel
    "max_attempts",
    "max_crashes",
    "max_overloads",
    "priority",
    "events",  # offsets of its moves, oldest first, the last EVENTS_KEPT
    "taken",  # flat array field, thousandths, ... of `use`; false unless running
    "waiting_for",  # reason or false
    "settled_fence",  # fence of the last settlement
    "settled_ending",  # ENDINGS, of the last settlement
    "rejected",  # fences whose refusal was an event, or false
    "parked",  # 1 while it waits for its concurrency key
    "offer",  # index of the offer that the last claim matched, or false
    "lease",  # this claim's lease time in microseconds
    "bad_workers",  # workers whose leases were lost, this generation, or false
    "affinity",  # what jobs of one session share (policy.affinity) or false
)
"""`j:<seq>`."""

RECORD_TEXTS: Final = frozenset(
    ("ckey", "worker", "taken", "waiting_for", "rejected", "offer", "bad_workers", "affinity")
)
"""Fields of a record that are `false`, not 0, where there is nothing."""

EVENTS_KEPT: Final = 64

EPOCHS_KEPT: Final = 64
"""Lives of a queue of which it is kept where they began."""

PREVIEW_MS: Final = round(PREVIEW_LIFE * 1000)
"""How long `pv:<seq>` lives when no other follows."""

ENDINGS: Final = ("succeed", "again", "hold", "die", "stopped")
"""Tags of `contracts.lease.Ending`; stored as the place from 1."""

ATTEMPT: Final = (
    "number",
    "generation",
    "worker",
    "endpoint",
    "started",
    "ended",
    "outcome",
    "failure",  # msgpack of contracts.failure.Failure, or false
    "counted",
    "remote",
)
"""One element of `a:<seq>`."""

PROGRESS: Final = ("progress", "remote", "endpoint", "fence", "offset")
"""`g:<seq>`: msgpack of contracts.job.Progress or false; service's id; endpoint; who wrote it; its event."""

RESULT: Final = ("result", "ref")
"""`s:<seq>`: sealed JSON; msgpack of contracts.job.BlobRef or false."""

LANE: Final = ("lane", "amounts", "avoid", "shun", "created", "key")
"""`lanes`: msgpack of contracts.needs.Lane; flat name, thousandths, ...; ids of workers excluded and shunned;
when it began; its key."""

ENTRY: Final = ("at", "events")
"""Field `e` of one stream entry; its events have consecutive offsets from the entry's id."""

EVENT: Final = ("type", "seq", "state", "attempt", "worker", "data")
"""One event: verb number or name; job less SEQ_BASE, false for the queue; state number or 0; fence; id; facts.

Facts are a map, or its msgpack as bytes, or false.
"""

CONFIG: Final = (
    "lease",
    "head_start",
    "reserve_after",
    "cancel_grace",
    "depth",
    "bytes",
    "tenant_depth",
    "lanes",
    "key_running",
    "terminal",
    "terminal_count",
    "dead",
    "events",
    "idempotency",
    "operations",
    "weights",
    "affinity",
    "spread",  # over how many shards of the queue keys are spread; 0 in one that takes no new jobs
)
"""`cfg`: times in microseconds (`idempotency`, `operations`, `affinity`: milliseconds), 0 for no limit."""

META: Final = (
    # What submit, claim and settle look at, first.
    "born",  # when the queue began: part of every cache's key
    "last",  # the latest time any call saw, to within a second while no job runs: time never steps back
    "arrival",  # the latest arrival given: each is later than the one before
    "off",  # offset of the latest event
    "seq",  # latest job number
    "lane",  # latest lane number
    "cfg",  # sha1 of the packed configuration
    "paused",
    "draining",
    "V",  # virtual time: the pass of the tenant served last
    "due",  # when the next delayed or waiting job is due, 0 when none is
    "exp",  # no job expires before this, 0 when none does at all
    "life",  # eighth of a second since SEQ_BEGIN in which this life began: fences are above this times FENCE_STEP
    "run",  # replication id of the server that wrote last: another one takes over, and a new life begins
    "idle",  # workers in idle sets
    "bytes",  # envelope bytes of jobs that have not ended
    "n_ready",
    "n_scheduled",
    "n_running",
    "n_waiting",
    "n_succeeded",
    "t_submitted",
    "t_claimed",
    "t_succeeded",
    # The rest is read only when it is looked at.
    "epoch",  # raised with every new life
    "reason",
    "heir",  # since when leases are owed a grace: a server took over, or nobody was heard for a while; else 0
    "tick",  # when upkeep was last done
    "turn",  # since when somebody is about to do it, 0 when nobody is
    "sweep",  # when the last sweep over lanes began
    "cursor",  # where the sweep is
    "mark_at",  # events: when the younger mark was set
    "mark_off",  # the offset at that mark
    "trim_to",  # offsets up to here are older than an hour
    "apart",  # when the first of the jobs that were passed over may be taken by anybody, 0 when none was
    "n_dead",
    "n_cancelled",
    "n_expired",
    "t_deduplicated",
    "t_dead",
    "t_cancelled",
    "t_expired",
    "t_replayed",
    "t_purged",
    "t_retried",
    "t_reaped",
    "t_rejected",
    "roll",  # how often workers came, went, or took up or gave up work or queues; of a queue: when it last looked
    "mustered",  # and the time of that look
    "wide",  # nothing but long: 23 fields are read in a third of the time from a hash that is no list
)
"""Fields of `meta`; an absent one is 0."""

META_HOT: Final = META.index("epoch")
"""So many of them are read by every call."""

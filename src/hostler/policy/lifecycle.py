"""The lives of jobs, workers and endpoints, each as one table.

Everything else is derived from here: the Python guard `advance`, the guard in the function library,
the diagram in `docs/job-life.md`, the names of routes, functions, metrics and events, and the tests.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from hostler.contracts.job import JobState
from hostler.contracts.service import EndpointState
from hostler.contracts.worker import WorkerState

S = JobState


class Verb(StrEnum):
    """What can happen to a job; the same word names function, event and metric."""

    SUBMIT = "submit"
    CLAIM = "claim"
    RENEW = "renew"
    PROGRESS = "progress"
    FINISH = "finish"
    FAIL = "fail"
    RETRY = "retry"
    WAIT = "wait"
    WAKE = "wake"
    EXPIRE = "expire"
    CANCEL = "cancel"
    BURY = "bury"
    REPLAY = "replay"
    REAP = "reap"
    REJECT = "reject"


JOB_MOVES: Final[Mapping[tuple[JobState | None, Verb], frozenset[JobState]]] = MappingProxyType(
    {
        (None, Verb.SUBMIT): frozenset({S.READY, S.SCHEDULED}),
        (S.SCHEDULED, Verb.WAKE): frozenset({S.READY}),
        (S.SCHEDULED, Verb.CANCEL): frozenset({S.CANCELLED}),
        (S.SCHEDULED, Verb.EXPIRE): frozenset({S.EXPIRED}),
        (S.READY, Verb.CLAIM): frozenset({S.RUNNING}),
        (S.READY, Verb.CANCEL): frozenset({S.CANCELLED}),
        (S.READY, Verb.EXPIRE): frozenset({S.EXPIRED}),
        (S.RUNNING, Verb.FINISH): frozenset({S.SUCCEEDED}),
        (S.RUNNING, Verb.FAIL): frozenset({S.DEAD}),
        (S.RUNNING, Verb.RETRY): frozenset({S.READY, S.SCHEDULED}),
        (S.RUNNING, Verb.WAIT): frozenset({S.WAITING}),
        (S.RUNNING, Verb.REAP): frozenset({S.READY}),
        (S.RUNNING, Verb.BURY): frozenset({S.DEAD}),
        (S.RUNNING, Verb.CANCEL): frozenset({S.CANCELLED}),
        (S.RUNNING, Verb.EXPIRE): frozenset({S.EXPIRED}),
        (S.WAITING, Verb.WAKE): frozenset({S.READY}),
        (S.WAITING, Verb.CANCEL): frozenset({S.CANCELLED}),
        (S.WAITING, Verb.EXPIRE): frozenset({S.EXPIRED}),
        (S.DEAD, Verb.REPLAY): frozenset({S.READY}),
    }
)
"""From a state, by a verb, to one of these states. `renew`, `progress` and `reject` move nothing.

`bury` is the broker's own: the lease was lost too often (poison). `fail` is the worker's word.
A `cancel` of a running job first leaves a request (an event without a state), then moves once the
worker acknowledged it or its grace ended.
"""

TERMINAL: Final = frozenset({S.SUCCEEDED, S.DEAD, S.CANCELLED, S.EXPIRED})


def advance(state: JobState | None, verb: Verb) -> frozenset[JobState]:
    """Return the states that `verb` may lead to from `state`; empty when there is no such move."""
    return JOB_MOVES.get((state, verb), frozenset())


W = WorkerState

WORKER_MOVES: Final[Mapping[tuple[WorkerState | None, WorkerState], str]] = MappingProxyType(
    {
        (None, W.STARTING): "worker: process began",
        (W.STARTING, W.READY): "worker: connectors opened, kinds declared",
        (W.STARTING, W.FAILED): "worker: a connector or handler module could not be opened",
        (W.STARTING, W.STOPPING): "worker: told to stop before it was ready",
        (W.READY, W.BUSY): "worker: first lease",
        (W.BUSY, W.READY): "worker: last lease ended",
        (W.READY, W.PAUSED): "operator: pause; worker: not fit any more",
        (W.BUSY, W.PAUSED): "operator: pause; worker: not fit any more",
        (W.PAUSED, W.READY): "operator: resume; worker: fit again",
        (W.PAUSED, W.BUSY): "the same while leases run",
        (W.READY, W.DRAINING): "worker: SIGTERM or operator's drain",
        (W.BUSY, W.DRAINING): "worker: SIGTERM or operator's drain",
        (W.PAUSED, W.DRAINING): "worker: SIGTERM or operator's drain",
        (W.DRAINING, W.STOPPING): "worker: nothing runs any more, or grace ended",
        (W.STOPPING, W.STOPPED): "worker: connectors closed",
        (W.STARTING, W.LOST): "broker: lease lapsed",
        (W.READY, W.LOST): "broker: lease lapsed",
        (W.BUSY, W.LOST): "broker: lease lapsed",
        (W.PAUSED, W.LOST): "broker: lease lapsed",
        (W.DRAINING, W.LOST): "broker: lease lapsed",
        (W.STOPPING, W.LOST): "broker: lease lapsed",
        (W.LOST, W.READY): "worker: seen again",
        (W.LOST, W.BUSY): "worker: seen again",
        (W.LOST, W.PAUSED): "worker: seen again",
        (W.LOST, W.DRAINING): "worker: seen again",
    }
)
"""Who makes each move of a worker's state; each is published once as the event `worker`."""

E = EndpointState

ENDPOINT_MOVES: Final[Mapping[tuple[EndpointState | None, EndpointState], str]] = MappingProxyType(
    {
        (None, E.UNKNOWN): "configuration or announcement",
        (E.UNKNOWN, E.LOADING): "probe: loading",
        (E.UNKNOWN, E.READY): "probe: ready",
        (E.UNKNOWN, E.DEGRADED): "probe: degraded",
        (E.UNKNOWN, E.UNHEALTHY): "probe: no answer",
        (E.LOADING, E.READY): "probe: ready",
        (E.LOADING, E.DEGRADED): "probe: degraded",
        (E.LOADING, E.UNHEALTHY): "probe: no answer",
        (E.READY, E.LOADING): "probe: loading",
        (E.READY, E.DEGRADED): "probe: degraded",
        (E.READY, E.UNHEALTHY): "probe: no answer",
        (E.DEGRADED, E.LOADING): "probe: loading",
        (E.DEGRADED, E.READY): "probe: ready",
        (E.DEGRADED, E.UNHEALTHY): "probe: no answer",
        (E.UNHEALTHY, E.LOADING): "probe: loading",
        (E.UNHEALTHY, E.READY): "probe: ready",
        (E.UNHEALTHY, E.DEGRADED): "probe: degraded",
        (E.LOADING, E.DRAINING): "operator or announcement: drain",
        (E.READY, E.DRAINING): "operator or announcement: drain",
        (E.DEGRADED, E.DRAINING): "operator or announcement: drain",
        (E.UNHEALTHY, E.DRAINING): "operator or announcement: drain",
        (E.DRAINING, E.GONE): "lease lapsed or withdrawn",
        (E.READY, E.GONE): "lease lapsed or withdrawn",
        (E.DEGRADED, E.GONE): "lease lapsed or withdrawn",
        (E.UNHEALTHY, E.GONE): "lease lapsed or withdrawn",
        (E.LOADING, E.GONE): "lease lapsed or withdrawn",
        (E.UNKNOWN, E.GONE): "lease lapsed or withdrawn",
    }
)
"""Who makes each move of an endpoint's state."""

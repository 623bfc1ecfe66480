"""Query shapes and path parameters of the routes."""

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from hostler.contracts.api import ErrorClass, JobFilter
from hostler.contracts.job import BlobRef, JobState
from hostler.kernel.errors import HostlerError, InvalidError, NotFoundError, UnknownQueueError
from hostler.kernel.units import Instant, JobId, Label, Name, Seconds, ShardName

Cursor = Annotated[str, Meta(min_length=1, max_length=4096, description="`next` of the page before.")]
PageSize = Annotated[int, Meta(ge=1, le=200, description="Most items of one page; a page may hold fewer.")]
LabelPair = Annotated[
    str, Meta(min_length=2, max_length=257, pattern="^[^=]+=[^\\n]+", description="`key=value`; may be repeated.")
]
Wait = Annotated[
    Seconds | None,
    Meta(description="Wait up to so many seconds for the job to end; the server has a limit of its own."),
]


class DeadQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead jobs to list."""

    queue: ShardName | None = None
    kind: Name | None = None
    tenant: Name | None = None
    label: Annotated[tuple[LabelPair, ...], Meta(max_length=16)] = ()
    error_class: ErrorClass | None = None
    ended_since: Instant | None = None
    """Ended then or later."""
    ended_until: Instant | None = None
    """Ended before that."""
    cursor: Cursor | None = None
    limit: PageSize = 50

    def filter(self) -> JobFilter:
        """Return the part that says which."""
        return JobFilter(
            queue=self.queue,
            kind=self.kind,
            states=(JobState.DEAD,),
            tenant=self.tenant,
            labels=labels_of(self.label),
            error_class=self.error_class,
            ended_since=self.ended_since,
            ended_until=self.ended_until,
        )


class JobsQuery(DeadQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs to list."""

    state: Annotated[tuple[JobState, ...], Meta(max_length=8)] = ()
    worker: Label | None = None

    def filter(self) -> JobFilter:
        """Return the part that says which."""
        return msgspec.structs.replace(super().filter(), states=self.state, worker=self.worker)


class JobQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to look at one job."""

    wait: Wait = None
    payload: bool = True
    """Whether the answer has the payload."""


class ResultQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to ask for a result."""

    wait: Wait = None


class EventsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an event stream begins."""

    after: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    """As `Last-Event-ID`, for clients that cannot set headers; the header wins."""


class PageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One page of a short list."""

    cursor: Cursor | None = None
    limit: PageSize = 200


class WorkersQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which workers to list."""

    gone: bool = False
    """Also those that were lost or stopped in the last hour."""


class ServicesQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which endpoints to list."""

    service: Name | None = None


def labels_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Return `key=value` texts as a map; `InvalidError` when two disagree."""
    labels: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if labels.setdefault(key, value) != value:
            raise InvalidError(f"label: {key} is given with two values.", field="label")
    return labels


class PathParameter(Struct, frozen=True, kw_only=True):
    """One part of a path."""

    shape: Any
    about: str
    error: type[HostlerError]
    sentence: str
    """What is wrong when it does not fit, with `{value}`."""


PATH_PARAMETERS: Final[dict[str, PathParameter]] = {
    "id": PathParameter(
        shape=JobId,
        about="A job's id.",
        error=NotFoundError,
        sentence="There is no job {value}; an id looks like default.17.",
    ),
    "name": PathParameter(
        shape=ShardName,
        about="A queue's name, or that of one of its shards, as image~2.",
        error=UnknownQueueError,
        sentence="There is no queue {value}; GET /v1/queues lists all.",
    ),
    "worker": PathParameter(
        shape=Annotated[str, Meta(min_length=1, max_length=128)],
        about="A worker's id.",
        error=NotFoundError,
        sentence="There is no worker {value}; GET /v1/workers lists those that live.",
    ),
    "endpoint": PathParameter(
        shape=Annotated[str, Meta(min_length=1, max_length=200)],
        about="An endpoint's id.",
        error=NotFoundError,
        sentence="There is no endpoint {value}; GET /v1/services lists all that are known.",
    ),
    "sha256": PathParameter(
        shape=msgspec.structs.fields(BlobRef)[0].type,
        about="SHA-256 of the content, 64 lower-case hex digits.",
        error=InvalidError,
        sentence="{value} is no SHA-256; expected 64 lower-case hex digits.",
    ),
}


def judge_path(given: dict[str, Any]) -> dict[str, str]:
    """Return the path's parameters; the parameter's own error when one does not fit."""
    for name, value in given.items():
        row = PATH_PARAMETERS[name]
        try:
            msgspec.convert(value, row.shape)
        except msgspec.ValidationError as error:
            shown = re.sub(r"[^\x20-\x7e]", "?", str(value))[:80]
            raise row.error(row.sentence.format(value=shown), field=f"path.{name}") from error
    return {name: str(value) for name, value in given.items()}

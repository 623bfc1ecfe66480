"""What a route is: one record from which the server's behaviour and the OpenAPI document both follow."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import litestar
import msgspec

from hostler.kernel.errors import HostlerError

Method = Literal["GET", "HEAD", "POST", "PUT"]

Q = TypeVar("Q", bound=msgspec.Struct)
B = TypeVar("B")

JSON = "application/json"
BINARY = "application/octet-stream"
EVENTS = "text/event-stream"
PICTURE = "image/*"
PROBLEM = "application/problem+json"


class Nothing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No query parameters, or no body."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, as a handler sees it beside its query and body."""

    path: Mapping[str, str]
    """Path parameters, judged by their patterns."""
    operation: str
    """The `Operation-Id` of the request, or one that was made for it."""
    request: litestar.Request[Any, Any, Any]
    """For what only a few routes need: streamed bodies, `Last-Event-ID`."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a handler gives back."""

    body: object = None
    """A contract (sent as JSON), or bytes as they are."""
    stream: AsyncIterator[bytes] | None = None
    """Sent part by part instead of `body`."""
    status: int = 200
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One successful answer, for the document."""

    about: str
    type: Any = None
    """A contract; None when the media type says all."""
    media_type: str | None = JSON
    """None when there is no body."""
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[Q, B]):
    """One method of one route."""

    method: Method
    path: str
    """As Litestar writes it: `/v1/jobs/{id:str}`."""
    handler: Callable[[Call, Q, B], Awaitable[Answer]]
    """Its name is the operation's id, its docstring the document's text."""
    replies: Mapping[int, Reply]
    query: type[Q] = Nothing  # pyright: ignore[reportAssignmentType] - the default is for the routes without a query
    body: Any = None
    """Type of the JSON body; None takes none, `bytes` leaves the body to the handler."""
    body_optional: bool = False
    tag: str = "jobs"
    errors: tuple[type[HostlerError], ...] = ()
    """What it may answer besides what every route may."""

    @property
    def id(self) -> str:
        """Return the operation's id."""
        return self.handler.__name__

    @property
    def mutates(self) -> bool:
        """Tell whether it changes anything."""
        return self.method in {"POST", "PUT"}

    @property
    def template(self) -> str:
        """Return the path as OpenAPI and the metrics write it: `/v1/jobs/{id}`."""
        return self.path.replace(":str", "")

"""How a service speaks, as its owner writes it under `connectors.<name>.options` of an `http-json` entry."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from hostler.connectors.services.generic.declared import DeclaredKind
from hostler.connectors.services.generic.pointers import Pointer
from hostler.connectors.services.generic.templates import check
from hostler.contracts.failure import FailureClass
from hostler.contracts.service import EndpointState, RemoteState
from hostler.kernel.units import Bytes, Json, Name, Seconds

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
PathTemplate = Annotated[str, Meta(pattern=r"^/[^\s]*\Z", description="a path under the URL, as /jobs/{id}")]
Status = Annotated[str, Meta(pattern=r"^[1-5][0-9][0-9]\Z", description="an HTTP status as text, as 409")]
GIVEN = ("payload", "job", "fence", "kind")
"""What a submit may name."""
KNOWN = ("id", "job", "fence")
"""What later requests may name: whoever asks may not be who submitted."""


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request about work that was accepted."""

    path: PathTemplate
    method: Method = "GET"
    headers: dict[str, str] = {}
    body: Json | UnsetType = UNSET
    """JSON in which `{id}`, `{job}` and `{fence}` stand for their values; none unless given."""


class Submit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request that hands work over."""

    path: PathTemplate
    method: Method = "POST"
    headers: dict[str, str] = {}
    """As `{"Idempotency-Key": "{job}"}`."""
    body: Json | UnsetType = UNSET
    """JSON in which `{payload}`, `{payload/prompt}`, `{job}`, `{fence}` and `{kind}` stand for their values.

    The payload unless given; a GET has none unless one is given.
    """


class Caching(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of answers to a GET that the service allows to be given again (RFC 9111)."""

    enabled: bool = True
    assume_fresh: Seconds = 0.0
    """How long an answer is good that does not say it: of itself none is."""


class Reading(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an answer (or an event) says how the work is."""

    state: Pointer | None = None
    states: dict[str, RemoteState] = {}
    """From the service's words to ours; any other word is off its protocol."""
    fraction: Pointer | None = None
    whole: Annotated[float, Meta(gt=0)] = 1.0
    """The fraction that means done: 1 or, in percent, 100."""
    stage: Pointer | None = None
    message: Pointer | None = None
    eta_s: Pointer | None = None
    text: Pointer | None = None
    """Text that is new in this event."""
    result: Pointer = ""

    def __post_init__(self) -> None:
        if self.states and self.state is None:
            raise ValueError('states are given, so write where they are said: state = "/status"')
        if self.state is not None and RemoteState.SUCCEEDED not in self.states.values():
            raise ValueError('write which word means success: states = {done = "succeeded", failed = "failed"}')


class Errors(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a refusal is recognised and classed: the service's own code first, then its status."""

    said: Pointer | None = None
    """Where there is a value but null, false, 0 or nothing, the answer is a failure, whatever its status."""
    code: Pointer | None = None
    codes: dict[str, FailureClass] = {}
    statuses: dict[Status, FailureClass] = {}
    message: Pointer | None = None
    otherwise: FailureClass = FailureClass.TRANSIENT
    """Class of a failure that the service says with a code that is in no table, under a good status."""

    def __post_init__(self) -> None:
        if self.codes and self.code is None:
            raise ValueError('codes are given, so write where they are said: code = "/error/code"')


class Events(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stream of news about accepted work."""

    path: PathTemplate
    format: Literal["sse", "ndjson"] = "sse"
    headers: dict[str, str] = {}


class Follow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How accepted work is asked about and told to stop."""

    status: Request
    events: Events | None = None
    """Believed, but never alone: while it is silent the status is asked."""
    result: Request | None = None
    """Where the result is, unless the status brings it."""
    cancel: Request | None = None
    take_over: Request | None = None
    """Tells the service that a higher fence holds the work now."""
    release: Request | None = None
    gone: tuple[Annotated[int, Meta(ge=400, le=499)], ...] = (404, 410)
    """Statuses by which the service says that it knows nothing of the work."""
    poll: Annotated[float, Meta(ge=0.05)] = 1.0
    """Seconds between two questions."""

    def __post_init__(self) -> None:
        for request in self.requests():
            for template in templates_of(request):
                check(template, KNOWN)

    def requests(self) -> Iterator[Request | Events]:
        """Yield all that are written."""
        for request in (self.status, self.events, self.result, self.cancel, self.take_over, self.release):
            if request is not None:
                yield request


class HttpKind(DeclaredKind, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind: how it is handed over, and what the answer is."""

    submit: Submit
    id: Pointer | None = None
    """Where the answer names the accepted work; without it the answer is the work itself."""
    stream: Literal["sse", "ndjson"] | None = None
    """The answer arrives in events."""
    last: str | None = None
    """Data of the event that ends a stream, as `[DONE]`."""
    gather: bool = False
    """The result is all text of the stream, as `{"text": "..."}`, not its last event."""
    reading: Reading | None = None
    """How to read the answer (and events) of this kind; the endpoint's `reading` unless given."""
    http_cache: Caching | None = None
    """Of a GET whose answer is the work; as the service says unless given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for template in templates_of(self.submit):
            check(template, GIVEN)
        if self.id is not None and (self.stream or self.reading):
            raise ValueError("work that has an id is followed by `work` and read by the endpoint's `reading`")
        if self.stream is None and (self.last is not None or self.gather):
            raise ValueError('last and gather are about a stream: write stream = "sse" or "ndjson"')
        if self.http_cache is not None and not self._reads:
            raise ValueError('http_cache is about a GET whose answer is the work: submit = {method = "GET", ...}')

    @property
    def _reads(self) -> bool:
        return self.submit.method == "GET" and self.id is None and self.stream is None

    @property
    def caching(self) -> Caching | None:
        """Return how answers of this kind are given again; None where none is."""
        found = (self.http_cache or Caching()) if self._reads else None
        return found if found is not None and found.enabled else None


class Health(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the endpoint says that it is well: a 2xx that is no HTML page, and the state in it where one is told."""

    path: PathTemplate = "/health"
    state: Pointer | None = None
    states: dict[str, EndpointState] = {}
    statuses: dict[Status, EndpointState] = {}
    """As `{"503": "loading"}`."""
    message: Pointer | None = None
    version: Pointer | None = None
    slots: Pointer | None = None
    busy: Pointer | None = None

    def __post_init__(self) -> None:
        check(self.path, ())
        if (self.state is None) != (not self.states):
            raise ValueError('state and states belong together: state = "/status", states = {ok = "ready"}')


class Capabilities(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the endpoint says that it has; without it the endpoint has what the configuration says."""

    path: PathTemplate
    models: Pointer | None = None
    """`*` stands for every element, as `/data/*/id`."""
    kinds: Pointer | None = None
    """Names of those kinds that it can serve now."""
    slots: Pointer | None = None
    version: Pointer | None = None
    labels: dict[Name, Pointer] = {}

    def __post_init__(self) -> None:
        check(self.path, ())


class HttpJsonOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `http-json`."""

    kinds: tuple[HttpKind, ...] = ()
    service: Name | None = None
    """What the service is called; `http-json` unless given."""
    reading: Reading = field(default_factory=Reading)
    errors: Errors = field(default_factory=Errors)
    work: Follow | None = None
    health: Health = field(default_factory=Health)
    capabilities: Capabilities | None = None
    models: tuple[str, ...] = ()
    """What it has, where it cannot be asked."""
    timeout: Seconds = 5.0
    """Limit of each call that is not the work itself."""
    answer_limit: Bytes = 16_777_216
    """Largest answer or stream of work."""
    http_cache_size: Bytes = 8_388_608
    """All answers together that are kept to be given again."""

    def __post_init__(self) -> None:
        names = [kind.name for kind in self.kinds]
        if not names:
            raise ValueError('write at least one kind: kinds = [{name = "image.paint", submit = {path = "/paint"}}]')
        if len(set(names)) < len(names):
            raise ValueError(f"kinds: a name is written twice in {', '.join(names)}")
        for kind in self.kinds:
            self._check(kind)

    def _check(self, kind: HttpKind) -> None:
        if kind.id is not None and self.work is None:
            raise ValueError(
                f"{kind.name} has an id, so write how its work is asked about:"
                ' work = {status = {path = "/jobs/{id}"}}'
            )
        if kind.id is not None and self.reading.state is None:
            raise ValueError(
                f"{kind.name} has an id, so write how the status of its work is read:"
                ' reading = {state = "/status", states = {done = "succeeded", failed = "failed"}}'
            )
        if kind.stream is not None and kind.last is None and self.reading_of(kind).state is None:
            raise ValueError(
                f"{kind.name} streams, so write how its end is recognised, or a stream that breaks off would pass for a"
                ' whole one: last = "[DONE]", or reading with state and states'
            )

    def reading_of(self, kind: HttpKind) -> Reading:
        """Return how answers of a kind are read."""
        return kind.reading or self.reading


def templates_of(request: Request | Submit | Events) -> Iterator[Any]:
    """Yield the templates of a request."""
    yield request.path
    yield from request.headers.values()
    if not isinstance(request, Events) and request.body is not UNSET:
        yield request.body

"""Every error that Hostler raises on purpose.

    HostlerError
    ├── InvalidError            the caller sent something that can never work
    │   ├── UnknownKindError    ├── UnknownQueueError     ├── PlannedKindError
    │   ├── PayloadError        ├── TooLargeError         ├── SettingsError
    │   ├── MalformedError      ├── MediaTypeError        ├── MethodError
    │   ├── WrongHostError      └── ForeignOriginError
    ├── NotFoundError
    ├── ConflictError           the state of things forbids it now
    │   ├── StateConflictError  ├── IdempotencyConflictError
    │   ├── LeaseLostError      ├── FolderHeldError
    │   └── AddressInUseError
    ├── CapacityError           come back later
    │   └── QueueFullError
    ├── EngineError             Valkey/Redis cannot be used
    │   ├── EngineUnavailableError   ├── EngineTimeoutError
    │   ├── EngineUnsafeError        ├── EngineVersionError
    │   ├── EngineDeniedError        ├── EngineDataError
    │   └── LibraryMismatchError
    ├── ServiceUnavailableError an AI service does not answer
    ├── GatewayUnavailableError the gateway does not answer
    ├── JobFailedError          the job ended without a result
    ├── MissingExtraError       an optional dependency is absent
    └── InternalError           a defect of Hostler

Each class has a stable `code`, a `retry` class that says what a program should do next, and an
HTTP `status`. Facts are fields; the sentence is built from them. `docs/errors.md` is generated from here.
"""

from typing import ClassVar, Literal

Retry = Literal["never", "later", "elsewhere"]
"""What to do next: `never` repeat it as it is, try `later`, or try `elsewhere`."""


class HostlerError(Exception):
    """Base of all; `facts` are what the sentence was built from."""

    code: ClassVar[str] = "internal"
    retry: ClassVar[Retry] = "never"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts: dict[str, object] = facts


class InternalError(HostlerError):
    """A defect of Hostler itself; the request may be repeated."""

    code, retry, status = "internal", "later", 500


class InvalidError(HostlerError):
    """The request can never work as it is; `facts['field']` names where."""

    code, retry, status = "invalid", "never", 422


class UnknownKindError(InvalidError):
    """No worker, connector or configuration has ever declared this kind."""

    code = "unknown-kind"


class PlannedKindError(InvalidError):
    """The kind is declared as planned: nothing can run it yet."""

    code = "planned-kind"


class UnknownQueueError(InvalidError):
    """The queue is not in the queue registry."""

    code, status = "unknown-queue", 404


class PayloadError(InvalidError):
    """The payload does not fit the type that its kind declares."""

    code = "invalid-payload"


class TooLargeError(InvalidError):
    """A body, payload or result is over its limit; large things go by reference."""

    code, status = "too-large", 413


class SettingsError(InvalidError):
    """One or more settings are wrong; `facts['problems']` lists every one by the name that was typed."""

    code = "invalid-settings"


class MalformedError(InvalidError):
    """The body is not what its media type says (broken JSON, wrong encoding, too deep)."""

    code = "malformed"


class MediaTypeError(InvalidError):
    """The body's media type or content encoding is not one that this route takes."""

    code, status = "unsupported-media-type", 415


class MethodError(InvalidError):
    """The route exists, but not with this method; `facts['allow']` lists those it has."""

    code, status = "method-not-allowed", 405


class WrongHostError(InvalidError):
    """The `Host` header names another machine: a browser was led here by somebody else's page."""

    code, status = "wrong-host", 421


class ForeignOriginError(InvalidError):
    """A page of another origin made a browser send this; only pages of this gateway may change things."""

    code, status = "foreign-origin", 403


class NotFoundError(HostlerError):
    """The thing named is not there (or no longer)."""

    code, retry, status = "not-found", "never", 404


class ConflictError(HostlerError):
    """The state of things forbids it now."""

    code, retry, status = "conflict", "never", 409


class StateConflictError(ConflictError):
    """The life of a job has no such move from its present state."""

    code = "wrong-state"


class IdempotencyConflictError(ConflictError):
    """The idempotency key was seen with another body."""

    code = "idempotency-conflict"


class LeaseLostError(ConflictError):
    """The lease is no longer ours: abort the work, another worker may hold it."""

    code, retry = "lease-lost", "elsewhere"


class FolderHeldError(ConflictError):
    """Another live `hostler up` holds this data folder."""

    code = "folder-held"


class AddressInUseError(ConflictError):
    """Another process listens on this address already."""

    code = "address-in-use"


class CapacityError(HostlerError):
    """No room now; `retry_after` says in how many seconds to ask again."""

    code, retry, status = "capacity", "later", 429

    def __init__(self, message: str, *, retry_after: float, **facts: object) -> None:
        super().__init__(message, retry_after=retry_after, **facts)
        self.retry_after = retry_after


class QueueFullError(CapacityError):
    """A depth or byte limit of a queue or tenant is reached; nothing was stored."""

    code = "queue-full"


class EngineError(HostlerError):
    """Valkey/Redis cannot be used.

    `facts['executed']` is False where it is known that nothing was executed. `facts['server']` names which server of
    several it concerns: what lies on the others goes on.
    """

    code, retry, status = "engine", "later", 503


class EngineUnavailableError(EngineError):
    """The engine cannot be reached; what was asked may or may not have happened."""

    code = "engine-unavailable"


class EngineTimeoutError(EngineError):
    """The engine did not answer in time; what was asked may or may not have happened."""

    code = "engine-timeout"


class EngineUnsafeError(EngineError):
    """The engine's configuration may lose acknowledged jobs; the message names the setting to change."""

    code, retry = "engine-unsafe", "never"


class EngineVersionError(EngineError):
    """The server, or the data folder, is of a version that this Hostler cannot use."""

    code, retry = "engine-version", "never"


class EngineDeniedError(EngineError):
    """The engine does not accept our user or password, or what was asked of that user, or we not its certificate."""

    code, retry = "engine-denied", "never"


class EngineDataError(EngineError):
    """The engine's files, or a backup of them, are damaged; nothing was changed."""

    code, retry = "engine-data", "never"


class LibraryMismatchError(EngineError):
    """The function library in the engine is not the one that this Hostler brings."""

    code, retry = "library-mismatch", "never"


class ServiceUnavailableError(HostlerError):
    """An AI service does not answer, or not as its protocol says."""

    code, retry, status = "service-unavailable", "elsewhere", 503


class GatewayUnavailableError(HostlerError):
    """The gateway does not answer; what was asked may or may not have happened."""

    code, retry, status = "gateway-unavailable", "later", 503


class JobFailedError(HostlerError):
    """The job whose result was asked for ended dead, cancelled or expired; `facts` say how and why."""

    code, retry, status = "job-failed", "never", 409


class MissingExtraError(HostlerError):
    """An optional dependency is absent; the message has the pip line to run."""

    code, retry, status = "missing-extra", "never", 501


def reroutable(error: object) -> bool:
    """Tell whether a submit was refused only for where its operation leads: nothing of it was stored.

    Under another operation it may be led to another shard of its queue; under the same it is refused again.
    """
    return isinstance(error, HostlerError) and error.facts.get("reroute") is True


def all_errors(root: type[HostlerError] = HostlerError) -> list[type[HostlerError]]:
    """Return `root` and all its subclasses, parents first, in order of definition."""
    found = [root]
    for child in root.__subclasses__():
        found.extend(all_errors(child))
    return found

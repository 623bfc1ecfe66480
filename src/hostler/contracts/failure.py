"""Why work failed: the closed set of classes that decides what comes next."""

from enum import StrEnum

from msgspec import Struct, field

from hostler.kernel.units import Json, Seconds


class FailureClass(StrEnum):
    """Decided from status and protocol before text."""

    INVALID_INPUT = "invalid_input"
    """The service said that this input can never work."""
    CAPABILITY_MISMATCH = "capability_mismatch"
    """This worker or endpoint lacks what the job needs (a model, a node); another may have it."""
    OVERLOADED = "overloaded"
    """The service has no room now (429, 503, 409)."""
    TRANSIENT = "transient"
    """A network or server error that may not happen again."""
    AUTH = "auth"
    """The credential was refused."""
    QUOTA = "quota"
    """The account has nothing left."""
    OUT_OF_MEMORY = "out_of_memory"
    """The machine that ran it has too little memory."""
    LOST = "lost"
    """The lease ended, or the service forgot the work."""
    TIMEOUT = "timeout"
    """A stage took longer than it may; `Failure.stage` names it."""
    REFUSED = "refused"
    """The service declined for reasons of content or policy, whatever its HTTP status."""
    POISON = "poison"
    """It took down too many workers."""
    CANCELLED = "cancelled"
    """Somebody asked for it to stop."""
    INTERNAL = "internal"
    """A defect in Hostler, a connector or a handler."""


class Stage(StrEnum):
    """Stages of work, each with a timeout of its own."""

    QUEUE = "queue"
    CONNECT = "connect"
    LOAD = "load"
    FIRST_BYTE = "first_byte"
    IDLE = "idle"
    RUN = "run"
    DEADLINE = "deadline"


class Failure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One failure as a connector, a handler or the broker reports it."""

    class_: FailureClass = field(name="class")
    message: str
    """One sentence for people: the service's own words where it has any, cut to 2,000 characters."""
    stage: Stage | None = None
    """Set when the class is `timeout`."""
    retry_after: Seconds | None = None
    """When the service said to come back."""
    details: dict[str, Json] = {}
    """Facts: HTTP status, error code, endpoint, excerpt. Never a secret."""

    @property
    def label(self) -> str:
        """Return the class as people and metrics write it: `timeout:idle`, `transient`."""
        return f"{self.class_}:{self.stage}" if self.stage else str(self.class_)

    @property
    def unsent(self) -> bool:
        """Tell whether a limit of ours refused it: the service never heard of it, so it says nothing of the service."""
        return bool(self.details.get("unsent"))

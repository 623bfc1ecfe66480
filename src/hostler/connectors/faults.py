"""How a failure travels inside a connector, from where it is seen to where it becomes a value."""

from typing import Final

from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.kernel.units import Json, Seconds

MESSAGE_LIMIT: Final = 2_000
"""Characters of a failure's message."""


class ServiceFaultError(Exception):
    """The service, or the way to it, failed; caught by every verb of a connector, never seen outside."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def failure(class_: FailureClass, message: str, *, retry_after: Seconds | None = None, **details: Json) -> Failure:
    """Build a failure; the message is cut to its limit, details that are None are left out."""
    facts = {name: value for name, value in details.items() if value is not None}
    return Failure(class_=class_, message=message[:MESSAGE_LIMIT], retry_after=retry_after, details=facts)


def fault(
    class_: FailureClass, message: str, *, retry_after: Seconds | None = None, **details: Json
) -> ServiceFaultError:
    """Build the exception of a failure."""
    return ServiceFaultError(failure(class_, message, retry_after=retry_after, **details))


def timed_out(stage: Stage, seconds: Seconds | None) -> ServiceFaultError:
    """Build the exception of a stage that took longer than it may."""
    limit = "its limit" if seconds is None else f"{seconds:g} s"
    return ServiceFaultError(
        Failure(class_=FailureClass.TIMEOUT, stage=stage, message=f"stage {stage} took longer than {limit}")
    )


def off_protocol(message: str, **details: Json) -> ServiceFaultError:
    """Build the exception of an answer that is not what the protocol says; another try may meet a better one."""
    return fault(FailureClass.TRANSIENT, message, protocol=True, **details)

"""What every transport promises: a conversation is an opening, then messages until somebody leaves."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from types import TracebackType
from typing import Final, Protocol, Self

from msgspec import Struct

from hostler.connectors.faults import off_protocol
from hostler.connectors.stages import Bounded
from hostler.contracts.failure import Stage
from hostler.kernel.units import Bytes, Seconds


class Limits(Struct, frozen=True, kw_only=True):
    """How long and how large a conversation may be."""

    opening: Seconds | None = 5.0
    """Until the peer has accepted the conversation; also until it has taken a later message."""
    silence: Seconds | None = None
    """Between two messages; for ever unless set, for those who watch over silence themselves."""
    message: Bytes = 16_777_216
    """One message."""
    total: Bytes | None = 268_435_456
    """All messages, so that a conversation that never ends does end; None for one that many share."""


LIMITS: Final = Limits()


class Conversation(Protocol):
    """What one peer says after one opening.

    A message is bytes without a line break, since some protocols divide by it: one JSON document. What a
    peer writes of our credential arrives as `***`.
    """

    def messages(self) -> AsyncGenerator[bytes]:
        """Yield messages, whole and in order, until the peer ends the conversation; to be called once.

        Raises `ServiceFaultError`: `transient` when the peer is gone without an end, `timeout` for silence, off
        protocol (`transient`) for what is over a limit, and what the protocol says of an end that is a refusal.
        """
        ...


class Dialogue(Conversation, Protocol):
    """A conversation in which more may be said after the opening."""

    async def send(self, message: bytes) -> None:
        """Say something; it arrives after what was said before. Raises `ServiceFaultError`, `timeout` in time."""
        ...


class Transport(Protocol):
    """Carries conversations to one endpoint; knows no service and raises nothing but `ServiceFaultError`.

    Opened and closed with `async with`; closing twice is safe, ends every conversation that goes on, and leaves
    no socket, task or process. Its credential is never part of a failure.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def conversation(
        self, target: str, opening: bytes = b"", *, limits: Limits = LIMITS
    ) -> AbstractAsyncContextManager[Conversation]:
        """Begin a conversation with what `target` names at the endpoint; leaving the context leaves the peer.

        Several may go on at once. A peer that is not there is `transient`, one that does not accept in time
        `timeout`; a refusal has the class that the protocol gives it, here or at the first message.
        """
        ...


async def held_to(limits: Limits, messages: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Yield messages while they are within the limits of silence and size."""
    total = 0
    async with aclosing(messages):
        while True:
            async with Bounded(limits.silence, Stage.IDLE):
                message = await anext(messages, None)
            if message is None:
                return
            total += len(message)
            if len(message) > limits.message:
                raise off_protocol(f"the service sent a message over {limits.message} bytes")
            if limits.total is not None and total > limits.total:
                raise off_protocol(f"the service sent more than {limits.total} bytes in one conversation")
            yield message

"""The peer that a transport is tested on: it plays what the opening of a conversation asks for."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import Struct

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.transports.conversation import LIMITS, Limits, Transport
from hostler.contracts.failure import Failure, FailureClass
from hostler.kernel.units import Seconds

CREDENTIAL: Final = "sk-very-secret-0123456789"
"""What the transport of a harness is given, and must show to the peer."""
SHOWN: Final = "$CREDENTIAL"
"""Stands for the credential that the peer was shown, in what it says."""


class Play(Struct, frozen=True, kw_only=True):
    """The opening of a conversation with a peer of tests, as JSON on one line: what the peer is to do."""

    says: tuple[str, ...] = ()
    """Messages, in order; each has its `SHOWN` replaced."""
    times: int = 1
    """How often it says them all."""
    then: Literal["close", "die", "hang", "echo", "refuse"] = "close"
    """`close` ends the conversation as its protocol does; `die` is gone without that; `hang` stays and says
    nothing; `echo` says what it hears until the other side leaves; `refuse`, with nothing said before, turns
    the conversation down for its credential, repeating it in the reason."""

    def opening(self) -> bytes:
        """Return it as it is sent."""
        return msgspec.json.encode(self)

    @classmethod
    def of(cls, opening: bytes) -> "Play":
        """Read an opening, on the side of the peer."""
        return msgspec.json.decode(opening, type=cls)

    async def perform(self, say: Callable[[bytes], Awaitable[None]], *, credential: str = "") -> None:
        """Say everything, on the side of the peer; what comes `then` is for it to do."""
        for _ in range(self.times):
            for text in self.says:
                await say(text.replace(SHOWN, credential).encode())


@dataclass(frozen=True, kw_only=True)
class TransportHarness:
    """A peer, and transports to it."""

    build: Callable[[], Transport]
    """A new transport to the peer, not opened, that has `CREDENTIAL`."""
    nowhere: Callable[[], Transport]
    """One to an endpoint that is not there."""
    target: str
    """What of the endpoint plays."""
    present: Callable[[], int]
    """Conversations that the peer is in now."""
    absence: frozenset[FailureClass] = frozenset({FailureClass.TRANSIENT})
    """What an endpoint that is not there is called."""
    echoes: bool = False
    """Whether more may be said after the opening (`Dialogue`)."""
    silence: Seconds = 0.3
    """Longer than the peer needs to its first message, whatever else the machine does."""
    shows_credential: bool = True
    """Whether the peer is shown the credential."""


async def heard(
    harness: TransportHarness, transport: Transport, play: Play, limits: Limits = LIMITS
) -> AsyncGenerator[bytes]:
    """Yield the messages of one play."""
    async with transport.conversation(harness.target, play.opening(), limits=limits) as conversation:
        async for message in conversation.messages():
            yield message


async def outcome(
    harness: TransportHarness, play: Play, limits: Limits = LIMITS, *, transport: Transport | None = None
) -> tuple[list[bytes], Failure | None]:
    """Return what a play says, and the failure that it ends with if it does."""
    messages: list[bytes] = []
    if transport is None:
        async with harness.build() as own:
            return await outcome(harness, play, limits, transport=own)
    try:
        async for message in heard(harness, transport, play, limits):
            messages.append(message)  # noqa: PERF401 - what came before a failure counts
    except ServiceFaultError as error:
        return messages, error.failure
    return messages, None

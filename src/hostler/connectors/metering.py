"""How a connector says what its calls take of amounts that are limited."""

from collections.abc import Iterable
from typing import Final, Protocol, runtime_checkable

import msgspec
from msgspec import Raw, Struct

from hostler.connectors.chat import EMBED, Usage
from hostler.contracts.service import ServiceCall
from hostler.contracts.usage import Tokens

BYTES_PER_TOKEN: Final = 4
"""Of a payload, as its input is estimated: about right for English, too little for most other languages."""
OUTPUT: Final = 1024
"""Tokens of an answer that sets no limit of its own, as they are estimated."""


class Meter(Protocol):
    """Reads what only the connector may open; neither method raises."""

    kinds: frozenset[str]
    """Kinds whose tokens it can count."""

    def model(self, call: ServiceCall) -> str | None:
        """Return the model that a call names or falls to; None when it names none."""
        ...

    def expected(self, call: ServiceCall) -> Tokens:
        """Return what a call will take, as far as one can tell before it."""
        ...

    def used(self, call: ServiceCall, result: Raw) -> Tokens | None:
        """Return what it took, as the service counted it; None when the service does not say."""
        ...


@runtime_checkable
class Metered(Protocol):
    """A connector with a meter: its endpoints may have limits of tokens, and prices by token."""

    meter: Meter


class _Asked(Struct, frozen=True):
    """What payloads say of the size of the answer, each in its own word."""

    model: str | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None


class _Counted(Struct, frozen=True):
    usage: Usage | None = None


class TokenMeter:
    """The meter of services that take and give text: payload and result as `connectors.chat` has them.

    `free` are kinds that take no tokens; `model` stands where a payload names none.
    """

    def __init__(self, kinds: Iterable[str], *, free: Iterable[str] = (), model: str | None = None) -> None:
        self._free = frozenset(free)
        self.kinds = frozenset(kinds) | self._free
        self._model = model

    def model(self, call: ServiceCall) -> str | None:
        """Return the payload's model, else the connector's."""
        return _asked(call.payload).model or self._model

    def expected(self, call: ServiceCall) -> Tokens:
        """Return a token for every four bytes of the payload, and as many as the answer may have."""
        if call.kind in self._free:
            return Tokens()
        asked = _asked(call.payload)
        limits = (asked.max_tokens, asked.max_completion_tokens, asked.max_output_tokens)
        most = next((limit for limit in limits if limit is not None), OUTPUT)
        output = 0 if call.kind == EMBED else most * (asked.n or 1)
        return Tokens(input=-(-len(bytes(call.payload)) // BYTES_PER_TOKEN), output=max(0, output))

    def used(self, call: ServiceCall, result: Raw) -> Tokens | None:
        """Return what the result's `usage` says."""
        if call.kind in self._free:
            return Tokens()
        try:
            usage = msgspec.json.decode(result, type=_Counted).usage
        except msgspec.MsgspecError:
            return None
        if usage is None:
            return None
        output = usage.completion_tokens or max(0, usage.total_tokens - usage.prompt_tokens)
        return Tokens(input=usage.prompt_tokens, output=output)


def _asked(payload: Raw) -> _Asked:
    """Return what a payload says; nothing of one that its connector will refuse."""
    try:
        return msgspec.json.decode(payload, type=_Asked)
    except msgspec.MsgspecError:
        return _Asked()

"""What calls of one connector take of its limits: expected before a call, known after it."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from hostler.connectors.metering import Meter, Metered
from hostler.contracts.failure import FailureClass
from hostler.contracts.limit import Limit, LimitKind, Want
from hostler.contracts.service import Failed, Finished, ServiceCall
from hostler.contracts.usage import Tokens
from hostler.kernel.errors import InvalidError
from hostler.kernel.settings import PriceSettings
from hostler.policy.limits import CENT, FINE_CENTS, MOST_LIMITS
from hostler.policy.terms import NARROW, NO_MODEL, Scope, Term, term
from hostler.ports.connector import Connector

_MILLION: Final = 1_000_000
_MOST_TOKENS: Final = 1_000_000_000_000
"""No call takes more; a count beyond that is no number to reckon with."""
_MOST_TERMS: Final = MOST_LIMITS - 1
"""Limits of one entry: a call also asks whether its endpoint is held."""
_REFUSED: Final = frozenset(
    {
        FailureClass.OVERLOADED,
        FailureClass.AUTH,
        FailureClass.QUOTA,
        FailureClass.INVALID_INPUT,
        FailureClass.CAPABILITY_MISMATCH,
    }
)
"""A service that says this did no work, and counts none."""


class Account:
    """The limits of one connector's entry.

    `InvalidError` for a text that is no limit, and for one that this connector cannot account for: tokens of which
    it has no count for one of its kinds, cents without a price; also for the same limit twice, and for more than 15.
    """

    def __init__(self, connector: Connector, limits: Sequence[str], price: PriceSettings | None = None) -> None:
        self._connector = connector
        self._terms = tuple(term(text) for text in limits)
        self._price = price or PriceSettings()
        self._meter: Meter | None = connector.meter if isinstance(connector, Metered) else None
        if twice := sorted({text for text in limits if limits.count(text) > 1}):
            raise InvalidError(f"{', '.join(map(repr, twice))}: the same limit is written twice", field="limits")
        if len(limits) > _MOST_TERMS:
            raise InvalidError(f"{len(limits)} limits are more than an entry may have: {_MOST_TERMS}", field="limits")
        for one in self._terms:
            self._judge(one, priced=price is not None)

    def wants(self, call: ServiceCall) -> tuple[tuple[Want, bool], ...]:
        """Return what a call is expected to take of each limit, and whether others may have room where it has none.

        What is more than may go at once is asked for as just that; the rest is charged when it is known.
        """
        if not self._terms:
            return ()
        expected = Tokens()
        if self._meter is not None and any(one.limit.kind is LimitKind.AMOUNT for one in self._terms):
            expected = self._meter.expected(call)
        parts = self._parts(call)
        found: list[tuple[Want, bool]] = []
        for one in self._terms:
            limit = one.named(parts)
            units = min(self._units(limit, expected), limit.burst) if limit.kind is LimitKind.AMOUNT else 1
            found.append((Want(limit=limit, units=units), one.scope in NARROW))
        return tuple(found)

    def used(self, call: ServiceCall, wants: Sequence[Want], ended: Finished | Failed) -> Mapping[str, int]:
        """Return what a call took, by a limit's name; a limit that is not named was used as expected.

        No call is charged more than all of a limit, whatever its service counts: what is wrong about one answer must
        not keep everybody out for longer than that.
        """
        amounts = [want.limit for want in wants if want.limit.kind is LimitKind.AMOUNT]
        if not amounts:
            return {}
        if isinstance(ended, Failed):
            return {limit.name: 0 for limit in amounts} if ended.failure.class_ in _REFUSED else {}
        tokens = None if self._meter is None else self._meter.used(call, ended.result)
        if tokens is None and self._counts_tokens:
            return {}
        return {limit.name: min(self._units(limit, tokens or Tokens()), limit.most) for limit in amounts}

    @property
    def _counts_tokens(self) -> bool:
        by_token = bool(self._price.input or self._price.output)
        return any(
            one.limit.kind is LimitKind.AMOUNT and (by_token or one.limit.unit != FINE_CENTS) for one in self._terms
        )

    def _parts(self, call: ServiceCall) -> Mapping[Scope, str]:
        model = None
        if any(one.scope is Scope.MODEL for one in self._terms):
            model = None if self._meter is None else self._meter.model(call)
        return {
            Scope.ENDPOINT: self._connector.endpoint,
            Scope.SERVICE: self._connector.service,
            Scope.MODEL: model or "+".join(sorted(call.models)) or NO_MODEL,
            Scope.TENANT: call.tenant,
        }

    def _units(self, limit: Limit, tokens: Tokens) -> int:
        if limit.unit != FINE_CENTS:
            return tokens.total
        price = self._price
        taken, given = min(tokens.input, _MOST_TOKENS), min(tokens.output, _MOST_TOKENS)
        cents = price.call + (price.input * taken + price.output * given) / _MILLION
        return math.ceil(round(cents * CENT, 6))

    def _judge(self, one: Term, *, priced: bool) -> None:
        if one.limit.kind is not LimitKind.AMOUNT:
            return
        cents = one.limit.unit == FINE_CENTS
        if cents and not priced:
            raise InvalidError(f"{one.text!r}: cents are counted by a price: set price beside it", field="limits")
        if cents and not (self._price.input or self._price.output):
            return
        counted = frozenset[str]() if self._meter is None else self._meter.kinds
        lacking = sorted({spec.name for spec in self._connector.kinds()} - counted)
        if lacking:
            words = f"{one.text!r}: {self._connector.name} has no count of tokens for {', '.join(lacking)}"
            raise InvalidError(words, field="limits")

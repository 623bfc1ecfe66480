"""Limits of a connector's entry: a limit, and what each has one of its own of: `60/min per tenant`."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from hostler.contracts.limit import Limit, LimitKind
from hostler.kernel.errors import InvalidError
from hostler.policy.limits import CENT, CENTS, FINE_CENTS, parse, safe

TOKENS: Final = "tokens"
NO_MODEL: Final = "-"
"""Stands for the model of calls that name none."""
_UNNAMED: Final = "entry"


class Scope(StrEnum):
    """What has a limit of its own."""

    ENDPOINT = "endpoint"
    SERVICE = "service"
    """All endpoints of the service together."""
    MODEL = "model"
    """Each model of the service, whichever endpoint serves it."""
    TENANT = "tenant"
    """Each tenant at the service, whichever endpoint serves it."""


NARROW: Final = frozenset({Scope.MODEL, Scope.TENANT})
"""Scopes of which one may be used up while the endpoint has room for others."""


class Term(Struct, frozen=True, kw_only=True):
    """One limit of an entry."""

    text: str
    limit: Limit
    """Without a name of its own; cents are counted in thousandths."""
    scope: Scope = Scope.ENDPOINT

    def named(self, parts: Mapping[Scope, str]) -> Limit:
        """Return the limit that a call falls under: who writes the same for the same shares it."""
        head = parts[Scope.ENDPOINT] if self.scope is Scope.ENDPOINT else parts[Scope.SERVICE]
        part = f"|{self.scope}={parts[self.scope]}" if self.scope in NARROW else ""
        return msgspec.structs.replace(self.limit, name=safe(f"{head}{part}|{self.text}"))


def term(text: str) -> Term:
    """Return what one limit of an entry means; `InvalidError` says what is wrong with it."""
    form, per, word = text.partition(" per ")
    try:
        scope = Scope(word) if per else Scope.ENDPOINT
    except ValueError:
        words = f"{text!r}: a limit is per {', '.join(Scope)}, not per {word}; a rate is written like 3/s"
        raise InvalidError(words, field="limits") from None
    limit = parse(form, name=_UNNAMED)
    if limit.kind is LimitKind.AMOUNT and limit.unit not in {CENTS, TOKENS}:
        words = f"{text!r}: nothing counts {limit.unit}; amounts are {TOKENS} or {CENTS}"
        raise InvalidError(words, field="limits")
    if limit.unit == CENTS:
        limit = msgspec.structs.replace(limit, unit=FINE_CENTS, most=limit.most * CENT, burst=limit.burst * CENT)
    return Term(text=text, limit=limit, scope=scope)

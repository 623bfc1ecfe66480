"""The limits of all processes, on the engine."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, cast

from hostler.contracts.limit import Grant, Limit, LimitKind, LimitLook, LimitView, Line, Wait, Want
from hostler.kernel.errors import InvalidError
from hostler.kernel.units import Seconds
from hostler.policy.limits import MOST_LIMITS, allowance, charge, named, view, written
from hostler.valkeyio.instants import instant
from hostler.valkeyio.library import HasClient, Library

LEASE_LEAST: Final[Seconds] = 0.1
LEASE_MOST: Final[Seconds] = 86_400.0
HOLD_MOST: Final[Seconds] = 86_400.0
_MICRO: Final = 1_000_000


class EngineLimiter:
    """Implements `ports.limiter.Limiter`: each method is one call of the engine."""

    def __init__(self, engine: HasClient, *, library: Library | None = None) -> None:
        self._library = library or Library(engine)

    async def take(
        self,
        call: str,
        wants: Sequence[Want],
        *,
        fence: int = 0,
        lease: Seconds = 60.0,
        narrow: Collection[str] = (),
        held: str | None = None,
        patience: Seconds = 0.0,
    ) -> Grant | Wait:
        """Take of all limits or of none."""
        _judge(wants)
        words = [
            word
            for want in wants
            for word in (
                want.limit.name,
                want.limit.kind.value,
                str(charge(want.limit, want.units)),
                str(allowance(want.limit)),
                "" if _is_gate(want) else written(want.limit),
                "" if want.limit.name not in narrow else "held" if want.limit.name == held else "last",
            )
        ]
        waits = round(max(0.0, patience) * _MICRO)
        reply = await self._library.call_registry(
            "limit_take", call=call, fence=fence, lease=_micros(lease), patience=waits, wants=words
        )
        at, after, name, line = cast("tuple[bytes, bytes, bytes, bytes]", reply)
        if name:
            return Wait(limit=name.decode(), after=int(after) / _MICRO, line=Line(line.decode()))
        return Grant(at=instant(int(at)))

    async def settle(
        self, call: str, wants: Sequence[Want], *, fence: int = 0, used: Mapping[str, int] | None = None
    ) -> bool:
        """Give back and charge what is left over and lacking."""
        true = used or {}
        words = [
            word
            for want in _leased(wants)
            for word in (
                want.limit.name,
                str(charge(want.limit, max(0, true[want.limit.name]))) if want.limit.name in true else "",
            )
        ]
        if not words:
            return False
        return bool(await self._library.call_registry("limit_settle", call=call, fence=fence, used=words))

    async def renew(self, call: str, wants: Sequence[Want], *, fence: int = 0, lease: Seconds = 60.0) -> bool:
        """Prolong all leases of a call."""
        names = [want.limit.name for want in _leased(wants)]
        if not names:
            return True
        wanted = _micros(lease)
        found = await self._library.call_registry("limit_renew", call=call, fence=fence, lease=wanted, names=names)
        return cast("int", found) == len(names)

    async def hold(self, name: str, seconds: Seconds) -> None:
        """Let everybody wait."""
        named(name)
        wait = round(min(max(seconds, 0.0), HOLD_MOST) * _MICRO)
        if wait:
            await self._library.call_registry("limit_hold", name=name, wait=wait)

    async def lift(self, name: str, *, reason: str = "") -> bool:
        """Let everybody go again."""
        left = cast("bytes", await self._library.call_registry("limit_lift", name=named(name), reason=reason))
        return int(left) > 0

    async def list(self, *, most: int = 10_000) -> tuple[LimitView, ...]:
        """Read all rows, some hundred in each step."""
        cursor, found = b"0", dict[str, LimitView]()
        while len(found) < most:
            cursor, words = cast(
                "tuple[bytes, list[Any]]", tuple(await self._library.call_registry("limit_list", cursor=cursor))
            )
            for at in range(0, len(words), 5):
                name = words[at].decode()
                found[name] = view(_look(name, *words[at + 2 : at + 5]), words[at + 1].decode())
            if cursor == b"0":
                break
        return tuple(found[name] for name in sorted(found)[:most])

    async def look(self, limits: Sequence[Limit]) -> tuple[LimitLook, ...]:
        """Read the rows."""
        reply = await self._library.call_registry("limit_look", names=[limit.name for limit in limits])
        rows = cast("list[list[bytes]]", reply)
        return tuple(
            _look(limit.name, used, held, leases) for limit, (used, held, leases) in zip(limits, rows, strict=True)
        )


def _look(name: str, used: bytes, held: bytes, leases: bytes) -> LimitLook:
    return LimitLook(name=name, used_s=int(used) / _MICRO, held_s=int(held) / _MICRO, leases=int(leases))


def _is_gate(want: Want) -> bool:
    """Tell whether a want takes nothing: it only waits while the limit is held."""
    return want.limit.kind is LimitKind.RATE and not want.units


def _leased(wants: Sequence[Want]) -> list[Want]:
    return [want for want in wants if want.limit.kind is not LimitKind.RATE]


def _judge(wants: Sequence[Want]) -> None:
    names = [want.limit.name for want in wants]
    if not 1 <= len(names) <= MOST_LIMITS or len(set(names)) != len(names):
        raise InvalidError(f"a call has 1 to {MOST_LIMITS} limits, each once, not {names}", field="limits")
    for want in wants:
        limit = want.limit
        if limit.kind is not LimitKind.IN_FLIGHT and want.units > limit.burst:
            words = f"{want.units} {limit.unit or 'calls'} can never go at once by {limit.name}: {limit.burst} can"
            raise InvalidError(words, field="units")


def _micros(lease: Seconds) -> int:
    if not LEASE_LEAST <= lease <= LEASE_MOST:
        raise InvalidError(f"a lease lasts {LEASE_LEAST:g} to {LEASE_MOST:g} seconds, not {lease:g}", field="lease")
    return round(lease * _MICRO)

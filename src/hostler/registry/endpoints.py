"""The registry of endpoints on the engine."""

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from hostler.contracts.service import Census, EndpointMark, Enrolled, Enrolment, Shared, Waiting
from hostler.kernel.errors import InvalidError
from hostler.kernel.stored import Reader
from hostler.kernel.units import Seconds
from hostler.valkeyio.instants import instant
from hostler.valkeyio.library import HasClient, Library

MARKS: Final = frozenset({"pause", "resume", "reset"})
"""What an operator can say of an endpoint."""
TTL_LEAST: Final[Seconds] = 1.0
TTL_MOST: Final[Seconds] = 3600.0
_MICRO: Final = 1_000_000

_read = Reader(Enrolment)


class _Row(Struct, frozen=True, array_like=True):
    """One value of `endpoints`."""

    since: int
    seen: int
    said: str


class _Mark(Struct, frozen=True, array_like=True):
    """One value of `epmarks`."""

    paused: str | bool
    resets: int


_row = msgspec.msgpack.Decoder(_Row).decode
_mark = msgspec.msgpack.Decoder(_Mark).decode
_waiting = msgspec.json.Decoder(dict[str, Waiting]).decode
_models = msgspec.json.Decoder(tuple[str, ...]).decode


class EngineEndpoints:
    """Implements `ports.registry.EndpointRegistry`: all of it is in the engine, so any process sees the same."""

    def __init__(self, engine: HasClient, *, library: Library | None = None) -> None:
        self._library = library or Library(engine)

    async def enroll(self, enrolment: Enrolment, *, ttl: Seconds = 10.0) -> bool:
        """Store or renew one endpoint; `InvalidError` for a lease that is too short or too long to mean anything."""
        if not TTL_LEAST <= ttl <= TTL_MOST:
            raise InvalidError(f"a lease lasts {TTL_LEAST:g} to {TTL_MOST:g} seconds, not {ttl:g}", field="ttl")
        news = await self._library.call_registry(
            "enroll", endpoint=enrolment.id, ttl=round(ttl * _MICRO), said=msgspec.json.encode(enrolment)
        )
        return bool(news)

    async def leave(self, endpoint: str, *, reason: str = "") -> bool:
        """Forget an endpoint at once."""
        return bool(await self._library.call_registry("leave", endpoint=endpoint, reason=reason))

    async def census(self, *, version: str = "") -> Census:
        """Return what is known now, or the version alone when that has not changed."""
        reply = cast("list[Any]", await self._library.call_registry("census", version=version))
        current = cast("bytes", reply[1]).decode()
        if len(reply) == len((reply[0], current)):
            return Census(version=current)
        rows, marks = cast("tuple[list[bytes], list[bytes]]", (reply[2], reply[3]))
        found = (_enrolled(_row(rows[at + 1]), rows[at + 2]) for at in range(0, len(rows), 3))
        enrolled = [one for one in found if one is not None]
        return Census(
            version=current,
            enrolled=tuple(sorted(enrolled, key=lambda one: one.enrolment.id)),
            marks={marks[at].decode(): _as_mark(marks[at + 1]) for at in range(0, len(marks), 2)},
        )

    async def mark(self, endpoint: str, verb: str, *, reason: str = "") -> bool:
        """Pause or resume an endpoint, or reset its breakers."""
        if verb not in MARKS:
            raise InvalidError(f"{verb!r} cannot be said of an endpoint: pause, resume or reset", field="verb")
        return bool(await self._library.call_registry("mark", endpoint=endpoint, order=verb, reason=reason))

    async def observed(self, worker: str, endpoint: str, *, was: str, state: str, reason: str = "") -> None:
        """Record as an event that a worker saw the state of an endpoint change."""
        await self._library.call_registry(
            "observe", worker=worker, endpoint=endpoint, was=was, state=state, reason=reason
        )

    async def share(
        self,
        endpoint: str,
        worker: str,
        *,
        coming: str | None,
        loads: tuple[str, ...],
        busy: bool,
        waiting: Mapping[str, Waiting],
        ttl: Seconds = 5.0,
    ) -> Shared:
        """Tell what a worker does at an endpoint that holds one model, and return what all of them told."""
        reply = await self._library.call_registry(
            "share",
            endpoint=endpoint,
            worker=worker,
            coming=coming or "",
            loads=msgspec.json.encode(loads) if loads else b"",
            busy=int(busy),
            waiting=msgspec.json.encode(waiting),
            ttl=round(ttl * _MICRO),
        )
        keeper, next_, count, models, by, age, idle, others = cast("list[Any]", reply)
        return Shared(
            keeper=keeper.decode(),
            coming=next_.decode() or None,
            loads=int(count),
            models=_models(models) if models else (),
            by=by.decode(),
            age=int(age) / _MICRO,
            idle=None if int(idle) < 0 else int(idle) / _MICRO,
            waiting=tuple(_waiting(one) for one in others),
        )


def _enrolled(row: _Row, ends: bytes) -> Enrolled | None:
    enrolment = _read.known(row.said)
    return enrolment and Enrolled(
        enrolment=enrolment,
        since=instant(row.since),
        seen_at=instant(row.seen),
        expires_at=instant(int(float(ends))),
    )


def _as_mark(packed: bytes) -> EndpointMark:
    mark = _mark(packed)
    return EndpointMark(paused=mark.paused if isinstance(mark.paused, str) else None, resets=mark.resets)

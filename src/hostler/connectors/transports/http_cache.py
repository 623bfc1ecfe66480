"""Answers of one endpoint that may be given again: kept in memory, bounded in bytes, asked for once at a time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Struct

from hostler.connectors.faults import off_protocol
from hostler.connectors.transports.http import Answer, HttpStream
from hostler.connectors.transports.http_reuse import Headers, Reuse, renewed, reuse_of
from hostler.kernel.units import Bytes, Seconds

ENTRY: Final[Bytes] = 1_024
"""What an answer that is kept takes beside its body, headers and path."""
ALONE: Final = 1_024
"""Requests that are remembered because their answers are for one asker each."""
DIRECT: Final = frozenset(
    {"cache-control", "pragma", "range", "if-range"}
    | {"if-match", "if-none-match", "if-modified-since", "if-unmodified-since"}
)
"""A request with one of these has its own way with caches: it goes to the service."""

Send = Callable[[Mapping[str, str]], AbstractAsyncContextManager[HttpStream]]
"""Sends the request with these headers beside its own."""


class Asked(Struct, frozen=True, kw_only=True):
    """A GET. Two that differ in `own` headers alone are the same unless the answer says that it varies by them."""

    path: str
    headers: dict[str, str]
    body: bytes | None = None
    own: frozenset[str] = frozenset()
    """Names of headers that belong to the one who asks, as the id of a job; all others are part of what is asked."""

    def key(self) -> bytes:
        """Return what same requests have in common; nothing of a header can be read out of it."""
        shared = sorted((name.lower(), value) for name, value in self.headers.items() if name not in self.own)
        return sha256(msgspec.json.encode((self.path, shared, self.body))).digest()

    def said(self, names: frozenset[str]) -> dict[str, str]:
        """Return its own headers of these names."""
        return {name.lower(): self.headers[name] for name in self.own if name.lower() in names}


class Kept(Struct, frozen=True, kw_only=True):
    """An answer, what it said of itself, and the request's own headers that it varies by."""

    path: str
    answer: Answer
    reuse: Reuse
    at: float
    said: dict[str, str]

    def fits(self, asked: Asked) -> bool:
        """Tell whether the answer is one to this request, of the same key."""
        return asked.said(self.reuse.vary) == self.said

    @property
    def size(self) -> Bytes:
        """Return what it takes."""
        headers = sum(len(name) + len(value) for name, value in self.answer.headers.items())
        return ENTRY + len(self.path) + len(self.answer.body) + headers


class _Flight:
    """A request under way; `kept` is what it brought, when that is good for others too."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.landed = asyncio.Event()
        self.kept: Kept | None = None
        self.given_up = False
        """Its asker went before there was an answer."""
        self.outdated = False
        """The service was told to change what it asks for."""


class HttpCache:
    """A private cache as RFC 9111 has it, for the credential and the endpoint of one transport.

    Only whole answers 200 to a GET are kept, what was used last the longest. Nothing stale is ever given: it is asked
    about, and what becomes of that is the answer. Of same requests at once one is sent, and the others take what it
    brings where they may; else each goes itself. A kept answer is one object: who takes it does not change it.
    """

    def __init__(
        self,
        limit: Bytes,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Keep `limit` bytes at most."""
        self._limit = limit
        self._monotonic = monotonic
        self._wall = wall
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._paths: dict[str, set[bytes]] = {}
        self._flights: dict[bytes, _Flight] = {}
        self._open: set[_Flight] = set()
        self._alone: OrderedDict[bytes, None] = OrderedDict()
        self.size: Bytes = 0
        """What is kept now."""

    async def get(self, asked: Asked, send: Send, *, assumed: Seconds, patience: Seconds | None) -> Answer:
        """Return an answer: one that is kept, or that another asker gets within `patience`, or one of its own.

        `assumed` is how long an answer is good that does not say it. Raises what `send` does.
        """
        if any(name.lower() in DIRECT for name in asked.headers):
            async with send({}) as stream:
                return await stream.answer()
        key = asked.key()
        while True:
            if (answer := self._found(key, asked)) is not None:
                return answer
            flight = self._flights.get(key)
            if flight is None:
                return await self._ask(key, asked, send, assumed)
            await _landing(flight, patience)
            if flight.kept is not None and flight.kept.fits(asked):
                return flight.kept.answer
            if not flight.given_up:
                return await self._ask(key, asked, send, assumed)

    def fresh(self, asked: Asked) -> Answer | None:
        """Return an answer that is kept and may be given again now."""
        if any(name.lower() in DIRECT for name in asked.headers):
            return None
        return self._found(asked.key(), asked)

    def changed(self, path: str) -> None:
        """Forget what is known of a path, which the service was told to change; what is on its way is not kept."""
        for key in tuple(self._paths.get(path, ())):
            self._drop(key)
        for flight in self._open:
            flight.outdated = flight.outdated or flight.path == path
        self._flights = {key: flight for key, flight in self._flights.items() if not flight.outdated}

    def forget(self, asked: Asked, answer: Answer) -> None:
        """Forget an answer that turned out to be of no use."""
        key = asked.key()
        kept = self._kept.get(key)
        if kept is not None and kept.answer is answer:
            self._drop(key)

    def _found(self, key: bytes, asked: Asked) -> Answer | None:
        kept = self._kept.get(key)
        if kept is None or not kept.fits(asked) or not self._fresh(kept):
            return None
        self._kept.move_to_end(key)
        return kept.answer

    def _fresh(self, kept: Kept) -> bool:
        return kept.reuse.age + self._monotonic() - kept.at < kept.reuse.lifetime

    async def _ask(self, key: bytes, asked: Asked, send: Send, assumed: Seconds) -> Answer:
        flight = _Flight(asked.path)
        self._open.add(flight)
        if key not in self._alone:
            self._flights.setdefault(key, flight)
        try:
            return await self._sent(key, asked, send, assumed, flight)
        except asyncio.CancelledError:
            flight.given_up = not flight.landed.is_set()
            raise
        finally:
            self._land(key, flight)
            self._open.discard(flight)

    async def _sent(self, key: bytes, asked: Asked, send: Send, assumed: Seconds, flight: _Flight) -> Answer:
        known, since = self._kept.get(key), self._monotonic()
        if known is not None and not known.fits(asked):
            known = None
        async with send({} if known is None else known.reuse.conditions) as stream:
            renews = known is not None and stream.status == HTTPStatus.NOT_MODIFIED
            if not renews and stream.status != HTTPStatus.OK:
                self._land(key, flight)
                return await stream.answer()
            headers = stream.headers if known is None or not renews else self._renewed(key, known, stream.headers)
            at = self._monotonic()
            reuse = reuse_of(headers, assumed=assumed, now=self._wall(), delay=at - since)
            self._note(key, flight, shared=reuse is not None and reuse.fresh)
            answer = await stream.answer()
        if known is not None and renews:
            answer = Answer(known.answer.status, headers, known.answer.body)
        if flight.outdated:
            return answer
        self._drop(key)
        if reuse is not None:
            kept = Kept(path=asked.path, answer=answer, reuse=reuse, at=at, said=asked.said(reuse.vary))
            flight.kept = kept if self._fresh(kept) else None
            self._keep(key, kept)
        return answer

    def _renewed(self, key: bytes, known: Kept, told: Headers) -> Headers:
        """Return the headers of what a 304 says is still good; a 304 about anything else is a fault."""
        tag = told.get("ETag")
        if tag is not None and tag.removeprefix("W/") != known.answer.headers.get("ETag", "").removeprefix("W/"):
            self._drop(key)
            raise off_protocol("the service says 304 of an answer that nobody asked about", status=304)
        return renewed(known.answer.headers, told)

    def _note(self, key: bytes, flight: _Flight, *, shared: bool) -> None:
        """Let nobody wait for an answer that is for its asker alone, now or the next time."""
        if shared:
            self._alone.pop(key, None)
            return
        self._land(key, flight)
        self._alone[key] = None
        while len(self._alone) > ALONE:
            self._alone.popitem(last=False)

    def _land(self, key: bytes, flight: _Flight) -> None:
        flight.landed.set()
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _keep(self, key: bytes, kept: Kept) -> None:
        if kept.size > self._limit:
            return
        self._kept[key] = kept
        self._paths.setdefault(kept.path, set()).add(key)
        self.size += kept.size
        while self.size > self._limit:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        self.size -= kept.size
        keys = self._paths[kept.path]
        keys.discard(key)
        if not keys:
            del self._paths[kept.path]


async def _landing(flight: _Flight, patience: Seconds | None) -> None:
    try:
        async with asyncio.timeout(patience):
            await flight.landed.wait()
    except TimeoutError:
        return

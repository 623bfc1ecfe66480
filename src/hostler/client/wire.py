"""One conversation with a gateway: requests that are sent again when that is safe, answers as contracts."""

import asyncio
import hashlib
import io
import random
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import aiohttp
import msgspec

from hostler.client.problems import error_of_body, wait_before
from hostler.contracts.job import BlobRef
from hostler.kernel.errors import CapacityError, EngineError, GatewayUnavailableError, HostlerError, reroutable
from hostler.kernel.units import Seconds

T = TypeVar("T")

TRIES: Final = 5
"""Times that one request is sent in all, while the gateway or its engine does not answer."""
BASE: Final[Seconds] = 0.2
CAP: Final[Seconds] = 5.0
"""Pauses between tries double from `BASE` to `CAP`, with full jitter, unless the server says when to come back."""
CONNECT: Final[Seconds] = 5.0
READ: Final[Seconds] = 30.0
"""Longest silence of the server within one answer; a long poll has its own time on top."""
STREAM_SILENCE: Final[Seconds] = 45.0
"""Longest silence of an event stream: three of the server's heartbeats."""
LINE: Final = 1_048_576
"""Bytes; longest line of an event stream."""
_CREATED: Final = 201
_REDIRECT: Final = 300
"""From here on it is not the answer that was asked for; the gateway never redirects."""

Query = Mapping[str, str | float | bool | Sequence[str] | None]


class _Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as often as it is sent."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    media_type: str = "application/json"
    silence: Seconds = READ


class Wire:
    """A pool of connections to one gateway."""

    def __init__(self, session: aiohttp.ClientSession, *, tries: int = TRIES) -> None:
        self._session = session
        self._tries = tries

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, key: str | None, *, tries: int = TRIES) -> AsyncGenerator["Wire"]:
        """Open a pool; nothing is sent yet."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with aiohttp.ClientSession(
            base_url=url.rstrip("/") + "/",
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=READ),
            trust_env=False,
            read_bufsize=LINE,
        ) as session:
            yield cls(session, tries=tries)

    async def read(self, path: str, kind: type[T], *, query: Query | None = None, wait: Seconds = 0.0) -> T:
        """GET a contract."""
        return msgspec.json.decode(await self.read_bytes(path, query=query, wait=wait), type=kind)

    async def read_bytes(self, path: str, *, query: Query | None = None, wait: Seconds = 0.0) -> bytes:
        """GET an answer as it is."""
        _, content = await self._send(_Ask(method="GET", path=path, query=_words(query or {}), silence=READ + wait))
        return content

    async def change(self, path: str, body: object, kind: type[T]) -> T:
        """POST a mutation under an operation id of its own, which a repetition carries as well."""
        _, answer = await self.create(path, body, kind)
        return answer

    async def create(self, path: str, body: object, kind: type[T]) -> tuple[bool, T]:
        """As `change`, and tell whether something was made (201) or had been there."""
        status, content = await self._send(_Ask(method="POST", path=path, body=msgspec.json.encode(body)))
        return status == _CREATED, msgspec.json.decode(content, type=kind)

    async def upload(self, content: bytes, *, media_type: str) -> BlobRef:
        """PUT a blob; storing it again changes nothing."""
        path = f"v1/blobs/{hashlib.sha256(content).hexdigest()}"
        _, answer = await self._send(_Ask(method="PUT", path=path, body=content, media_type=media_type))
        return msgspec.json.decode(answer, type=BlobRef)

    async def _send(self, ask: "_Ask") -> tuple[int, bytes]:
        headers = {} if ask.body is None else {"Content-Type": ask.media_type, "Operation-Id": uuid.uuid4().hex}
        tried, doubt = 0, False
        while True:
            tried += 1
            try:
                return await self._once(ask, headers)
            except (GatewayUnavailableError, EngineError, CapacityError) as error:
                if tried >= self._tries or error.retry != "later":
                    raise
                if reroutable(error) and not doubt:  # no try of this operation can have done anything
                    headers["Operation-Id"] = uuid.uuid4().hex
                    continue
                if isinstance(error, CapacityError):
                    raise
                doubt = True
                await asyncio.sleep(pause(tried, error))

    async def _once(self, ask: "_Ask", headers: Mapping[str, str]) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=ask.silence)
        try:
            async with self._session.request(
                ask.method,
                ask.path,
                params=ask.query,
                data=None if ask.body is None else io.BytesIO(ask.body),
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
                if answer.status >= _REDIRECT:
                    raise error_of_body(answer.status, answer.content_type, content)
                return answer.status, content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unreachable(self._session, error) from error

    @asynccontextmanager
    async def stream(self, path: str, *, headers: Mapping[str, str]) -> AsyncGenerator[aiohttp.StreamReader]:
        """Open an event stream and give its lines; broken connections are `GatewayUnavailableError`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=STREAM_SILENCE)
        try:
            async with self._session.get(path, headers=headers, timeout=timeout, allow_redirects=False) as answer:
                if answer.status >= _REDIRECT:
                    raise error_of_body(answer.status, answer.content_type, await answer.read())
                yield answer.content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unreachable(self._session, error) from error


def unreachable(session: aiohttp.ClientSession, error: BaseException) -> GatewayUnavailableError:
    """Return the error for a gateway that does not answer."""
    url = str(session._base_url or "")  # noqa: SLF001 - it has no public name # pyright: ignore[reportPrivateUsage] - it has no public name
    why = str(error) or type(error).__name__
    return GatewayUnavailableError(
        f"The gateway {url} does not answer ({why}). Is it running? Start one with: hostler up.", url=url
    )


def pause(tried: int, error: HostlerError) -> Seconds:
    """Return how long to wait before the next try."""
    told = wait_before(error)
    if told is not None:
        return told + BASE * random.random()  # noqa: S311 - jitter, not a secret
    return min(CAP, BASE * 2.0**tried) * random.random()  # noqa: S311 - jitter, not a secret


def _words(query: Query) -> tuple[tuple[str, str], ...]:
    """Return a query as aiohttp takes it: nothing for None, one pair for each item of a list."""
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        if isinstance(value, bool):
            pairs.append((name, "true" if value else "false"))
        elif isinstance(value, str | float | int):
            pairs.append((name, str(value)))
        elif value is not None:
            pairs.extend((name, item) for item in value)
    return tuple(pairs)

"""Follows a job's events over any number of connections, without gap or double."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

import msgspec

from hostler.client.problems import error_of
from hostler.client.wire import TRIES, Wire, pause
from hostler.contracts.event import Event
from hostler.contracts.problem import Problem
from hostler.kernel.errors import EngineError, GatewayUnavailableError, HostlerError, InternalError

_GAP: Final = "gap"
_RESET: Final = "reset"
_PROBLEM: Final = "problem"


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One server-sent event."""

    name: str
    data: bytes
    id: bytes = b""
    """Of the last event that had one."""


async def frames(lines: AsyncIterable[bytes]) -> AsyncIterator[Frame]:
    """Yield the events of a stream of lines; comments and unknown fields are skipped."""
    name, data, id_ = "message", b"", b""
    async for line in lines:
        text = line.rstrip(b"\r\n")
        field, _, value = text.partition(b":")
        value = value.removeprefix(b" ")
        if not text:
            if data:
                yield Frame(name=name, data=data, id=id_)
            name, data = "message", b""
        elif field == b"event":
            name = value.decode()
        elif field == b"data":
            data += value
        elif field == b"id":
            id_ = value


async def followed(wire: Wire, job_id: str, *, after: int = 0, tries: int = TRIES) -> AsyncIterator[Event]:
    """Yield a job's events with offsets above `after` until it has ended.

    A broken connection is made again where it was left, at most `tries` times in a row without an event
    between; then its error is raised. `InternalError` when the engine no longer keeps what lies between. Where the
    engine lost what was told (a fail-over, a restored backup), what came instead follows, with offsets as low.
    """
    last, failed, told = after, 0, str(after)
    while True:
        try:
            headers = {"Last-Event-ID": told, "Accept": "text/event-stream"}
            async with wire.stream(f"v1/jobs/{job_id}/events", headers=headers) as lines:
                async for frame in frames(lines):
                    if frame.name == _RESET:
                        last = msgspec.json.decode(frame.data, type=_Reset).after
                        continue
                    event = _event(frame, resumed=last > after)
                    if event is None or event.offset <= last:
                        continue
                    last, failed, told = event.offset, 0, frame.id.decode() or str(event.offset)
                    yield event
                    if event.state is not None and event.state.terminal and await _over(wire, job_id):
                        return
            if await _over(wire, job_id):
                return
            raise GatewayUnavailableError("The gateway closed the stream.")  # noqa: TRY301 - handled as a lost connection
        except (GatewayUnavailableError, EngineError) as error:
            failed += 1
            if failed >= tries:
                raise
            await asyncio.sleep(pause(failed, error))


class _Reset(msgspec.Struct, frozen=True, kw_only=True):
    after: int


class _State(msgspec.Struct, frozen=True, kw_only=True):
    state: str


_ENDED: Final = frozenset({"succeeded", "dead", "cancelled", "expired"})


async def _over(wire: Wire, job_id: str) -> bool:
    """Tell whether the job has ended and was not replayed since."""
    return (await wire.read(f"v1/jobs/{job_id}", _State, query={"payload": False})).state in _ENDED


def _event(frame: Frame, *, resumed: bool) -> Event | None:
    if frame.name == _PROBLEM:
        error: HostlerError = error_of(msgspec.json.decode(frame.data, type=Problem))
        raise error
    if frame.name == _GAP:
        if resumed:
            raise InternalError("Events of this job are no longer kept: what lies between is lost to this reader.")
        return None
    return msgspec.json.decode(frame.data, type=Event)

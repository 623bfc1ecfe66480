"""The worker registry on the engine."""

from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from hostler.contracts.worker import Heard, Worker, WorkerState
from hostler.kernel.errors import InvalidError, NotFoundError, StateConflictError
from hostler.kernel.stored import Reader
from hostler.kernel.units import Instant, Seconds
from hostler.registry.moves import UNKNOWN, paths
from hostler.valkeyio.instants import instant
from hostler.valkeyio.library import HasClient, Library

COMMANDS: Final = frozenset({"pause", "resume", "drain"})
"""What a worker can be asked."""
COMMAND_KEPT: Final[Seconds] = 60.0
"""A command that no heartbeat took up by then is dropped: its worker is gone, or hangs."""
EVENTS_KEPT: Final = 10_000
_MOST: Final = 100
_MICRO: Final = 1_000_000
_ENDED: Final = frozenset({WorkerState.STOPPED, WorkerState.FAILED, WorkerState.LOST})

_encode = msgspec.msgpack.Encoder().encode
_read_worker = Reader(Worker).known
_STATES: Final = frozenset(state.value for state in WorkerState)


class _Row(Struct, frozen=True, array_like=True):
    """One value of `workers`."""

    state: str
    seen: int
    reason: str
    announced: str


_decode_row = msgspec.msgpack.Decoder(_Row).decode


class EngineRegistry:
    """Implements `ports.registry.Registry`: all of it is in the engine, so any process sees the same."""

    def __init__(self, engine: HasClient, *, library: Library | None = None) -> None:
        self._library = library or Library(engine)
        self._heard: dict[str, int] = {}
        """By worker: the number of the last command that came through this object."""

    async def announce(self, worker: Worker, *, ttl: Seconds = 10.0) -> Heard:
        """Store or renew what a worker offers and how it is; it counts as live for `ttl` seconds.

        Returns what is new for it.
        `StateConflictError` when the life of a worker has no way from the state that is known to this one.
        """
        code, word, *catalogue = await self._library.call_registry(
            "announce",
            worker=worker.id,
            state=worker.state.value,
            ttl=round(ttl * _MICRO),
            paths=_encode(paths(worker.state)),
            said=msgspec.json.encode(worker),
            reason=worker.reason or "",
            queues=",".join(worker.queues),
        )
        if code == 0:
            was = cast("bytes", word).decode()
            known = "unknown" if was == UNKNOWN else was
            raise StateConflictError(
                f"the worker {worker.id} is {known} and cannot become {worker.state}: it announces itself anew "
                "as starting",
                worker=worker.id,
                state=known,
            )
        return Heard(commands=bool(word), catalogue=catalogue[0].decode())

    async def now(self) -> Instant:
        """Return the engine's clock."""
        return instant(int(cast("int", await self._library.call_registry("now"))))

    async def withdraw(self, worker_id: str, *, state: str = "stopped", reason: str = "") -> None:
        """Forget a worker at once; `InvalidError` for a state that a live worker may be in."""
        if state not in _ENDED:
            raise InvalidError(f"{state!r} is not how a worker ends: stopped, failed or lost", field="state")
        await self._library.call_registry("withdraw", worker=worker_id, state=state, reason=reason)

    async def workers(self, *, include_gone: bool = False) -> tuple[Worker, ...]:
        """Return live workers by id; with `include_gone` also those lost or stopped in the last hour."""
        now, *words = cast("list[int | bytes]", await self._library.call_registry("roster"))
        found: list[Worker] = []
        for at in range(0, len(words), 4):
            row, ends, gone = (cast("bytes", word) for word in words[at + 1 : at + 4])
            worker = _worker(row, ends=int(ends or b"0"), gone=int(gone or b"0"), now=int(now))
            if worker is not None and (include_gone or worker.state not in _ENDED):
                found.append(worker)
        return tuple(sorted(found, key=lambda worker: worker.id))

    async def command(self, worker_id: str, verb: str, *, reason: str = "") -> None:
        """Ask a worker to `pause`, `resume` or `drain`; `InvalidError` for another verb."""
        if verb not in COMMANDS:
            raise InvalidError(f"{verb!r} is not a command: pause, resume or drain", field="verb")
        known = await self._library.call_registry(
            "command", worker=worker_id, order=verb, reason=reason, kept=round(COMMAND_KEPT * 1000)
        )
        if not known:
            raise NotFoundError(f"no live worker is named {worker_id!r}", worker=worker_id)

    async def commands(self, worker_id: str) -> tuple[str, ...]:
        """Take the commands that wait for this worker, oldest first.

        They go from the engine with the next call, so an answer that is lost on the way is given again.
        """
        heard = self._heard.get(worker_id, 0)
        found = cast("list[Any]", await self._library.call_registry("commands", worker=worker_id, after=heard))
        if found:
            self._heard[worker_id] = max(found[::2])
        return tuple(word.decode() for word in found[1::2])

    async def upkeep(self) -> int:
        """Make each lost worker an event, forget the old ones.

        The engine does it at most every half second, whoever asks. Returns how often workers came, went, began or
        ceased to take work, or got other queues.
        """
        found = await self._library.call_registry("lapse", most=_MOST, events_kept=EVENTS_KEPT)
        return int(cast("bytes", found))


def _worker(packed: bytes, *, ends: int, gone: int, now: int) -> Worker | None:
    """Return a worker as the engine's clock sees it, whatever its own says; None for what this version cannot read."""
    row = _decode_row(packed)
    said = _read_worker(row.announced)
    if said is None or row.state not in _STATES:
        return None
    lapsed = not gone and ends <= now
    return msgspec.structs.replace(
        said,
        state=WorkerState.LOST if lapsed else WorkerState(row.state),
        seen_at=instant(row.seen),
        expires_at=instant(gone or ends),
        reason="its lease ran out" if lapsed else row.reason or None,
    )

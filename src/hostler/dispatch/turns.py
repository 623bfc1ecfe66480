"""Turns of calls: taken of shared limits before a call, kept while its work runs, given back at its end."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.limit import Grant, LimitKind, Line, Wait, Want
from hostler.contracts.service import ServiceCall
from hostler.kernel.errors import EngineError
from hostler.kernel.units import Json, Seconds
from hostler.ports.limiter import Limiter

_LOG = structlog.stdlib.get_logger("hostler.dispatch.turns")

PATIENCE: Final[Seconds] = 1.0
"""How long a call waits for its turn where it is; who has to wait longer goes back to its queue."""
NARROW_PATIENCE: Final[Seconds] = 0.25
"""How long it waits where others have room beside it: the place that it waits in could be theirs."""
UNASKED: Final[Seconds] = 1.0
"""When a call comes back whose limits could not be asked for, since the engine did not answer."""
LEASE: Final[Seconds] = 30.0
"""How long a turn holds without a renewal: so long the places of a process that died stay taken."""
_ASKED_WITHIN: Final[Seconds] = 2.0
_LEAST: Final[Seconds] = 0.001
_POLL: Final[Seconds] = 0.02
_POLL_MOST: Final[Seconds] = 0.25


class Turn:
    """What one attempt at a call holds."""

    def __init__(self, call: ServiceCall, wants: Sequence[Want]) -> None:
        self.call = call
        self.name: Final = _named(call)
        self.leased: Final = tuple(want for want in wants if want.limit.kind is not LimitKind.RATE)
        self.followed = False
        """Whether somebody follows the work: without that it is not kept for long."""
        self.keeping: asyncio.Task[None] | None = None

    def drop(self) -> None:
        """Keep it no longer: it lapses, unless a later attempt takes it over."""
        if self.keeping is not None:
            self.keeping.cancel()


class Turns:
    """The turns of one endpoint's calls, on limits that all processes share."""

    def __init__(
        self, limiter: Limiter, endpoint: str, *, patience: Seconds = PATIENCE, lease: Seconds = LEASE
    ) -> None:
        self._limiter = limiter
        self._endpoint = endpoint
        self._patience = patience
        self._lease = lease
        self._turns: dict[tuple[str, int], Turn] = {}

    async def take(self, call: ServiceCall, wants: Sequence[Want], narrow: frozenset[str]) -> Failure | None:
        """Take a turn, or return why there is none; `narrow` are the limits that leave the endpoint to others."""
        loop = asyncio.get_running_loop()
        began, poll, held = loop.time(), _POLL, _held(call)
        places = {want.limit.name for want in wants if want.limit.kind is LimitKind.IN_FLIGHT}
        while True:
            left = began + min(self._patience, NARROW_PATIENCE) - loop.time()
            try:
                async with asyncio.timeout(_ASKED_WITHIN):
                    answer = await self._limiter.take(
                        _named(call),
                        wants,
                        fence=call.fence,
                        lease=self._lease,
                        narrow=narrow,
                        held=held,
                        patience=left if left > poll else 0.0,
                    )
            except (EngineError, TimeoutError) as error:
                words = f"the limits of {self._endpoint} cannot be asked for: {error or 'no answer in time'}"
                return _ours(words, UNASKED)
            if isinstance(answer, Grant):
                _LOG.debug("limit.granted", job=call.job_id, granted_at=answer.at, wants=wants)
                self._begin(Turn(call, wants))
                return None
            if answer.line is not Line.NONE:
                held = answer.limit if answer.line is Line.OWN else None
            pause = max(answer.after, _LEAST)
            if answer.limit in places and answer.line is Line.NONE:  # one may come free any time, and nobody says so
                pause, poll = min(pause, poll), min(poll * 2, _POLL_MOST)
            patience = min(self._patience, NARROW_PATIENCE) if answer.limit in narrow else self._patience
            if loop.time() + pause > began + patience:
                return _refused(answer, narrow=answer.limit in narrow, held=held == answer.limit)
            await asyncio.sleep(pause)

    async def resume(self, call: ServiceCall, wants: Sequence[Want]) -> None:
        """Go on with what an earlier attempt began: its work runs already, so this never refuses."""
        turn = Turn(call, wants)
        if turn.leased:
            await self._renew(turn)
        self._begin(turn)

    def of(self, job: str, fence: int) -> Turn | None:
        """Return the turn that an attempt holds."""
        return self._turns.get((job, fence))

    async def end(self, turn: Turn, used: Mapping[str, int]) -> None:
        """Give a turn back; `used` says by a limit's name what is known of it. An engine that is away costs a lapse."""
        self._forget(turn)
        if not turn.leased:
            return
        try:
            async with asyncio.timeout(_ASKED_WITHIN):
                await self._limiter.settle(turn.name, turn.leased, fence=turn.call.fence, used=used)
        except (EngineError, TimeoutError) as error:
            _LOG.warning("a turn was not given back and lapses", job=turn.call.job_id, error=f"{error!r}")

    def leave(self, turn: Turn) -> None:
        """Keep a turn no longer whose work nobody here follows; it can still be ended for a while."""
        turn.drop()
        if self.of(turn.call.job_id, turn.call.fence) is turn:
            asyncio.get_running_loop().call_later(self._lease, self._forget, turn)

    def close(self) -> None:
        """Keep no turn any longer."""
        for turn in tuple(self._turns.values()):
            self._forget(turn)

    def _begin(self, turn: Turn) -> None:
        self._turns[turn.call.job_id, turn.call.fence] = turn
        if turn.leased:
            turn.keeping = asyncio.create_task(self._keep(turn), name=f"turn of {turn.call.job_id}")

    def _forget(self, turn: Turn) -> None:
        turn.drop()
        key = (turn.call.job_id, turn.call.fence)
        if self._turns.get(key) is turn:
            del self._turns[key]

    async def _keep(self, turn: Turn) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            if not turn.followed:
                self.leave(turn)
                return
            await self._renew(turn)

    async def _renew(self, turn: Turn) -> None:
        """Prolong it; take places anew that lapsed meanwhile, as far as there is room: the work runs all the same."""
        call = turn.call
        try:
            async with asyncio.timeout(_ASKED_WITHIN):
                if await self._limiter.renew(turn.name, turn.leased, fence=call.fence, lease=self._lease):
                    return
                for want in turn.leased:
                    if want.limit.kind is LimitKind.IN_FLIGHT:
                        await self._limiter.take(turn.name, [want], fence=call.fence, lease=self._lease)
        except (EngineError, TimeoutError) as error:
            _LOG.warning("a turn was not renewed", job=call.job_id, error=f"{error!r}")


def _named(call: ServiceCall) -> str:
    """Return a call's name among those that share a limit: a second call of a job holds what it takes for itself."""
    return f"{call.job_id}+" if call.beside else call.job_id


def _held(call: ServiceCall) -> str | None:
    """Return in which limit's line a call has held a moment, since it was last refused."""
    last = call.history[-1].details if call.history and not call.beside else {}
    return str(last["limit"]) if last.get("line") == Line.OWN else None


def _refused(answer: Wait, *, narrow: bool, held: bool) -> Failure:
    """Return what a job is told that has to wait for a limit; `line` says whether it comes at a moment of its own."""
    details: dict[str, Json] = {"limit": answer.limit}
    if narrow:
        details |= {"narrow": True, "line": (Line.OWN if held else Line.FULL).value}
    return _ours(f"limit {answer.limit} is used up for {answer.after:.2f} s", answer.after, details)


def _ours(words: str, after: Seconds, details: dict[str, Json] | None = None) -> Failure:
    """Return a refusal that the service has no part in: `unsent` says that the call never left."""
    found = {"unsent": True, **(details or {})}
    return Failure(class_=FailureClass.OVERLOADED, message=words, retry_after=after, details=found)

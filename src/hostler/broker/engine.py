"""The broker on the engine, for workers: claim, renew, progress, settle, each one function call per queue."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from hostler.broker.codec import LaneTable, lanes_of, leases_of, settle_item, state_name, update_item
from hostler.broker.engine_match import Claimant, Cover, claimant, pack_standings
from hostler.broker.envelopes import FAILURE, UNREADABLE
from hostler.broker.records import pack, split_id, unpack_lane
from hostler.contracts.lease import ClaimRequest, Die, Lease, LeaseRef, Renewal, Settled, Settlement, Update
from hostler.contracts.queue import Demand
from hostler.kernel.errors import EngineTimeoutError, EngineUnavailableError
from hostler.policy.sharding import home_of, place_of
from hostler.valkeyio.instants import instant
from hostler.valkeyio.library import HasClient, Library
from hostler.valkeyio.wakes import HasBlocking, WakeUps

CLAIM_MAX: Final = 64
"""Leases of one claim."""
SETTLE_MAX: Final = 64
"""Settlements, updates or renewals of one function call."""
TENANTS_MAX: Final = 64
"""Tenants whose lines are looked at for what waits for models."""

_LEASES, _JUDGE, _HELD = 0, 1, 2
_MICRO: Final = 1_000_000
_ROUNDS: Final = 500
"""Most slices of lanes that one claim judges before it gives up for now."""
_GONE: Final = "the lease is no longer held"


_Part = tuple[str, tuple[LeaseRef, ...]]
"""A queue, and leases of it."""
_Renewed = tuple[list[LeaseRef], list[LeaseRef], int, bool]
"""Those that are lost, those asked to stop, when the rest ends, whether the queue is drained."""


class HasEngine(HasClient, HasBlocking, Protocol):
    """What the broker needs of `valkeyio.engine.Engine`."""


class EngineBroker:
    """Implements `ports.broker.Broker` on Valkey or Redis; safe for any number of tasks of one event loop."""

    def __init__(self, engine: HasEngine, *, library: Library | None = None) -> None:
        self._library = library or Library(engine)
        self._wakes = WakeUps(engine)
        self._claimants: dict[tuple[str, str], Claimant] = {}

    async def aclose(self) -> None:
        """Stop listening for wake-ups."""
        await self._wakes.aclose()

    async def claim(self, request: ClaimRequest, *, operation: str) -> tuple[Lease, ...]:
        """Lease the best jobs that this worker fits; see the port."""
        queue = place_of(request.queue)
        name = (queue, request.worker)
        mine = claimant(request, self._claimants.get(name))
        self._claimants[name] = mine
        cover = Cover()
        for _ in range(_ROUNDS):
            now, _, status, *rest = await self._claim(queue, request, mine, cover, operation)
            if status == _LEASES:
                return await self._readable(request.worker, leases_of(queue, now, lanes_of(rest[0]), rest[1]))
            if status != _JUDGE:
                break
            upto, rows = rest[0]
            cover = mine.worker_class.judge(rows, upto)
        return ()

    async def _readable(self, worker: str, leases: tuple[Lease, ...]) -> tuple[Lease, ...]:
        """Bury jobs that cannot be read, verbatim: no worker ever gets one, and none is claimed again and again."""
        broken = [lease for lease in leases if lease.kind == UNREADABLE]
        if broken:
            dead = Die(failure=FAILURE)
            await self.settle(worker, [Settlement(job_id=one.job_id, fence=one.fence, ending=dead) for one in broken])
        return tuple(lease for lease in leases if lease.kind != UNREADABLE)

    async def _claim(
        self, queue: str, request: ClaimRequest, mine: Claimant, cover: Cover, operation: str
    ) -> Sequence[Any]:
        return await self._library.call(
            "claim",
            queue,
            worker=request.worker,
            class_name=mine.worker_class.name,
            limit=max(0, min(request.limit, CLAIM_MAX)),
            pools=mine.pools,
            standings=pack_standings(request),
            covers=pack(cover.pairs),
            upto=cover.upto,
            lease=0 if request.lease_s is None else round(request.lease_s * _MICRO),
            operation=operation,
            suspicion=int(request.suspicion),
        )

    async def wait_for_work(self, queues: Sequence[str], worker: str, *, timeout: float) -> bool:
        """Return True soon after work may have appeared; see the port."""
        return await self._wakes.wait([place_of(queue) for queue in queues], worker, timeout=timeout)

    async def demand(self, queue: str) -> tuple[Demand, ...]:
        """Return what waits for models, lane by lane; see the port."""
        now, words = await self._library.call("demand", place_of(queue), most=TENANTS_MAX)
        return tuple(
            Demand(lane=unpack_lane(row), waiting=waiting, oldest=max(0.0, (int(now) - int(ready_at)) / _MICRO))
            for row, waiting, ready_at in zip(words[1::4], words[2::4], words[3::4], strict=True)
        )

    async def renew(self, worker: str, leases: Sequence[LeaseRef]) -> Renewal:
        """Extend these leases and say which are lost or were asked to stop; see the port."""
        parts, found = await self._renewed(worker, _by_queue(leases))
        ends = [instant(end) for _, _, end, _ in found if end]
        return Renewal(
            lost=tuple(ref for lost, _, _, _ in found for ref in lost),
            cancelled=tuple(ref for _, stop, _, _ in found for ref in stop),
            expires_at=min(ends, default=None),
            drained=tuple(sorted({home_of(queue) for (queue, _), part in zip(parts, found, strict=True) if part[3]})),
        )

    async def _renewed(self, worker: str, parts: Sequence[_Part]) -> tuple[list[_Part], list[_Renewed]]:
        """Renew each part, and return those that were answered: in a cluster one queue may be away by itself."""
        answers = await asyncio.gather(*(self._renew(worker, *part) for part in parts), return_exceptions=True)
        found: list[tuple[_Part, _Renewed]] = []
        for part, answer in zip(parts, answers, strict=True):
            if not isinstance(answer, BaseException):
                found.append((part, answer))
            elif not isinstance(answer, EngineUnavailableError | EngineTimeoutError):
                raise answer
        for answer in answers:
            if isinstance(answer, BaseException) and not found:
                raise answer
        return [part for part, _ in found], [answer for _, answer in found]

    async def _renew(self, worker: str, queue: str, refs: Sequence[LeaseRef]) -> _Renewed:
        mine = self._claimants.get((queue, worker))
        held = pack([word for ref in refs for word in (split_id(ref.job_id)[1], ref.fence)])
        _, draining, end, status, unjudged = await self._call_renew(worker, queue, mine, held, Cover())
        if mine is not None and unjudged:
            upto, rows = unjudged
            await self._call_renew(worker, queue, mine, pack([]), mine.worker_class.judge(rows, upto))
        lost = [ref for ref, code in zip(refs, status, strict=True) if code == 0]
        stop = [ref for ref, code in zip(refs, status, strict=True) if code == _HELD]
        return lost, stop, end, bool(draining) and len(lost) < len(refs)

    async def _call_renew(
        self, worker: str, queue: str, mine: Claimant | None, held: bytes, cover: Cover
    ) -> Sequence[Any]:
        return await self._library.call(
            "renew",
            queue,
            worker=worker,
            class_name=mine.worker_class.name if mine else "",
            held=held,
            covers=pack(cover.pairs),
            upto=cover.upto,
        )

    async def progress(self, worker: str, updates: Sequence[Update]) -> tuple[LeaseRef, ...]:
        """Store progress, remote ids and checkpoints; return the stale leases; see the port."""
        parts = _by_queue(updates)
        found = await asyncio.gather(*(self._progress(worker, queue, part) for queue, part in parts))
        return tuple(ref for part in found for ref in part)

    async def _progress(self, worker: str, queue: str, updates: Sequence[Update]) -> list[LeaseRef]:
        items = pack([update_item(update) for update in updates])
        status = await self._library.call("progress", queue, worker=worker, items=items)
        return [
            LeaseRef(job_id=update.job_id, fence=update.fence)
            for update, held in zip(updates, status, strict=True)
            if not held
        ]

    async def settle(self, worker: str, settlements: Sequence[Settlement]) -> tuple[Settled, ...]:
        """End attempts, in the order given; see the port."""
        words: list[Settled | None] = [None] * len(settlements)
        queues: dict[str, list[int]] = {}
        for place, settlement in enumerate(settlements):
            queue, seq = split_id(settlement.job_id)
            if queue and seq:
                queues.setdefault(queue, []).append(place)
            else:
                words[place] = Settled(job_id=settlement.job_id, accepted=False, state="gone", reason=_GONE)
        parts = [
            (queue, places[first : first + SETTLE_MAX])
            for queue, places in queues.items()
            for first in range(0, len(places), SETTLE_MAX)
        ]
        calls = [self._settle(worker, queue, [settlements[place] for place in places]) for queue, places in parts]
        answers = [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls)
        for (_, places), found in zip(parts, answers, strict=True):
            for place, word in zip(places, found, strict=True):
                words[place] = word
        return tuple(cast("list[Settled]", words))

    async def _settle(self, worker: str, queue: str, settlements: Sequence[Settlement]) -> list[Settled]:
        lanes = LaneTable()
        items = [settle_item(settlement, lanes) for settlement in settlements]
        replies = await self._library.call(
            "settle", queue, worker=worker, items=pack(items), lanes_given=lanes.packed()
        )
        return [
            Settled(
                job_id=settlement.job_id, accepted=code == 1, state=state_name(state), reason="" if code == 1 else _GONE
            )
            for settlement, code, state in zip(settlements, replies[::2], replies[1::2], strict=True)
        ]


def _by_queue(items: Sequence[Any]) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the items by queue, in pieces that one call takes, each queue's in the order given."""
    queues: dict[str, list[Any]] = {}
    for item in items:
        queues.setdefault(split_id(item.job_id)[0], []).append(item)
    return [
        (queue, tuple(part[first : first + SETTLE_MAX]))
        for queue, part in queues.items()
        for first in range(0, len(part), SETTLE_MAX)
    ]

"""All four sides of the engine's broker on one engine, with short ways to submit, announce, claim and settle."""

from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec
from msgspec import Raw

from hostler.broker.desk import EngineDesk
from hostler.broker.engine import EngineBroker
from hostler.broker.foreman import EngineForeman
from hostler.contracts.job import JobRequest, Submitted
from hostler.contracts.lease import ClaimRequest, Ending, Lease, Settled, Settlement, Succeed
from hostler.contracts.offer import Offer, Pool
from hostler.contracts.worker import Worker, WorkerState
from hostler.registry.engine import EngineRegistry
from hostler.registry.kinds import Kinds
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import owner_of
from hostler.valkeyio.library import Library


class Front:
    """A broker in production build; the queue is `images` and the kind `draw` unless a call says otherwise."""

    def __init__(self, engine: Engine) -> None:
        library = Library(engine)
        self.engine = engine
        self.kinds = Kinds(engine, library=library)
        self.broker = EngineBroker(engine, library=library)
        self.desk = EngineDesk(engine, library=library, kinds=self.kinds)
        self.foreman = EngineForeman(engine, library=library, kinds=self.kinds)
        self.registry = EngineRegistry(engine, library=library)
        self._numbers = count(1)

    async def aclose(self) -> None:
        """End what follows the engine."""
        await self.broker.aclose()
        await self.desk.aclose()

    def operation(self) -> str:
        """Return an operation id that was not used before."""
        return f"front-{next(self._numbers)}"

    async def answers(self, *requests: JobRequest) -> tuple[Submitted | Exception, ...]:
        """Submit these."""
        return await self.desk.submit(requests, operation=self.operation())

    async def submit(self, kind: str = "draw", **fields: Any) -> str:
        """Submit one job and return its id; raises what it was refused with."""
        (answer,) = await self.answers(request(kind, **fields))
        if isinstance(answer, Exception):
            raise answer
        return answer.id

    async def hire(self, worker: str = "w1", *, offers: tuple[Offer, ...] | None = None, **facts: Any) -> None:
        """Announce a worker of the queue for a minute."""
        now = datetime.now(UTC)
        found = Worker(
            id=worker,
            state=WorkerState.READY,
            machine="here",
            pid=1,
            version="1",
            slots=4,
            running=0,
            queues=("images",),
            offers=(Offer(kinds=("draw",)),) if offers is None else offers,
            started_at=now,
            seen_at=now,
            expires_at=now,
            loop_age=0.0,
        )
        await self.registry.announce(msgspec.structs.replace(found, **facts), ttl=60.0)

    async def claim(
        self, limit: int = 1, *, worker: str = "w1", slots: float = 64.0, **wanted: Any
    ) -> tuple[Lease, ...]:
        """Claim as `worker`."""
        plain: dict[str, Any] = {"offers": (Offer(kinds=("draw",)),), "queue": "images"}
        pools = {"slots": Pool(id=worker, total=slots)}
        asked = ClaimRequest(worker=worker, limit=limit, pools=pools, **(plain | wanted))
        return await self.broker.claim(asked, operation=self.operation())

    async def end(self, lease: Lease, ending: Ending | None = None, *, worker: str = "w1") -> Settled:
        """End an attempt; it succeeds unless told otherwise."""
        ended = Settlement(job_id=lease.job_id, fence=lease.fence, ending=ending or Succeed())
        return (await self.broker.settle(worker, [ended]))[0]

    async def leaked(self) -> list[bytes]:
        """Return keys in the engine that no row of the key table owns."""
        keys: list[bytes] = await self.engine.command("KEYS", "h:{*")
        return [key for key in keys if owner_of(key) is None]


def request(kind: str = "draw", **fields: Any) -> JobRequest:
    """Return a submit; `payload` may be any JSON value."""
    payload = Raw(msgspec.json.encode(fields.pop("payload", None)))
    return msgspec.structs.replace(msgspec.convert({"kind": kind, "payload": payload}, JobRequest), **fields)

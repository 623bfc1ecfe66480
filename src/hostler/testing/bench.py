"""One queue on a real engine server, with short ways to submit, claim and settle: for tests and benchmarks."""

import asyncio
import itertools
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Raw
from redis.asyncio import Redis

from hostler.broker.engine import EngineBroker
from hostler.broker.engine_submit import prepare, submit_jobs
from hostler.broker.engine_tick import configure, tick
from hostler.broker.records import Record, read_events, split_id, unpack_record
from hostler.contracts.event import Event
from hostler.contracts.job import JobRequest
from hostler.contracts.lease import ClaimRequest, Ending, Lease, Settled, Settlement, Succeed
from hostler.contracts.offer import Offer, Pool
from hostler.contracts.queue import KindSpec, QueueSpec
from hostler.kernel.settings import EngineSettings
from hostler.testing.eventually import eventually
from hostler.valkeyio.client import make_client, make_pool, send
from hostler.valkeyio.embedded import ask, server_program
from hostler.valkeyio.keys import owner_of, prefix
from hostler.valkeyio.library import Library
from hostler.valkeyio.library_text import PRODUCTION, Build
from hostler.valkeyio.pipes import Piped

KIND = KindSpec(name="work.do")
OFFER = Offer(kinds=("work.do",))
_STEP = 100


class Server:
    """One server with AOF `always` on a socket of its own; can be killed and started again on its data.

    `program` is another server's than the one that comes with Hostler, started under the name `redis-server`.
    """

    def __init__(self, program: Path | None = None) -> None:
        self._program = program or server_program()
        self._name = "redis-server" if program else str(self._program)
        self.folder = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))  # a socket's path has to be short
        self.socket = self.folder / "s"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        """Start it; `more` are further words of its command line."""
        words = ("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", "")
        safe = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")
        self._process = subprocess.Popen(  # noqa: S603 - the program that the package brings, or a test found
            [self._name, *words, *safe, *more], executable=self._program, stdout=subprocess.DEVNULL
        )

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    async def up(self, *, within: float = 60.0) -> None:
        """Wait until it answers."""

        async def answers() -> bool:
            return await ask(self.socket) == "ready"

        await eventually(answers, within=within)


class Clients:
    """What the library and the wake-ups need of an engine; an answer may take a minute on a machine that is busy."""

    def __init__(self, socket: Path) -> None:
        settings, url = EngineSettings(connections=64, command_timeout=60.0), f"unix://{socket}"
        calls, limit = make_pool(settings, url, name="bench"), settings.command_timeout
        self.client = Piped(make_client(make_pool(settings, url, name="bench")), calls, limit=limit)
        self.blocking: Redis = make_client(make_pool(settings, url, name="bench-blocking", timeout=60.0))

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.aclose()
        await self.blocking.aclose()


class Glass:
    """Looks at one queue from outside: what the engine really holds."""

    def __init__(self, server: Server, queue: str) -> None:
        self.server = server
        self.queue = queue
        self.engine = Clients(server.socket)

    async def command(self, *words: str | bytes | float) -> Any:
        """Send one command."""
        return await send(self.engine.client, *words)

    async def record(self, job: str) -> Record:
        """Return the record of a job; `AssertionError` when there is none."""
        packed = cast("bytes | None", await self.command("GET", prefix(self.queue) + "j:" + split_id(job)[1]))
        if packed is None:
            raise AssertionError(f"{job} is gone")
        return unpack_record(packed)

    async def state(self, job: str) -> str:
        """Return a job's state by name."""
        return str((await self.record(job)).job_state)

    async def events(self) -> list[Event]:
        """Return all events of the queue."""
        entries: list[tuple[bytes, dict[bytes, bytes]]] = await self.command(
            "XRANGE", prefix(self.queue) + "ev", "-", "+"
        )
        return [event for key, fields in entries for event in read_events(self.queue, key.decode(), fields[b"e"])]

    async def meta(self) -> dict[str, int]:
        """Return the queue's scalars that are numbers."""
        pairs: dict[bytes, bytes] = await self.command("HGETALL", prefix(self.queue) + "meta")
        return {key.decode(): int(value) for key, value in pairs.items() if value.lstrip(b"-").isdigit()}

    async def keys(self) -> list[str]:
        """Return all keys of Hostler in the engine."""
        return sorted(key.decode() for key in await self.command("KEYS", "h:*"))

    async def leaked(self) -> list[str]:
        """Return the keys that no row of the key table owns."""
        return [key for key in await self.keys() if owner_of(key) is None]


class Bench(Glass):
    """One queue."""

    def __init__(self, server: Server, queue: str, build: Build = PRODUCTION) -> None:
        super().__init__(server, queue)
        self.library = Library(self.engine, build=build)
        self.broker = EngineBroker(self.engine, library=self.library)
        self._operations = itertools.count()
        self._submitted: list[str] = []

    def id(self, number: int) -> str:
        """Return the id of the job that was submitted through this bench as the `number`th, from 1."""
        return self._submitted[number - 1]

    def operation(self) -> str:
        """Return an operation id that was not used before."""
        return f"{self.queue}-{next(self._operations)}"

    async def configure(self, **fields: Any) -> None:
        """Set fields of the queue's row."""
        await configure(self.library, QueueSpec(name=self.queue, **fields))

    async def submit(self, n: int = 1, *, kind: KindSpec = KIND, payload: object = 0, **fields: Any) -> list[str]:
        """Submit `n` equal jobs and return their ids; raises the first refusal."""
        request = JobRequest(kind=kind.name, payload=Raw(msgspec.json.encode(payload)), **fields)
        ids: list[str] = []
        for first in range(0, n, _STEP):
            prepared = [prepare(request, kind)] * min(_STEP, n - first)
            answers = await submit_jobs(self.library, self.queue, prepared, self.operation())
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
                ids.append(answer.id)
        self._submitted += ids
        return ids

    async def one(self, **fields: Any) -> str:
        """Submit one job and return its id."""
        return (await self.submit(**fields))[0]

    def request(
        self,
        limit: int = 1,
        *,
        worker: str = "w1",
        offers: Sequence[Offer] = (OFFER,),
        slots: float = 1000,
        **more: Any,
    ) -> ClaimRequest:
        """Return a claim request; `pools` are added to the worker's slots."""
        pools = {"slots": Pool(id=worker, total=slots)} | more.pop("pools", {})
        return ClaimRequest(queue=self.queue, worker=worker, limit=limit, offers=tuple(offers), pools=pools, **more)

    async def claim(self, limit: int = 1, **more: Any) -> tuple[Lease, ...]:
        """Claim at most `limit` jobs."""
        return await self.broker.claim(self.request(limit, **more), operation=self.operation())

    async def take(self, **more: Any) -> Lease:
        """Claim one job; there must be one."""
        (lease,) = await self.claim(**more)
        return lease

    async def settle(self, lease: Lease, ending: Ending | None = None, *, worker: str = "w1") -> Settled:
        """End one attempt, with success unless told otherwise."""
        settlement = Settlement(job_id=lease.job_id, fence=lease.fence, ending=ending or Succeed())
        (settled,) = await self.broker.settle(worker, [settlement])
        return settled

    async def tick(self) -> None:
        """Do all upkeep that is due."""
        while (await tick(self.library, self.queue)).more:
            pass

    async def until(self, check: Callable[[], Awaitable[Any]], *, within: float = 10.0) -> None:
        """Wait for a fact while upkeep goes on."""

        async def upkept() -> Any:
            await self.tick()
            return await check()

        await eventually(upkept, within=within, every=0.05)

    async def until_upkeep(self) -> None:
        """Wait until one more round of upkeep was done."""
        before = (await self.meta()).get("sweep", 0)

        async def swept() -> bool:
            return (await self.meta()).get("sweep", 0) > before

        await self.until(swept)

    async def aclose(self) -> None:
        """End it; the server stays."""
        await self.broker.aclose()
        await self.engine.aclose()


async def gather_all(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """Run calls at the same moment."""
    return list(await asyncio.gather(*calls))

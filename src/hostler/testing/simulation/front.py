"""The gateways of a story: each keeps the queues, reads their streams and serves those who follow a job."""

import asyncio
from contextlib import aclosing
from typing import Any, Final, cast

import msgspec

from hostler.contracts.job import Job
from hostler.gateway.follow import Story, ended
from hostler.gateway.hub import Hub
from hostler.gateway.measure import JobMeter
from hostler.gateway.problems import problem
from hostler.gateway.rooms import Rooms
from hostler.gateway.tail import Tail, Tails
from hostler.gateway.upkeep import Upkeep, kept_up
from hostler.kernel.errors import HostlerError
from hostler.kernel.settings import Settings
from hostler.kernel.units import Seconds
from hostler.ports.clock import Dice
from hostler.telemetry.metrics import Metrics
from hostler.testing.simulation.loop import VirtualLoop
from hostler.testing.simulation.network import EngineLine, Path

STREAMS: Final = 64
SETTINGS: Final = Settings()


class Connection:
    """What a gateway sends to one client, in order; None when it is over, however that came."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.serving: asyncio.Task[None] | None = None

    def leave(self) -> None:
        """Go away, without a word."""
        if self.serving is not None:
            self.serving.cancel()


class Front:
    """One gateway process."""

    def __init__(self, name: str, loop: VirtualLoop, line: EngineLine, path: Path, dice: Dice) -> None:
        self.name = name
        self.path = path
        """Its way to the engine."""
        self.open = True
        """Whether a client that knocks is let in: a process that is frozen still listens."""
        self.dead = False
        self.task: asyncio.Task[None] | None = None
        self._loop = loop
        ports = cast("Any", line)
        metrics = Metrics()
        self.hub = Hub(most=STREAMS, metrics=metrics)
        self._rooms = Rooms(
            desk=ports,
            foreman=ports,
            registry=ports,
            endpoints=ports,
            blobs=ports,
            results=ports,
            limiter=ports,
            settings=SETTINGS,
            metrics=metrics,
            hub=self.hub,
        )
        meter = JobMeter(metrics, ports)
        self._tails = Tails(lambda queue: Tail(queue, self._rooms, meter.counted), dice)
        self._upkeep = Upkeep(ports, self._tails, dice)
        self._stopping = asyncio.Event()
        self._connections: dict[Connection, None] = {}
        """In the order of their beginning: a set has the order of addresses in memory."""

    def begin(self) -> None:
        """Begin to serve."""
        self.task = self._loop.start(self._run(), self.name)

    async def _run(self) -> None:
        async with kept_up(self._upkeep, self._tails, self.hub):
            await self._stopping.wait()
        serving = [one.serving for one in self._connections if one.serving is not None]
        if serving:
            await asyncio.wait(serving)  # who goes away meanwhile ends only what was sent to him

    def stop(self) -> None:
        """End in order: what is being sent is ended too."""
        self.open = False
        self._stopping.set()

    def die(self) -> None:
        """End as by SIGKILL: nothing of it runs any more, and its connections break."""
        self.open, self.dead = False, True
        self._loop.freeze(self.name)
        for connection in self._connections:
            connection.sent.put_nowait(None)

    def follow(self, job_id: str, *, after: int, epoch: int | None) -> Connection:
        """Send a job's events, as `GET /v1/jobs/{id}/events` does; `ConnectionRefusedError` when nobody listens."""
        return self._serve(self._events(job_id, after, epoch))

    def wait(self, job_id: str, *, within: Seconds) -> Connection:
        """Send the job as it is after its end or `within` seconds, as `GET /v1/jobs/{id}?wait=` does."""
        return self._serve(self._end(job_id, within))

    def _serve(self, frames: Any) -> Connection:
        if not self.open:
            raise ConnectionRefusedError
        connection = Connection()
        self._connections[connection] = None
        connection.serving = self._loop.start(self._send(connection, frames), self.name)
        return connection

    async def _send(self, connection: Connection, frames: Any) -> None:
        try:
            async with aclosing(frames):
                async for frame in frames:
                    connection.sent.put_nowait(frame)
        except HostlerError as error:
            connection.sent.put_nowait(b"event: problem\ndata: %s\n\n" % msgspec.json.encode(problem(error)))
        finally:
            connection.sent.put_nowait(None)
            self._connections.pop(connection, None)

    async def _events(self, job_id: str, after: int, epoch: int | None) -> Any:
        job = await self._rooms.desk.get(job_id)
        self.hub.judge()
        async with aclosing(self._told(job, after, epoch)) as frames:
            async for frame in frames:
                yield frame

    def _told(self, job: Job, after: int, epoch: int | None) -> Any:
        return Story(self._rooms.desk, self.hub, job, after=after, epoch=epoch).told()

    async def _end(self, job_id: str, within: Seconds) -> Any:
        job = await ended(self._rooms.desk, self.hub, job_id, within=within)
        yield b"event: job\ndata: %s\n\n" % msgspec.json.encode(job)

"""Those who follow a job through whichever gateway lets them in, and go on where they were."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from hostler.chaos.record import Heard, Push
from hostler.contracts.event import Event
from hostler.contracts.job import Job
from hostler.contracts.problem import Problem
from hostler.kernel.units import Fraction, Seconds
from hostler.testing.simulation.front import Connection, Front

SILENCE: Final[Seconds] = 20.0
"""A stream in which nothing came for so long is given up: it says something every 15 s."""
PATIENCE: Final[Seconds] = 10.0
"""Of a long poll."""
AWAY: Final = 503
"""Of a problem that passes: the engine does not answer."""
AGAIN: Final[Seconds] = 0.5
LEAVES: Final[Fraction] = 0.1
"""How often a reader goes away after an event, to come back."""


class Reader:
    """One client that wants to hear of one job until its end."""

    def __init__(self, name: str, job_id: str, fronts: Callable[[], Sequence[Front]], dice: random.Random) -> None:
        self.name = name
        self.job_id = job_id
        self.heard: list[Heard] = []
        """One line for each connection."""
        self.wrong: list[str] = []
        self.done = False
        self._fronts = fronts
        self._dice = dice
        self._last = 0
        self._epoch: int | None = None

    async def follow(self) -> None:
        """Read events until the job has ended."""
        while not self.done:
            if (front := self._choose()) is not None:
                await self._read(front.follow(self.job_id, after=self._last, epoch=self._epoch))
            await asyncio.sleep(self._dice.random() * AGAIN)

    async def wait(self) -> None:
        """Ask for the job's end until it is told."""
        while not self.done:
            if (front := self._choose()) is not None:
                await self._poll(front)
            await asyncio.sleep(self._dice.random() * AGAIN)

    def _choose(self) -> Front | None:
        open_ = [front for front in self._fronts() if front.open]
        return self._dice.choice(open_) if open_ else None

    async def _poll(self, front: Front) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        connection = front.wait(self.job_id, within=PATIENCE)
        try:
            async with asyncio.timeout(2 * SILENCE):
                answer = await connection.sent.get()
        except TimeoutError:
            connection.leave()
            return
        if answer is None:
            return
        fields = _fields(answer)
        if fields["event"] == "problem":
            self._refused(fields["data"])
            return
        job = msgspec.json.decode(fields["data"], type=Job)
        self.done = job.state.terminal
        if not self.done and loop.time() - began < PATIENCE and front.open:
            self.wrong.append(f"{self.name} was told {job.state} of {job.id} before its {PATIENCE:g} s were over")

    async def _read(self, connection: Connection) -> None:
        after, pushes, gap = self._last, list[Push](), False
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    frame = await connection.sent.get()
            except TimeoutError:
                break
            if frame is None:
                break
            fields = _fields(frame)
            name = fields.get("event")
            gap = gap or name == "gap"
            if name == "reset" or (
                name == "problem" and msgspec.json.decode(fields["data"], type=Problem).status != AWAY
            ):
                self.wrong.append(f"{self.name} was told {name}: {fields['data']}")
            if name in {None, "gap", "problem", "reset"}:
                continue
            self._note(fields, pushes)
            if self.done or self._dice.random() < LEAVES:
                break
        connection.leave()
        queue = self.job_id.rpartition(".")[0]
        line = Heard(reader=self.name, queue=queue, job=self.job_id, after=after, pushes=tuple(pushes), gap=gap)
        self.heard.append(line)

    def _refused(self, document: str) -> None:
        if msgspec.json.decode(document, type=Problem).status != AWAY:
            self.wrong.append(f"{self.name} was refused: {document}")

    def _note(self, fields: dict[str, str], pushes: list[Push]) -> None:
        event = msgspec.json.decode(fields["data"], type=Event)
        epoch, _, offset = fields["id"].partition("-")
        self._epoch, self._last = int(epoch), int(offset)
        pushes.append(Push(offset=self._last, type=event.type, job=event.job, state=event.state))
        self.done = event.state is not None and event.state.terminal


def _fields(frame: bytes) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in frame.decode().splitlines() if ": " in line)

"""Steady traffic for a rig: jobs of many sorts at a rate, each waited for, with how long answers and starts took."""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import quantiles
from typing import Final, Self

from hostler.chaos.load import MIXED, Group, Planned, plan
from hostler.client import Fleet, JobHandle, connect
from hostler.contracts.job import Job, JobRequest
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds

CHUNK: Final[Seconds] = 30.0
"""The load is drawn for so long at a time."""
END: Final[Seconds] = 120.0
"""For a job to end once it was taken."""
ENOUGH: Final = 10
"""A percentile of fewer says nothing."""
CANCELLING: Final = "enough"
_MIX: Final = {group: share for group, share in MIXED.items() if group not in (Group.UNSERVABLE, Group.METERED)}
_OPTIONS: Final = tuple(name for name in JobRequest.__struct_fields__ if name not in ("kind", "payload"))


class Traffic:
    """`async with` connects; `perform` submits for so long, and `take` hands out what was measured since."""

    def __init__(self, urls: Sequence[str], *, seed: int, rate: float, run: str) -> None:
        self.submitted = 0
        """Distinct jobs that were acknowledged."""
        self.ended: Counter[str] = Counter()
        """Of those, as their clients saw them end."""
        self.failures: Counter[str] = Counter()
        """What clients were told instead of an answer, by sentence."""
        self._urls, self._seed, self._rate, self._run = urls, seed, rate, run
        self._stack = AsyncExitStack()
        self._fleets: tuple[Fleet, ...] = ()
        self._turn = itertools.count()
        self._answers: list[Seconds] = []
        self._waits: list[Seconds] = []

    async def __aenter__(self) -> Self:
        self._fleets = tuple([await self._stack.enter_async_context(connect(url)) for url in self._urls])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def perform(self, seconds: Seconds) -> None:
        """Submit at the rate for so long, and wait until everything that was taken has ended."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(max(1, round(seconds / CHUNK))):
                length = min(CHUNK, seconds)
                jobs = max(1, round(self._rate * length))
                run = f"{self._run}-{number}"
                for planned in plan(self._seed + number, jobs=jobs, seconds=length, run=run, mix=_MIX, poison=0):
                    await asyncio.sleep(max(0.0, began + number * CHUNK + planned.at - time.monotonic()))
                    group.create_task(self._one(planned))

    def take(self) -> dict[str, Seconds]:
        """Return percentiles of what clients saw since the last time; what is too little is kept for the next."""
        return _percentiles("submit", self._answers) | _percentiles("wait", self._waits)

    async def _one(self, planned: Planned) -> None:
        try:
            handle = await self._submit(planned)
            if planned.cancel_after is not None:
                await asyncio.sleep(planned.cancel_after)
                with contextlib.suppress(HostlerError):  # it has ended already
                    await handle.cancel(reason=CANCELLING)
            job = await handle.wait(timeout=END)
        except (TimeoutError, HostlerError) as error:
            self.failures[str(error)] += 1
            return
        if handle.created:
            self._note(job, planned)

    async def _submit(self, planned: Planned) -> JobHandle:
        request = planned.request
        options = {name: getattr(request, name) for name in _OPTIONS if getattr(request, name) is not None}
        fleet = self._fleets[next(self._turn) % len(self._fleets)]
        began = time.monotonic()
        handle = await fleet.submit(request.kind, request.payload, **options)
        self._answers.append(time.monotonic() - began)
        self.submitted += handle.created
        return handle

    def _note(self, job: Job, planned: Planned) -> None:
        self.ended[job.state.value] += 1
        prompt = planned.group not in (
            Group.DELAYED,
            Group.KEYED,
            Group.CANCELLED,
        )  # nothing but the line is waited for
        if prompt and job.started_at is not None:
            self._waits.append((job.started_at - job.created_at).total_seconds())


def _percentiles(name: str, values: list[Seconds]) -> dict[str, Seconds]:
    if len(values) < ENOUGH:
        return {}
    cuts = quantiles(values, n=100, method="inclusive")
    values.clear()
    return {f"{name} p50": cuts[49], f"{name} p99": cuts[98]}

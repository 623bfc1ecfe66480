"""What a simulated service makes of the time that a caller has: it ends the run by itself when that is over."""

import asyncio
import contextlib
import math

from hostler.kernel.units import Seconds
from hostler.testing.sims.work import ENDED, Run, SimulatedWork


class Deadlines:
    """Ends of runs whose time is over, whoever watches."""

    def __init__(self, work: SimulatedWork) -> None:
        self._work = work
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def set(self, seconds: Seconds | None, run: Run) -> None:
        """Stop a run when its time is over, whoever watches; a later submit of the same run says it anew."""
        known = self._tasks.pop(run.job, None)
        if known is not None:
            known.cancel()
        if seconds is not None and math.isfinite(seconds):
            task = asyncio.create_task(self._end(max(0.0, seconds), run), name=f"deadline of {run.job}")
            self._tasks[run.job] = task

    async def _end(self, seconds: Seconds, run: Run) -> None:
        # Not `wait_for`: before Python 3.12 it loses a cancel that comes together with a change.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while run.state not in ENDED:
                    await run.changed.wait()
        self._tasks.pop(run.job, None)
        if run.state not in ENDED and self._work.runs.get(run.job) is run:
            await self._work.cancel(run.job, run.fence, why="deadline")

    async def close(self) -> None:
        """Forget them all."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""A model for tests that Cog serves: it counts its runs, and its moods are read from files beside it."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cog

HERE = Path(__file__).parent
pause_for = time.sleep  # noqa: TID251 - a model takes time, in a process of its own


class Runner:
    def setup(self) -> None:
        if (HERE / "broken").exists():
            raise RuntimeError("the weights are not there")
        while (HERE / "late").exists():
            pause_for(0.05)

    @cog.streaming
    def run(
        self,
        prompt: str = cog.Input(description="What to say"),
        steps: int = cog.Input(default=5, ge=1, le=10_000),
        pause: float = cog.Input(default=0.02, ge=0),
        fail: str = cog.Input(default=""),
    ) -> Iterator[str]:
        with (HERE / "runs").open("a") as runs:
            runs.write("x")
        hangs = (HERE / "hang").exists()
        for step in range(steps):
            sys.stdout.write(f"step {step + 1} of {steps}\n")
            sys.stdout.flush()
            yield f"{prompt} "
            while hangs and step:
                pause_for(0.01)
            pause_for(pause)
        if fail:
            raise RuntimeError(fail)

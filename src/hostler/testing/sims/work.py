"""The work of a simulated service, whatever protocol asks for it: runs, slots, fences."""

import asyncio
import struct
import zlib
from collections import deque
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from hostler.kernel.units import Seconds
from hostler.testing.sims.effects import EffectLog
from hostler.testing.sims.knobs import Fate, SimKnobs, chance

State = Literal["pending", "running", "succeeded", "failed", "cancelled"]
ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
T = TypeVar("T")


class RequestRefusedError(Exception):
    """The service says no; `status` is how HTTP says it."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: Seconds | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


class ImageInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `image.generate` takes."""

    prompt: Annotated[str, Meta(min_length=1, max_length=20_000)]
    width: Annotated[int, Meta(ge=8, le=8192)] = 512
    height: Annotated[int, Meta(ge=8, le=8192)] = 512
    steps: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    seed: int | None = None
    model: str | None = None
    duration: Seconds | None = None


class EchoInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `sim.echo` takes, and gives back as it is."""

    value: Raw
    steps: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    duration: Seconds | None = None


INPUTS: Final[dict[str, type[ImageInput | EchoInput]]] = {"image.generate": ImageInput, "sim.echo": EchoInput}


class Submission(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a submit."""

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    fence: Annotated[int, Meta(ge=1)]
    kind: str
    input: Raw


class Run:
    """One execution of one job."""

    def __init__(self, submission: Submission, asked: ImageInput | EchoInput, *, number: int, knobs: SimKnobs) -> None:
        self.job = submission.id
        self.kind = submission.kind
        self.sealed = bytes(submission.input)
        self.asked = asked
        self.fence = submission.fence
        self.number = number
        self.seed = knobs.seed
        self.steps = asked.steps or knobs.steps
        self.duration = knobs.duration if asked.duration is None else asked.duration
        self.fate = Fate.draw(knobs, self.job, number, self.steps)
        self.state: State = "pending"
        self.step = 0
        self.error: dict[str, str] | None = None
        self.result: Any = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.dropped = False
        self.ending = False
        """Its end is being recorded: too late to cancel."""

    def view(self) -> dict[str, Any]:
        """Return how it is."""
        rest = self.duration * (1 - self.step / self.steps)
        return {
            "id": self.job,
            "fence": self.fence,
            "run": self.number,
            "state": self.state,
            "fraction": self.step / self.steps,
            "stage": {"pending": "queued", "running": "sampling"}.get(self.state, self.state),
            "message": f"step {self.step} of {self.steps}",
            "eta_s": round(rest, 3),
        }

    def say(self, event: str) -> None:
        """Append an event with the present view and wake those who follow."""
        self.events.append((event, self.view()))
        self.wake()

    def wake(self) -> None:
        """Wake those who follow."""
        self.changed.set()
        self.changed = asyncio.Event()


class SimulatedWork:
    """Accepts, runs, cancels and forgets jobs.

    The highest fence of each job is kept for the life of the service; a lower one is refused. A higher
    fence takes over a run that goes on or went well, so that nothing is executed twice; after one that
    failed or was cancelled it starts a new run.
    """

    def __init__(self, knobs: SimKnobs, effects: EffectLog) -> None:
        self.knobs = knobs
        self.effects = effects
        self.runs: dict[str, Run] = {}
        self._fences: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._waiting: deque[Run] = deque()
        self._running: set[Run] = set()

    @property
    def busy(self) -> int:
        """Runs that hold a slot."""
        return len(self._running)

    async def submit(self, body: Submission) -> tuple[Run, bool]:
        """Return the run of this job and whether it is new; idempotent by job and fence."""
        shape = INPUTS.get(body.kind)
        if shape is None:
            raise RequestRefusedError(404, "unknown_kind", f"no such kind here: {body.kind}")
        asked = _decode(bytes(body.input), shape)
        model = asked.model if isinstance(asked, ImageInput) else None
        if model is not None and model not in self.knobs.models:
            raise RequestRefusedError(404, "unknown_model", f"model {model!r} is not installed")
        await self._judge(body.id, body.fence)
        known = self.runs.get(body.id)
        if known is not None and known.fence == body.fence:
            if known.sealed != bytes(body.input):
                raise RequestRefusedError(409, "input_conflict", "this job and fence came with another input before")
            return known, False
        if known is not None and known.state not in {"failed", "cancelled"}:
            await self._adopt(known, body.fence)
            return known, False
        if len(self._running) >= self.knobs.slots and len(self._waiting) >= self.knobs.backlog:
            raise RequestRefusedError(429, "overloaded", "every slot is busy", retry_after=self.knobs.retry_after)
        number = self._counts[body.id] = self._counts.get(body.id, 0) + 1
        run = Run(body, asked, number=number, knobs=self.knobs)
        self.runs[body.id] = run
        self._fences[body.id] = body.fence
        self._waiting.append(run)
        self.dispatch()
        return run, True

    def find(self, job: str) -> Run:
        """Return the latest run of a job."""
        run = self.runs.get(job)
        if run is None:
            raise RequestRefusedError(404, "unknown_job", f"no such job: {job}")
        return run

    async def take_over(self, job: str, fence: int) -> Run:
        """Hand a run to a holder with a higher fence; idempotent."""
        run = self.find(job)
        await self._judge(job, fence)
        if fence > run.fence:
            await self._adopt(run, fence)
        return run

    async def cancel(self, job: str, fence: int, *, why: str | None = None) -> Run:
        """Stop a run at once; one that has ended stays as it is."""
        run = self.find(job)
        await self._judge(job, fence)
        if run.ending and run.task is not None:
            await asyncio.wait({run.task})
        if run.state in ENDED:
            return run
        if run in self._waiting:
            self._waiting.remove(run)
        if run.task is not None:
            run.task.cancel()
        run.state = "cancelled"
        await self.effects.append("cancelled", job, run.fence, run.number, why)
        run.say("done")
        return run

    async def release(self, job: str, fence: int) -> None:
        """Forget a run and stop it if it goes on; the fence stays known. Idempotent."""
        if job not in self.runs:
            return
        run = await self.cancel(job, fence)
        if self.runs.get(job) is run:
            del self.runs[job]

    def dispatch(self) -> None:
        """Start what waits while there are slots."""
        while self._waiting and len(self._running) < self.knobs.slots:
            run = self._waiting.popleft()
            self._running.add(run)
            run.state = "running"
            run.task = asyncio.create_task(self._execute(run), name=f"run {run.job}")

    async def close(self) -> None:
        """Stop everything, as a service that is switched off does: without a word."""
        self._waiting.clear()
        tasks = [run.task for run in self._running if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for run in self.runs.values():
            run.wake()

    async def _judge(self, job: str, fence: int) -> None:
        highest = self._fences.get(job, 0)
        if fence < highest:
            known = self.runs.get(job)
            await self.effects.append("refused", job, fence, known.number if known else 0, f"stale: {highest} is known")
            raise RequestRefusedError(409, "stale_fence", f"fence {fence} is stale: {highest} is known")

    async def _adopt(self, run: Run, fence: int) -> None:
        run.fence = self._fences[run.job] = fence
        await self.effects.append("adopted", run.job, fence, run.number, run.state)

    async def _execute(self, run: Run) -> None:
        try:
            await self.effects.append("started", run.job, run.fence, run.number)
            run.say("progress")
            for step in range(1, run.steps + 1):
                half = 2 * step > run.steps
                if run.fate.hangs and half:
                    await asyncio.Event().wait()
                await asyncio.sleep(run.duration / run.steps)
                if run.fate.failure is not None and half:
                    run.error = {"code": run.fate.failure, "message": f"simulated: {run.fate.failure}"}
                    run.ending = True
                    await self.effects.append("failed", run.job, run.fence, run.number, run.fate.failure)
                    run.state = "failed"
                    run.say("done")
                    return
                run.step = step
                if step < run.steps:
                    run.say("progress")
            run.result = _product(run)
            run.ending = True
            await self.effects.append("finished", run.job, run.fence, run.number)
            run.state = "succeeded"
            if not run.fate.missed:
                run.say("done")
        finally:
            self._running.discard(run)
            self.dispatch()


def _decode(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.MsgspecError as error:
        raise RequestRefusedError(400, "invalid_input", str(error)) from None


def _product(run: Run) -> Any:
    if isinstance(run.asked, EchoInput):
        return run.asked.value
    asked = run.asked
    seed = asked.seed if asked.seed is not None else int(chance(run.seed, run.job, "image seed") * 2**31)
    return {
        "prompt": asked.prompt,
        "width": asked.width,
        "height": asked.height,
        "steps": run.steps,
        "seed": seed,
        "model": asked.model,
        "preview_png": preview(seed, asked.prompt),
    }


def preview(seed: int, prompt: str, *, side: int = 16) -> bytes:
    """Draw a small picture that follows from seed and prompt: a true PNG (msgspec writes it as base64)."""
    tint = [int(chance(seed, prompt, channel) * 256) for channel in range(3)]
    rows = b"".join(
        b"\0" + bytes((tint[c] + (x, y, x ^ y)[c] * 8) % 256 for x in range(side) for c in range(3))
        for y in range(side)
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

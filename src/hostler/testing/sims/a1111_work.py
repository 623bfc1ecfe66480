"""What goes on inside a simulated A1111: one lock, one state, task ids, and a model that is loaded."""

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct, field

from hostler.kernel.units import Fraction, Seconds
from hostler.testing.sims.effects import EffectLog
from hostler.testing.sims.knobs import chance
from hostler.testing.sims.pictures import picture

FAILURES: Final[dict[str, tuple[str, str]]] = {
    "out_of_memory": ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB."),
    "nans": ("NansException", "A tensor with all NaNs was produced in Unet."),
    "runtime": ("RuntimeError", "Sizes of tensors must match except in dimension 1."),
}
"""By knob: the exception that the run ends with, and its words."""
FINISHED: Final = 16
"""Tasks that have ended and are still known."""


class A1111Knobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All knobs; each rate is the share of runs (or requests) that it strikes, drawn from the seed and a count."""

    duration: Seconds = 1.0
    """How long one run takes, whatever its steps."""
    load: Seconds = 0.0
    """How long it takes to load another checkpoint."""
    failures: dict[str, Fraction] = field(default_factory=dict[str, float])
    """Share of runs that end with each of `FAILURES`."""
    hang_rate: Fraction = 0.0
    """Runs that stop moving half-way, until they are interrupted."""
    drop_rate: Fraction = 0.0
    """Requests whose connection is cut half-way; the run goes on."""
    burst_rate: Fraction = 0.0
    """Requests to `/sdapi` that begin a burst of server errors."""
    burst_length: Annotated[int, Meta(ge=1, le=10_000)] = 5
    gpu_lost_rate: Fraction = 0.0
    """Questions for the memory that say that the GPU is lost."""
    models: Annotated[tuple[str, ...], Meta(min_length=1)] = ("sim-small", "sim-large")
    webui: bool = True
    """Whether `/internal` is served (it is not with `--nowebui`)."""
    auth: str | None = None
    """`user:password` for `/sdapi`, as with `--api-auth`."""
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.failures) - set(FAILURES))
        if unknown:
            raise ValueError(f"unknown failures {', '.join(unknown)}; there are {', '.join(FAILURES)}")


class ApiError(Exception):
    """The server says no, as its middleware writes it."""

    def __init__(self, status: int, error: str, *, detail: Any = "", errors: str = "") -> None:
        super().__init__(errors or str(detail))
        self.status = status
        self.body = {"error": error, "detail": detail, "body": "", "errors": errors}


class State:
    """`shared.state`: there is one, whoever's work is running."""

    def __init__(self) -> None:
        self.skipped = self.interrupted = self.stopping_generation = False
        self.job, self.job_timestamp = "", "0"
        self.job_count = self.job_no = self.sampling_step = self.sampling_steps = 0
        self.started = 0.0
        self.wake = asyncio.Event()
        """Set when something was asked of the run."""

    def begin(self, job: str) -> None:
        """Start a job: what was asked of the one before is forgotten."""
        self.skipped = self.interrupted = self.stopping_generation = False
        self.job, self.job_timestamp = job, datetime.now(UTC).strftime("%Y%m%d%H%M%S")
        self.job_count, self.job_no, self.sampling_step = -1, 0, 0
        self.started = time.monotonic()
        self.wake.clear()

    def end(self) -> None:
        """End the job; its flags stay as they are."""
        self.job, self.job_count = "", 0

    @property
    def fraction(self) -> float:
        """How far the job is."""
        if self.job_count <= 0:
            return 0.0
        step = self.sampling_step / self.sampling_steps if self.sampling_steps else 0.0
        return min((self.job_no + step) / self.job_count, 1.0)

    @property
    def eta(self) -> float | None:
        """Seconds that are left, by what went before."""
        done = self.fraction
        return None if done <= 0 else (time.monotonic() - self.started) * (1 / done - 1)

    def view(self) -> dict[str, Any]:
        """Return it as `/sdapi/v1/progress` shows it."""
        names = ("skipped", "interrupted", "stopping_generation", "job", "job_count", "job_timestamp", "job_no")
        return {name: getattr(self, name) for name in (*names, "sampling_step", "sampling_steps")}


class A1111Work:
    """Runs one piece of work after the other; nobody who waits is told so, but by the task list."""

    def __init__(self, knobs: A1111Knobs, effects: EffectLog) -> None:
        self.knobs = knobs
        self.effects = effects
        self.state = State()
        self.loaded = knobs.models[0]
        self.pending: dict[str, float] = {}
        self.current: str | None = None
        self.finished: list[str] = []
        self.lock = asyncio.Lock()
        """Held by whoever's work runs; the others wait in order."""
        self._runs = 0

    @property
    def busy(self) -> int:
        """1 while work goes on."""
        return int(self.lock.locked())

    def model(self, name: str) -> str | None:
        """Return the checkpoint of a name, title or hash; None for one that is not there."""
        forms = {form: model for model in self.knobs.models for form in (model, title(model), short_hash(model))}
        return forms.get(name)

    async def load(self, model: str) -> None:
        """Load a checkpoint, if it is another than the one that is loaded."""
        if model != self.loaded:
            await asyncio.sleep(self.knobs.load)
            self.loaded = model

    async def generate(self, mode: str, asked: dict[str, Any], task: str, cut: Callable[[], None]) -> dict[str, Any]:
        """Make pictures; `cut` cuts the connection of who asked."""
        self.pending[task] = time.monotonic()
        async with self.lock:
            self._runs += 1
            number = self._runs
            try:
                self.state.begin(f"scripts_{mode}")
                self.pending.pop(task, None)
                self.current = task
                await self.effects.append("started", task, 0, number)
                made = await self._process(asked, task, number, cut)
                # As in the original, not in a `finally`: after a failure the task is still called active.
                self.current = None
                self.finished = [*self.finished, task][-FINISHED:]
            finally:
                self.state.end()
        return made

    async def upscale(self) -> None:
        """Take the lock and some time; such work has no task id."""
        async with self.lock:
            self._runs += 1
            self.state.begin("extras")
            try:
                await self.effects.append("started", "extras", 0, self._runs)
                await asyncio.sleep(self.knobs.duration)
                await self.effects.append("finished", "extras", 0, self._runs)
            finally:
                self.state.end()

    async def _process(self, asked: dict[str, Any], task: str, number: int, cut: Callable[[], None]) -> dict[str, Any]:
        knobs, state = self.knobs, self.state
        async with self._settings(asked):
            batch, rounds, steps = int(asked["batch_size"]), int(asked["n_iter"]), int(asked["steps"])
            seed = int(asked["seed"])
            seed = int(chance(knobs.seed, task, number, "seed") * 2**32) if seed < 0 else seed
            fate = Fate.draw(knobs, number)
            state.job_count, state.sampling_steps = rounds, steps
            for turn in range(rounds):
                if state.interrupted:
                    break
                state.skipped = False
                for step in range(steps):
                    await self._step(fate, number, half=turn == rounds // 2 and step == steps // 2, cut=cut)
                    if state.interrupted or state.skipped:
                        break
                    await asyncio.sleep(knobs.duration / (steps * rounds))
                    state.sampling_step = step + 1
                state.job_no, state.sampling_step = turn + 1, 0
            images = await asyncio.to_thread(_images, asked, seed, batch * rounds)
            end = "cancelled" if state.interrupted else "finished"
            await self.effects.append(end, task, 0, number)
            return _answer(asked, seed, images, model=self.loaded, timestamp=state.job_timestamp)

    async def _step(self, fate: "Fate", number: int, *, half: bool, cut: Callable[[], None]) -> None:
        if not half:
            return
        if fate.drops:
            cut()
        if fate.hangs:
            await self.state.wake.wait()
        if fate.failure is not None:
            error, words = FAILURES[fate.failure]
            await self.effects.append("failed", self.current or "", 0, number, fate.failure)
            raise ApiError(500, error, errors=words)

    @asynccontextmanager
    async def _settings(self, asked: dict[str, Any]) -> AsyncGenerator[None]:
        """Load what is asked for; a checkpoint that is not there is ignored without a word."""
        before = self.loaded
        override: dict[str, Any] = asked.get("override_settings") or {}
        wanted = self.model(str(override.get("sd_model_checkpoint", "")))
        if wanted is not None:
            await self.load(wanted)
        yield
        if asked.get("override_settings_restore_afterwards", True):
            await self.load(before)


class Fate(Struct, frozen=True, kw_only=True):
    """What one run is going to meet."""

    failure: str | None
    hangs: bool
    drops: bool

    @classmethod
    def draw(cls, knobs: A1111Knobs, number: int) -> "Fate":
        """Draw the fate of the n-th run."""
        roll = chance(knobs.seed, number, "failure")
        failure = None
        for name in FAILURES:
            roll -= knobs.failures.get(name, 0.0)
            if roll < 0:
                failure = name
                break
        return cls(
            failure=failure,
            hangs=chance(knobs.seed, number, "hang") < knobs.hang_rate,
            drops=chance(knobs.seed, number, "drop") < knobs.drop_rate,
        )


def short_hash(model: str) -> str:
    """Return the ten hex digits that the web UI names a checkpoint by."""
    return f"{int(chance(0, model) * 16**10):010x}"


def title(model: str) -> str:
    """Return the title of a checkpoint."""
    return f"{model}.safetensors [{short_hash(model)}]"


def _images(asked: dict[str, Any], seed: int, count: int) -> list[str]:
    size = {"width": int(asked["width"]), "height": int(asked["height"])}
    return [encoded(picture(seed + index, str(asked["prompt"]), **size)) for index in range(count)]


def encoded(image: bytes) -> str:
    """Return a picture in base64."""
    return base64.b64encode(image).decode()


def _answer(asked: dict[str, Any], seed: int, images: list[str], *, model: str, timestamp: str) -> dict[str, Any]:
    seeds = [seed + index for index in range(len(images))]
    words = f"{asked['prompt']}\nSteps: {asked['steps']}, Sampler: {asked['sampler_name']}, Model: {model}"
    texts = [f"{words}, Seed: {one}" for one in seeds]
    first = 0
    if asked.get("save_images") and len(images) > 1:  # a grid is made where pictures are saved
        images, texts, first = [images[0], *images], [texts[0], *texts], 1
    info = {
        "prompt": asked["prompt"],
        "all_prompts": [asked["prompt"]] * len(seeds),
        "negative_prompt": asked["negative_prompt"],
        "seed": seed,
        "all_seeds": seeds,
        "width": asked["width"],
        "height": asked["height"],
        "sampler_name": asked["sampler_name"],
        "steps": asked["steps"],
        "batch_size": asked["batch_size"],
        "sd_model_name": model,
        "sd_model_hash": short_hash(model),
        "index_of_first_image": first,
        "infotexts": texts,
        "job_timestamp": timestamp,
        "version": "v1.10.1",
    }
    sent = images if asked.get("send_images", True) else []
    return {"images": sent, "parameters": asked, "info": msgspec.json.encode(info).decode()}

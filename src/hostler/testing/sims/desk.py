"""What every simulated service answers, whatever protocol carries it: health, knobs, effects, and how work is."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Self

import msgspec
from msgspec import Meta, Struct

from hostler.kernel.units import Seconds
from hostler.testing.sims.deadlines import Deadlines
from hostler.testing.sims.effects import EffectLog
from hostler.testing.sims.knobs import SimKnobs, chance
from hostler.testing.sims.work import ENDED, INPUTS, RequestRefusedError, Run, SimulatedWork, Submission

VERSION: Final = "1.0"
KEEPALIVE: Final[Seconds] = 5.0
"""How often a silent stream shows that it is still there."""


class FenceBody(Struct, frozen=True, kw_only=True):
    """Body of takeover, cancel and release."""

    fence: Annotated[int, Meta(ge=1)]


class StreamCutError(Exception):
    """A knob wants the connection cut here, as a dying network does: no goodbye."""


class SimulatedDesk:
    """The work of one simulated service and what is said about it; raises `RequestRefusedError` for a no."""

    def __init__(self, knobs: SimKnobs | None = None, *, effects: Path | None = None) -> None:
        self.effects = EffectLog(effects)
        self.work = SimulatedWork(knobs or SimKnobs(), self.effects)
        self._deadlines = Deadlines(self.work)
        self._started = time.monotonic()
        self._requests = self._checks = self._burst = 0
        self._closing = False

    async def __aenter__(self) -> Self:
        await self.effects.__aenter__()
        self._started = time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        await self.effects.__aexit__(kind, value, trace)

    async def stop(self) -> None:
        """Stop all work and all streams, without a word."""
        self._closing = True
        await self._deadlines.close()
        await self.work.close()

    @property
    def knobs(self) -> SimKnobs:
        """The knobs as they are now; they may be set at any time and hold for runs that begin after."""
        return self.work.knobs

    @knobs.setter
    def knobs(self, knobs: SimKnobs) -> None:
        self.work.knobs = knobs
        self.work.dispatch()

    def change(self, body: bytes) -> SimKnobs:
        """Change the knobs that the body names; the others stay."""
        change = decode(body, dict[str, Any])
        try:
            self.knobs = msgspec.convert({**msgspec.structs.asdict(self.knobs), **change}, SimKnobs)
        except msgspec.ValidationError as error:
            raise RequestRefusedError(400, "invalid_input", str(error)) from None
        return self.knobs

    def burst(self) -> None:
        """Refuse a request about jobs when it is in a burst of server errors."""
        self._requests += 1
        if not self._burst and chance(self.knobs.seed, "burst", self._requests) < self.knobs.burst_rate:
            self._burst = self.knobs.burst_length
        if self._burst:
            self._burst -= 1
            status = (500, 502, 503)[self._burst % 3]
            raise RequestRefusedError(status, "burst", "simulated server error")

    @property
    def _loads(self) -> bool:
        return time.monotonic() - self._started < self.knobs.loading

    def health(self) -> dict[str, Any]:
        """Say how the service is; its `state` is `ready` when it is well."""
        self._checks += 1
        state = "loading" if self._loads else "ready"
        if chance(self.knobs.seed, "health", self._checks) < self.knobs.health_failure_rate:
            state = "unhealthy"
        return {"state": state, "version": VERSION, "slots": self.knobs.slots, "busy": self.work.busy}

    def capabilities(self) -> dict[str, Any]:
        """Say what the service has."""
        knobs = self.knobs
        return {
            "version": VERSION,
            "kinds": sorted(INPUTS),
            "models": knobs.models,
            "slots": knobs.slots,
            "labels": knobs.labels,
        }

    def page(self, after: int) -> dict[str, Any]:
        """Return the effects above a number, and where to go on."""
        effects = self.effects.after(after)
        return {"effects": effects, "next": after + len(effects)}

    async def submit(self, body: bytes, *, seconds_left: Seconds | None = None) -> tuple[dict[str, Any], bool]:
        """Take work, which ends by itself after `seconds_left`; return how it is, and whether it is new."""
        if self._loads:
            raise RequestRefusedError(503, "loading", "not ready yet", retry_after=self.knobs.retry_after)
        run, new = await self.work.submit(decode(body, Submission))
        self._deadlines.set(seconds_left, run)
        return run.view(), new

    def status(self, job: str) -> dict[str, Any]:
        """Say how a job is."""
        return self.work.find(job).view()

    def result(self, job: str) -> dict[str, Any]:
        """Say how a job ended."""
        run = self.work.find(job)
        if run.state not in ENDED:
            raise RequestRefusedError(409, "not_ended", f"the job is {run.state}")
        return {**run.view(), "result": run.result, "error": run.error}

    async def take_over(self, job: str, body: bytes) -> dict[str, Any]:
        """Hand a run to a holder with a higher fence."""
        return (await self.work.take_over(job, decode(body, FenceBody).fence)).view()

    async def cancel(self, job: str, body: bytes) -> dict[str, Any]:
        """Stop a run."""
        return (await self.work.cancel(job, decode(body, FenceBody).fence)).view()

    async def release(self, job: str, body: bytes) -> None:
        """Forget a run."""
        await self.work.release(job, decode(body, FenceBody).fence)

    async def follow(self, job: str, cursor: str) -> AsyncGenerator[tuple[str, str, dict[str, Any]] | None]:
        """Yield event, cursor and view from after `cursor` on, until `done`; None where nothing is new.

        Raises `StreamCutError` where the run's fate wants it.
        """
        run = self.work.find(job)
        sent = _resume(run, cursor)
        while not self._closing:
            changed = run.changed
            while sent < len(run.events):
                event, view = run.events[sent]
                if run.fate.drop_at is not None and not run.dropped and sent >= run.fate.drop_at:
                    run.dropped = True
                    raise StreamCutError
                sent += 1
                yield event, f"{run.number}-{sent}", view
                if event == "done":
                    return
            try:
                await asyncio.wait_for(changed.wait(), KEEPALIVE)
            except TimeoutError:
                yield None


def decode(body: bytes, shape: Any) -> Any:
    """Read what a caller sent."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise RequestRefusedError(400, "invalid_input", str(error)) from None


def number(text: str, name: str) -> int:
    """Read a number of a caller."""
    if not text.isdecimal():
        raise RequestRefusedError(400, "invalid_input", f"{name} is a whole number, not {text!r}")
    return int(text)


def _resume(run: Run, last: str) -> int:
    counted, _, sent = last.partition("-")
    if counted != str(run.number) or not sent.isdecimal():
        return 0
    return min(int(sent), len(run.events))

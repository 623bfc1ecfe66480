"""The watch over the engine goes on, whatever breaks in it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from structlog.testing import capture_logs

from hostler.kernel.errors import EngineUnavailableError, HostlerError
from hostler.testing.eventually import eventually
from hostler.valkeyio.pulse import Pulse

AT_MOST = 20.0


class Patient:
    """An engine that is down until it is healed, by a healer that may break."""

    def __init__(self, *surprises: Exception) -> None:
        self.surprises = list(surprises)
        self.well = False
        self.tried = 0

    async def ask(self) -> None:
        if not self.well:
            raise EngineUnavailableError("it is down")

    async def heal(self, _: HostlerError) -> None:
        self.tried += 1
        if self.surprises:
            raise self.surprises.pop(0)
        self.well = True

    async def broken_ask(self) -> None:
        if self.surprises:
            raise self.surprises.pop(0)


async def nothing() -> None:
    pass


@asynccontextmanager
async def watching(
    ask: Callable[[], Awaitable[None]], heal: Callable[[HostlerError], Awaitable[None]]
) -> AsyncGenerator[Pulse]:
    pulse = Pulse(ask=ask, heal=heal, recovered=nothing)
    task = asyncio.create_task(pulse.run())
    try:
        yield pulse
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_healer_that_breaks_with_what_nobody_expects_is_tried_again() -> None:
    patient = Patient(ValueError("a surprise"), OSError("another one"))
    with capture_logs() as logs:
        async with watching(patient.ask, patient.heal) as pulse:
            await pulse.until_down()
            await pulse.until_up(timeout=AT_MOST)
            assert (patient.tried, pulse.defects) == (3, 2)
            assert pulse.reason is None
    assert [log["log_level"] for log in logs if log["event"] == "watching the engine broke"] == ["error"] * 2


async def test_a_question_that_breaks_leaves_the_engine_down_and_says_so_until_it_can_be_asked() -> None:
    patient = Patient(RuntimeError("what is secret stays in the log"))
    with capture_logs():
        async with watching(patient.broken_ask, patient.heal) as pulse:
            await pulse.until_down()
            assert pulse.reason is not None
            assert "RuntimeError" in pulse.reason.message
            assert "secret" not in pulse.reason.message
            await eventually(lambda: pulse.up, within=AT_MOST)
            assert pulse.defects == 1

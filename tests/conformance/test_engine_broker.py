"""The broker on the engine keeps every promise that the model keeps."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest

from hostler.broker.desk import EngineDesk
from hostler.broker.engine import EngineBroker
from hostler.broker.foreman import EngineForeman
from hostler.kernel.settings import EngineSettings
from hostler.registry.engine import EngineRegistry
from hostler.testing.broker import BrokerConformance, BrokerHarness
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.library import Library
from hostler.valkeyio.library_text import Build


class _Clock:
    """The engine's clock in a test build: one key per queue; what has a time to live ages with it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    async def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        micros = (self._now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        for queue in ("reg", "default", "main", "side", "afield"):
            await self._engine.command("SET", f"h:{{{queue}}}:clock", micros)
        for key in await self._engine.command("KEYS", "*"):
            left = await self._engine.command("PTTL", key)
            if left > 0:
                await self._engine.command("PEXPIRE", key, max(1, left - round(seconds * 1000)))


class TestEngineBroker(BrokerConformance):
    @pytest.fixture
    async def harness(self, engine_settings: EngineSettings) -> AsyncGenerator[BrokerHarness]:
        async with Engine.open(engine_settings, role="test") as engine:
            library = Library(engine, build=Build(clock="key"))
            await library.replace()
            clock = _Clock(engine)
            await clock.advance(0.0)
            broker = EngineBroker(engine, library=library)
            desk = EngineDesk(engine, library=library)

            async def restart() -> None:
                await engine.command("HSET", "h:{main}:meta", "run", "another")

            yield BrokerHarness(
                broker=broker,
                desk=desk,
                foreman=EngineForeman(engine, library=library),
                registry=EngineRegistry(engine, library=library),
                now=clock.now,
                advance=clock.advance,
                restart=restart,
            )
            await broker.aclose()
            await desk.aclose()
            await Library(engine).replace()

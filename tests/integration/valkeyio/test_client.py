"""The client: bounded in time and connections, and never a reply that belongs to another call."""

import asyncio
import os
import signal
import time
from typing import cast

import pytest

from hostler.cli.processes import engine_gauges
from hostler.kernel.errors import EngineTimeoutError, EngineUnavailableError
from hostler.kernel.settings import EngineSettings
from hostler.telemetry.metrics import Metrics
from hostler.testing.eventually import eventually
from hostler.valkeyio.client import send
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.pipes import Piped

from .conftest import StartServer


@pytest.mark.row("002:20")
async def test_an_engine_stalled_for_five_seconds_blocks_nobody_and_each_call_ends_by_its_timeout(
    start_server: StartServer,
) -> None:
    server = await start_server({})
    settings = EngineSettings(url=server.url, command_timeout=0.5, connect_timeout=0.5, connections=4)
    async with Engine.open(settings, role="test") as engine:
        await asyncio.gather(*(engine.command("PING") for _ in range(4)))
        server.process.send_signal(signal.SIGSTOP)
        longest_turn = 0.0
        turning = asyncio.Event()

        async def turn() -> None:
            nonlocal longest_turn
            while not turning.is_set():
                before = time.perf_counter()
                await asyncio.sleep(0.01)  # not waiting: measures the loop
                longest_turn = max(longest_turn, time.perf_counter() - before)

        turner = asyncio.create_task(turn())
        stalled = time.perf_counter()
        while time.perf_counter() - stalled < 5.0:
            started = time.perf_counter()
            ends = await asyncio.gather(*(engine.command("GET", "a") for _ in range(12)), return_exceptions=True)
            took = time.perf_counter() - started
            assert {type(end) for end in ends} == {EngineTimeoutError}
            assert 0.5 <= took < 2.5, "a wait for a connection and a wait for the reply, each bounded"
        turning.set()
        await turner
        assert longest_turn < 0.4
        await eventually(lambda: not engine.up, within=5)
        server.process.send_signal(signal.SIGCONT)
        await engine.until_available(5)
        assert await engine.command("SET", "a", "1")


async def test_an_engine_that_is_gone_is_unavailable_at_once_and_used_again_when_it_is_back(
    engine_settings: EngineSettings, start_server: StartServer
) -> None:
    server = await start_server({})
    async with Engine.open(EngineSettings(url=server.url), role="test") as engine:
        server.process.kill()
        server.process.wait()
        for _ in range(3):
            with pytest.raises(EngineUnavailableError):
                await engine.command("PING")
        assert not await engine.available()
        with pytest.raises(EngineUnavailableError, match="has not come back within"):
            await engine.until_available(0.3)


async def test_a_caller_that_tries_in_a_tight_loop_starves_nobody(start_server: StartServer) -> None:
    server = await start_server({})
    async with Engine.open(EngineSettings(url=server.url), role="test") as engine:
        server.process.kill()
        server.process.wait()

        async def hammer() -> None:
            while True:
                with pytest.raises(EngineUnavailableError):
                    await engine.command("PING")

        hammering = asyncio.create_task(hammer())
        async with asyncio.timeout(5):
            await engine.until_down()
        hammering.cancel()
        await asyncio.wait({hammering})


@pytest.mark.row("002:29")
async def test_five_hundred_calls_at_once_share_few_connections_none_is_lost_and_their_waiting_is_a_metric(
    engine_settings: EngineSettings,
) -> None:
    settings = EngineSettings(url=engine_settings.url, connections=8)
    async with Engine.open(settings, role="crowd") as engine:
        replies = await asyncio.gather(*(engine.command("ECHO", f"call {n}") for n in range(500)))
        assert replies == [f"call {n}".encode() for n in range(500)]
        usage = engine.pools()["client"]
        assert usage.in_use == 0
        assert usage.waiting == 0
        assert 1 <= usage.idle <= usage.limit == 8
        assert usage.refused == 0
        names = [client["name"] for client in await engine.command("CLIENT LIST")]
        assert 1 <= names.count(f"hostler-crowd-{os.getpid()}") <= 8
        metrics = Metrics()
        for name, values in engine_gauges(engine).items():
            metrics.replace(name, values)
        series = dict(line.rsplit(" ", 1) for line in metrics.render().decode().splitlines() if line[0] != "#")
        assert float(series['hostler_engine_pool_waits_total{pool="client"}']) >= 450
        assert float(series['hostler_engine_pool_wait_seconds_total{pool="client"}']) > 0
        assert float(series['hostler_engine_pool_limit{pool="client"}']) == 8


async def test_waiting_for_a_connection_is_bounded_and_says_that_nothing_was_sent(
    engine_settings: EngineSettings,
) -> None:
    settings = EngineSettings(url=engine_settings.url, connections=1, command_timeout=1.0)
    async with Engine.open(settings, role="test") as engine:
        library = cast("Piped", engine.client)._client  # pyright: ignore[reportPrivateUsage] - to hold its only connection
        held = await library.connection_pool.get_connection()
        with pytest.raises(EngineTimeoutError, match="nothing was sent"):
            await engine.command("SET", "a", "1")
        await library.connection_pool.release(held)
        assert await engine.command("GET", "a") is None
        assert engine.pools()["client"].refused == 1


@pytest.mark.parametrize("connections", [1, 3])
async def test_a_cancelled_call_leaves_no_reply_for_the_next_and_loses_no_connection(
    engine_settings: EngineSettings, connections: int
) -> None:
    settings = EngineSettings(url=engine_settings.url, connections=connections)
    async with Engine.open(settings, role="test") as engine:
        for number in range(200):
            calls = [asyncio.create_task(engine.command("ECHO", f"cancelled {number} {n}")) for n in range(5)]
            for _ in range(number % 12):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert await engine.command("ECHO", f"kept {number}") == f"kept {number}".encode()
        usage = engine.pools()["client"]
        assert usage.in_use == 0
        assert usage.waiting == 0
        assert usage.idle <= connections


async def test_a_call_that_is_cancelled_is_really_cancelled(engine_settings: EngineSettings) -> None:
    async with Engine.open(engine_settings, role="test") as engine:
        for turns in range(60):
            call = asyncio.create_task(engine.command("PING"))
            for _ in range(turns % 4):
                await asyncio.sleep(0)
            assert call.cancel()
            await asyncio.wait({call})
            assert call.cancelled()


async def test_a_blocking_call_waits_longer_than_commands_may_and_holds_up_no_command(
    engine_settings: EngineSettings,
) -> None:
    settings = EngineSettings(url=engine_settings.url, command_timeout=0.3, connections=1)
    async with Engine.open(settings, role="test") as engine:
        waiting = asyncio.create_task(send(engine.blocking, "BLPOP", "list", 10))
        await eventually(lambda: engine.pools()["blocking"].in_use == 1)
        started = time.perf_counter()

        async def past_the_timeout_of_commands() -> bool:
            assert await engine.command("PING")
            return time.perf_counter() - started > 0.6

        await eventually(past_the_timeout_of_commands)
        await engine.command("RPUSH", "list", "item")
        assert list(await waiting) == [b"list", b"item"]


async def test_opening_waits_as_long_as_it_was_told_for_an_engine_that_is_not_there_yet(
    start_server: StartServer,
) -> None:
    server = await start_server({})
    server.process.kill()
    server.process.wait()
    started = time.perf_counter()
    with pytest.raises(EngineUnavailableError, match="unix://"):
        async with Engine.open(EngineSettings(url=server.url, wait=0.5), role="test"):
            pass
    assert 0.5 <= time.perf_counter() - started < 4

"""Function calls share connections: written together, answered in order, each with a time of its own."""

import asyncio
import itertools
import signal
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from redis.exceptions import ResponseError
from tests.integration.valkeyio.conftest import StartServer

from hostler.kernel.errors import EngineTimeoutError, EngineUnavailableError
from hostler.kernel.settings import EngineSettings
from hostler.testing.eventually import eventually
from hostler.valkeyio.client import send
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.pipes import MOST
from hostler.valkeyio.ways import Straight

TEXT = """#!lua name=pipes
redis.register_function('say', function(keys, args) return args[1] end)
redis.register_function('write', function(keys, args) return redis.call('INCR', keys[1]) end)
redis.register_function('fail', function(keys, args) return redis.error_reply('ERR ' .. args[1]) end)
"""


@asynccontextmanager
async def listening(path: str, *, silent_after: list[int]) -> AsyncGenerator[str]:
    """Lead to a server; connections beyond so many are taken, and nobody speaks on them."""
    taken = itertools.count(1)

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if next(taken) > silent_after[0]:
            await reader.read()
        else:
            back, forth = await asyncio.open_unix_connection(path)
            await asyncio.gather(passed(reader, forth), passed(back, writer))
        writer.close()

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(lead, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def say(engine: Engine, word: str) -> str:
    with mapped():
        return cast("bytes", await send(engine.client, "FCALL", "say", 1, "key", word)).decode()


async def stat(engine: Engine, name: str) -> int:
    return int((await engine.command("INFO", "stats"))[name])


async def test_calls_of_one_moment_leave_in_one_write_and_each_gets_its_own_answer(
    engine_settings: EngineSettings,
) -> None:
    async with Engine.open(engine_settings, role="test") as engine:
        await engine.command("FUNCTION", "LOAD", "REPLACE", TEXT)
        assert await say(engine, "first") == "first"
        before = await stat(engine, "total_reads_processed")
        words = [f"word {number}" for number in range(MOST)]
        assert await asyncio.gather(*(say(engine, word) for word in words)) == words
        read = await stat(engine, "total_reads_processed") - before
        assert read <= 3 + MOST // 16  # the look itself, and what does not come in one piece
        assert engine.pools()["calls"].in_use == 1


async def test_calls_are_run_in_the_order_in_which_they_were_handed_in(engine_settings: EngineSettings) -> None:
    async with Engine.open(engine_settings, role="test") as engine:
        await engine.command("FUNCTION", "LOAD", "REPLACE", TEXT)
        calls = [send(engine.client, "FCALL", "write", 1, "counted") for _ in range(MOST)]
        assert await asyncio.gather(*calls) == list(range(1, MOST + 1))


async def test_many_calls_use_no_more_connections_than_there_may_be(engine_settings: EngineSettings) -> None:
    settings = EngineSettings(url=engine_settings.url, connections=3)
    async with Engine.open(settings, role="test") as engine:
        await engine.command("FUNCTION", "LOAD", "REPLACE", TEXT)
        words = [f"word {number}" for number in range(10 * MOST)]
        assert await asyncio.gather(*(say(engine, word) for word in words)) == words
        assert 1 < engine.pools()["calls"].in_use <= 3


async def test_an_answer_that_nobody_waits_for_any_more_goes_to_nobody_else(engine_settings: EngineSettings) -> None:
    async with Engine.open(engine_settings, role="test") as engine:
        await engine.command("FUNCTION", "LOAD", "REPLACE", TEXT)
        for number in range(200):
            calls = [asyncio.create_task(say(engine, f"cancelled {number} {n}")) for n in range(5)]
            for _ in range(number % 12):
                await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            await asyncio.wait(calls)
            assert [call.result() for call in calls[1::2]] == [f"cancelled {number} {n}" for n in (1, 3)]
            assert await say(engine, f"kept {number}") == f"kept {number}"
        assert engine.pools()["calls"].in_use == 1


async def test_an_error_is_the_answer_of_its_own_call_only(engine_settings: EngineSettings) -> None:
    async with Engine.open(engine_settings, role="test") as engine:
        await engine.command("FUNCTION", "LOAD", "REPLACE", TEXT)
        answers = await asyncio.gather(
            say(engine, "before"),
            send(engine.client, "FCALL", "fail", 0, "on purpose"),
            say(engine, "behind"),
            return_exceptions=True,
        )
        assert answers[::2] == ["before", "behind"]
        assert isinstance(answers[1], ResponseError)
        assert "on purpose" in str(answers[1])


async def test_all_that_wait_hear_at_once_that_the_engine_is_gone_and_the_next_call_finds_it_again(
    start_server: StartServer,
) -> None:
    server = await start_server({})
    async with Engine.open(EngineSettings(url=server.url), role="test") as engine:
        await engine.command("FUNCTION", "LOAD", "REPLACE", TEXT)
        assert await say(engine, "there") == "there"
        server.process.send_signal(signal.SIGSTOP)
        calls = [asyncio.create_task(say(engine, f"{number}")) for number in range(MOST)]
        await eventually(lambda: engine.pools()["calls"].in_use >= 1)
        server.process.kill()
        server.process.wait()
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(answer) for answer in answers} == {EngineUnavailableError}
        again = await asyncio.to_thread(subprocess.Popen[bytes], server.process.args, stdout=subprocess.DEVNULL)
        try:
            await engine.until_available(20)
            assert await say(engine, "again") == "again"
        finally:
            again.kill()
            again.wait()


async def test_an_engine_that_hangs_costs_each_call_its_own_time_and_its_late_answers_reach_nobody(
    start_server: StartServer,
) -> None:
    server = await start_server({})
    settings = EngineSettings(url=server.url, command_timeout=0.5)
    async with Engine.open(settings, role="test") as engine:
        await engine.command("FUNCTION", "LOAD", "REPLACE", TEXT)
        assert await say(engine, "there") == "there"
        server.process.send_signal(signal.SIGSTOP)
        try:
            answers = await asyncio.gather(*(say(engine, f"late {n}") for n in range(3)), return_exceptions=True)
            assert {type(answer) for answer in answers} == {EngineTimeoutError}
            assert all("executed" not in cast("EngineTimeoutError", answer).facts for answer in answers)
        finally:
            server.process.send_signal(signal.SIGCONT)
        await engine.until_available(10)
        assert await asyncio.gather(*(say(engine, f"new {n}") for n in range(3))) == [f"new {n}" for n in range(3)]


async def test_a_call_that_could_not_be_sent_says_that_nothing_was_executed(start_server: StartServer) -> None:
    server = await start_server({})
    async with Engine.open(EngineSettings(url=server.url), role="test") as engine:
        await engine.command("FUNCTION", "LOAD", "REPLACE", TEXT)
        assert await say(engine, "there") == "there"
        server.process.kill()
        server.process.wait()
        await engine.until_down()
        with pytest.raises(EngineUnavailableError) as refused:
            await say(engine, "never sent")
        assert refused.value.facts["executed"] is False


async def test_who_waits_for_a_connection_that_is_given_up_hears_an_error_and_is_not_cancelled() -> None:
    async with listening("nowhere", silent_after=[0]) as url:
        way = Straight(EngineSettings(url=url), url, "test")
        calling = asyncio.create_task(call(way))
        await eventually(lambda: way.busy)
        way.cut()
        assert way.busy
        await way.aclose()
        await asyncio.wait({calling}, timeout=5)
        assert not calling.cancelled()
        assert isinstance(calling.exception(), EngineUnavailableError)


async def call(way: Straight) -> None:
    with mapped():
        await send(way.client, "FCALL", "say", 1, "key", "word")


async def test_calls_go_on_over_the_connection_that_there_is_while_another_cannot_be_made(
    engine_settings: EngineSettings,
) -> None:
    most = [100]
    path = str(engine_settings.url).removeprefix("unix://")
    async with (
        listening(path, silent_after=most) as url,
        Engine.open(EngineSettings(url=url), role="test") as engine,
    ):
        await engine.command("FUNCTION", "LOAD", "REPLACE", TEXT)
        assert await say(engine, "first") == "first"
        most[0] = 0
        words = [f"word {number}" for number in range(2 * MOST)]
        assert await asyncio.gather(*(say(engine, word) for word in words)) == words

"""The bad network, with real sockets: each fault does what it says, in the direction it says, and heals."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hostler.chaos.proxy import FaultProxy, Weather

PIECE = b"x" * 1000


class Echo:
    """A server that sends everything back, and remembers what reached it."""

    def __init__(self) -> None:
        self.seen = b""
        self.ends: list[str] = []
        self.arrived = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65_536):
                self.seen += piece
                self.arrived.set()
                writer.write(piece)
                await writer.drain()
            self.ends.append("closed")
        except ConnectionResetError:
            self.ends.append("reset")
        writer.close()


@asynccontextmanager
async def proxied() -> AsyncGenerator[tuple[FaultProxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with server, FaultProxy(server.sockets[0].getsockname()[:2]) as proxy:
        yield proxy, echo


class Caller:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def back(self, size: int, *, within: float = 5.0) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), within)

    async def says(self, words: bytes, *, within: float = 5.0) -> bytes:
        self.writer.write(words)
        return await self.back(len(words), within=within)

    async def collect(self, into: bytearray) -> None:
        while piece := await asyncio.wait_for(self.reader.read(65_536), 5):
            into += piece

    async def end(self) -> None:
        self.writer.close()


@asynccontextmanager
async def calling(proxy: FaultProxy) -> AsyncGenerator[Caller]:
    caller = Caller(*await asyncio.open_connection("127.0.0.1", proxy.port))
    yield caller
    await caller.end()


async def took(caller: Caller, words: bytes) -> float:
    began = asyncio.get_running_loop().time()
    assert await caller.says(words) == words
    return asyncio.get_running_loop().time() - began


async def test_a_clear_way_lets_everything_through_and_passes_on_the_end() -> None:
    async with proxied() as (proxy, echo), calling(proxy) as caller:
        large = os.urandom(500_000)
        caller.writer.write(large)
        caller.writer.write_eof()
        assert await asyncio.wait_for(caller.reader.read(-1), 10) == large
        assert echo.seen == large
        assert echo.ends == ["closed"]


@pytest.mark.parametrize("way", ["up", "down"])
async def test_latency_holds_each_direction_back_by_itself(way: str) -> None:
    async with proxied() as (proxy, _), calling(proxy) as caller:
        assert await caller.says(b"warm") == b"warm"
        proxy.set(**{way: Weather(latency=0.15)})
        assert await took(caller, b"slow") >= 0.15
        proxy.set(both=Weather(latency=0.1, jitter=0.05))
        assert await took(caller, b"slower") >= 0.2
        proxy.set(both=Weather(latency=60))
        proxy.heal()
        assert await caller.says(b"well") == b"well"


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_narrow_way_lets_through_so_many_bytes_a_second(way: str) -> None:
    async with proxied() as (proxy, _), calling(proxy) as caller:
        proxy.set(**{way: Weather(rate=40_000)})
        assert await took(caller, PIECE * 10) >= 0.2
        proxy.heal()
        assert await caller.says(PIECE) == PIECE


async def test_what_is_lost_on_the_way_up_does_not_reach_the_server_until_the_way_is_clear() -> None:
    async with proxied() as (proxy, echo), calling(proxy) as caller:
        assert await caller.says(b"before") == b"before"
        proxy.set(up=Weather(lost=True))
        with pytest.raises(TimeoutError):
            await caller.says(b" during", within=0.2)
        assert echo.seen == b"before"
        proxy.heal()
        assert await caller.back(7) == b" during"
        assert echo.seen == b"before during"


async def test_what_is_lost_on_the_way_down_was_done_by_the_server_all_the_same() -> None:
    async with proxied() as (proxy, echo), calling(proxy) as caller:
        assert await caller.says(b"a") == b"a"
        echo.arrived.clear()
        proxy.set(down=Weather(lost=True))
        caller.writer.write(b"b")
        await asyncio.wait_for(echo.arrived.wait(), 5)
        assert echo.seen == b"ab"
        with pytest.raises(TimeoutError):
            await caller.back(1, within=0.2)
        proxy.heal()
        assert await caller.back(1) == b"b"


async def test_what_a_caller_that_is_gone_had_sent_still_arrives_late() -> None:
    async with proxied() as (proxy, echo):
        async with calling(proxy) as caller:
            assert await caller.says(b"a") == b"a"
            echo.arrived.clear()
            proxy.set(up=Weather(lost=True))
            caller.writer.write(b"last words")
            await caller.writer.drain()
        assert echo.seen == b"a"
        proxy.heal()
        await asyncio.wait_for(echo.arrived.wait(), 5)
        assert echo.seen == b"alast words"


async def test_a_connection_that_is_made_while_all_is_lost_comes_through_later() -> None:
    async with proxied() as (proxy, echo):
        proxy.set(both=Weather(lost=True))
        async with calling(proxy) as caller:
            with pytest.raises(TimeoutError):
                await caller.says(b"new", within=0.2)
            assert echo.seen == b""
            proxy.heal()
            assert await caller.back(3) == b"new"


async def test_a_reset_ends_what_is_open_and_lets_new_connections_through() -> None:
    async with proxied() as (proxy, echo):
        async with calling(proxy) as caller:
            assert await caller.says(b"a") == b"a"
            assert proxy.connections == 1
            proxy.reset()
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await caller.back(1)
        async with calling(proxy) as caller:
            assert await caller.says(b"b") == b"b"
        assert echo.seen == b"ab"
        assert echo.ends[0] == "reset"


async def test_a_proxy_that_refuses_resets_new_connections_until_it_heals() -> None:
    async with proxied() as (proxy, echo):
        proxy.reset(refusing=True)
        async with calling(proxy) as caller:
            with pytest.raises((ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError)):
                await caller.says(b"no")
        proxy.heal()
        async with calling(proxy) as caller:
            assert await caller.says(b"yes") == b"yes"
        assert echo.seen == b"yes"


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_connection_is_cut_after_so_many_bytes_and_not_one_more(way: str) -> None:
    async with proxied() as (proxy, echo):
        proxy.set(**{way: Weather(cut_after=1500)})
        async with calling(proxy) as caller:
            caller.writer.write(PIECE * 3)
            got = bytearray()
            with pytest.raises(ConnectionResetError):
                await caller.collect(got)
        assert len(echo.seen if way == "up" else got) == 1500
        proxy.heal()
        async with calling(proxy) as caller:
            assert await caller.says(PIECE * 3) == PIECE * 3


async def test_a_server_that_is_not_there_shows_as_a_reset() -> None:
    async with proxied() as (gone, _):
        port = gone.port
    async with FaultProxy(("127.0.0.1", port)) as proxy, calling(proxy) as caller:
        with pytest.raises((ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError)):
            await caller.says(b"hello")


async def test_a_server_on_a_unix_socket_is_reached_over_tcp(tmp_path: Path) -> None:
    echo = Echo()
    server = await asyncio.start_unix_server(echo.serve, tmp_path / "s")
    async with server, FaultProxy(tmp_path / "s") as proxy, calling(proxy) as caller:
        assert await caller.says(PIECE * 100) == PIECE * 100

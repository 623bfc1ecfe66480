"""Names that are followed, asked of a real name server on this machine."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import dns.message
import dns.rcode
import dns.rrset
import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.service import Census, Source
from hostler.kernel.errors import ServiceUnavailableError
from hostler.ports.registry import EndpointRegistry
from hostler.registry.discovery import EngineDiscovery, Followed
from hostler.registry.names import Names, Target

ZONE = "_sim._tcp.example.test."


class NameServer(asyncio.DatagramProtocol):
    """Answers from a table of rows by (name, type); everything else does not exist."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list[str]] = {}
        self.silent = False
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        asked = dns.message.from_wire(data)
        answer = dns.message.make_response(asked)
        (question,) = asked.question
        kind = question.to_text().rpartition(" ")[2]
        rows = self.rows.get((question.name.to_text(), kind))
        if self.silent:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif rows:
            answer.answer.append(dns.rrset.from_text_list(question.name, 1, "IN", kind, rows))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        assert self._transport is not None
        self._transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def name_server() -> AsyncGenerator[tuple[NameServer, Names]]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    try:
        yield server, Names((f"127.0.0.1:{transport.get_extra_info('sockname')[1]}",))
    finally:
        transport.close()


async def test_service_records_give_hosts_and_ports_and_other_names_give_addresses() -> None:
    async with name_server() as (server, names):
        server.rows[ZONE, "SRV"] = ["0 5 8299 a.example.test.", "0 5 8300 b.example.test."]
        server.rows["pool.example.test.", "A"] = ["10.0.0.2", "10.0.0.1"]
        assert await names.targets("_sim._tcp.example.test") == (
            Target("a.example.test", 8299),
            Target("b.example.test", 8300),
        )
        assert await names.targets("pool.example.test") == (Target("10.0.0.1", None), Target("10.0.0.2", None))


async def test_a_name_that_is_not_there_leads_nowhere_and_one_that_nobody_answers_is_an_error() -> None:
    async with name_server() as (server, names):
        assert await names.targets("_sim._tcp.example.test") == ()
        server.silent = True
        with pytest.raises(ServiceUnavailableError, match=r"_sim\._tcp\.example\.test"):
            await names.targets("_sim._tcp.example.test")


class Empty:
    """A registry in which nothing was announced."""

    async def census(self, *, version: str = "") -> Census:
        return Census(version="0.0")


async def test_endpoints_come_and_go_with_the_records_of_a_name_and_stay_while_nobody_answers() -> None:
    now = [0.0]
    kinds = build("simulation-http", url="http://127.0.0.1:1").kinds()
    followed = Followed(
        name="pool",
        connector="simulation-http",
        build=lambda where: build(where.connector, url=where.url),
        kinds=kinds,
        dns="_sim._tcp.example.test",
    )

    async with name_server() as (server, names):
        discovery = EngineDiscovery(
            cast("EndpointRegistry", Empty()), (followed,), names=names, interval=5.0, monotonic=lambda: now[0]
        )

        async def urls() -> list[str]:
            now[0] += 6.0
            found = (await discovery.find()).placed
            assert all(one.source is Source.DNS for one in found)
            return [one.url for one in found]

        assert await urls() == []
        server.rows[ZONE, "SRV"] = ["0 5 8299 a.example.test.", "0 5 8300 a.example.test."]
        assert await urls() == ["http://a.example.test:8299", "http://a.example.test:8300"]
        server.silent = True
        assert await urls() == ["http://a.example.test:8299", "http://a.example.test:8300"]
        server.silent = False
        server.rows[ZONE, "SRV"] = ["0 5 8299 a.example.test."]
        assert await urls() == ["http://a.example.test:8299"]

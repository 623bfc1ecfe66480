"""The connector of language services keeps every promise of the port, against the service that Hostler runs."""

import threading
from collections.abc import AsyncGenerator

import pytest

from hostler.connectors.catalogue import build
from hostler.kernel.units import Bytes
from hostler.ports.connector import Connector
from hostler.providers.messages import Ask, CompareAnswer, Reply, Verb
from hostler.providers.nlp.catalogue import nlp_providers
from hostler.providers.nlp.spelling import SpellingProvider
from hostler.providers.provider import Halt, Loading, RefusedError
from hostler.providers.service import ProviderService, ServiceSettings
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Work

NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


class Ponder:
    """A provider that thinks for an hour unless it is halted."""

    name = "ponder"
    about = "thinks"
    verbs: tuple[Verb, ...] = (Verb.COMPARE,)
    slots = 4

    def __init__(self) -> None:
        self._never = threading.Event()

    def load(self, loading: Loading) -> None:
        loading.step("reading")

    def answer(self, ask: Ask, halt: Halt) -> Reply:
        for _ in range(180_000):
            halt.check()
            self._never.wait(0.02)
        return CompareAnswer(score=0.0)

    def memory(self) -> Bytes | None:
        return None

    def close(self) -> None:
        self._never.set()


class Full(SpellingProvider):
    """One that has no room."""

    def answer(self, ask: Ask, halt: Halt) -> Reply:
        raise RefusedError(503, "overloaded", "no room", retry_after=2.0)


@pytest.mark.row("002:83", "002:149", "002:180")
class TestNlpHttpConnector(ConnectorConformance):
    cycles = 30

    @pytest.fixture
    async def harness(self) -> AsyncGenerator[ConnectorHarness]:
        ponder = Ponder()
        providers = (*nlp_providers(only=("keywords", "spelling")), ponder)
        async with ProviderService(providers, ServiceSettings(grace=0.1)) as service:

            async def busy() -> int:
                return service.providers["ponder"].in_flight

            async def executed() -> int:
                return service.providers["spelling"].stats.figures().requests

            async def fill() -> None:
                service.providers["spelling"].provider = Full()

            async def hang() -> None:
                service.providers["spelling"].provider = ponder

            def connector() -> Connector:
                return build("nlp-http", url=service.url, options={"poll": 0.05})

            pair = {"first": "Ångström", "second": "ångstrom"}
            yield ConnectorHarness(
                build=connector,
                unreachable=lambda: build("nlp-http", url=NOWHERE),
                quick=Work(kind="nlp.compare", payload={"provider": "spelling", **pair}),
                slow=Work(kind="nlp.compare", payload={"provider": "ponder", **pair}),
                wrong=Work(kind="nlp.compare", payload={"provider": "spelling", "first": ""}),
                remembers=False,
                executed=executed,
                busy=busy,
                hang=hang,
                full=fill,
            )

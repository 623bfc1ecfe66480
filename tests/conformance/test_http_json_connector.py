"""The connector for any JSON service keeps every promise of the port, as the example of its page configures it."""

import json
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.kernel.units import Json
from hostler.ports.connector import Connector
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Hook, Work

NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


def moods(lighthouse: Any, **change: Any) -> Hook:
    async def hook() -> None:
        await lighthouse.put("/moods", change)

    return hook


def counts(lighthouse: Any, name: str) -> Any:
    async def count() -> int:
        return (await lighthouse.get("/counts"))[name]

    return count


def harness_of(lighthouse: Any, options: dict[str, Json], **more: Any) -> ConnectorHarness:
    def connector(url: str) -> Connector:
        return build("http-json", url=url, options=options)

    return ConnectorHarness(
        build=lambda: connector(lighthouse.url),
        unreachable=lambda: connector(NOWHERE),
        executed=counts(lighthouse, "executed"),
        busy=counts(lighthouse, "busy"),
        cut=moods(lighthouse, cut=True),
        hang=moods(lighthouse, hang=True),
        sick=moods(lighthouse, sick=True),
        full=moods(lighthouse, full=True),
        **more,
    )


@pytest.mark.row("002:281", "000:47", "001:290", "002:149")
class TestFollowedHttpJsonConnector(ConnectorConformance):
    cycles = 30

    @pytest.fixture
    async def harness(self, lighthouse: Any, lighthouse_options: dict[str, Json]) -> ConnectorHarness:
        return harness_of(
            lighthouse,
            lighthouse_options,
            quick=Work(kind="lighthouse.paint", payload={"prompt": "a lighthouse"}),
            slow=Work(kind="lighthouse.paint", payload={"prompt": "a lighthouse", "seconds": 20.0}),
            wrong=Work(kind="lighthouse.paint", payload={"prompt": ""}),
            remembers=True,
            silence=moods(lighthouse, silence=True),
        )


@pytest.mark.row("002:281")
class TestPolledHttpJsonConnector(ConnectorConformance):
    cycles = 10

    @pytest.fixture
    async def harness(self, lighthouse: Any, lighthouse_options: dict[str, Json]) -> ConnectorHarness:
        options = json.loads(json.dumps(lighthouse_options))
        del options["work"]["events"]
        return harness_of(
            lighthouse,
            options,
            quick=Work(kind="lighthouse.paint", payload={"prompt": "a lighthouse"}),
            slow=Work(kind="lighthouse.paint", payload={"prompt": "a lighthouse", "seconds": 20.0}),
            wrong=Work(kind="lighthouse.paint", payload={"prompt": ""}),
            remembers=True,
        )


@pytest.mark.row("002:281")
class TestDirectHttpJsonConnector(ConnectorConformance):
    cycles = 10

    @pytest.fixture
    async def harness(self, lighthouse: Any, lighthouse_options: dict[str, Json]) -> ConnectorHarness:
        return harness_of(
            lighthouse,
            lighthouse_options,
            quick=Work(kind="lighthouse.tell", payload={"text": "light"}),
            slow=Work(kind="lighthouse.tell", payload={"text": "light", "words": 400, "pause": 0.05}),
            wrong=Work(kind="lighthouse.tell", payload={"text": 7}),
            remembers=False,
        )

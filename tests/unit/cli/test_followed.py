"""What a worker follows: announced endpoints are strangers until an operator says otherwise."""

from typing import Any

import msgspec
import pytest

import hostler.connectors.catalogue
from hostler.cli.followed import discovery_of
from hostler.contracts.service import Census, Enrolled, Enrolment
from hostler.kernel.settings import ConnectorSettings, Settings
from hostler.kernel.spec import resolve_spec
from hostler.kernel.units import Instant

assert hostler.connectors.catalogue.INSTALLED  # imported before a loop runs: it reads the disk

WHEN = msgspec.convert("2026-01-01T00:00:00Z", Instant)


class OneAnnounced:
    """A registry that knows one endpoint."""

    async def census(self, *, version: str = "") -> Census:
        said = Enrolment(id="lamp", connector="openai-http", url="http://stranger.example")
        return Census(version="1", enrolled=(Enrolled(enrolment=said, since=WHEN, seen_at=WHEN, expires_at=WHEN),))


@pytest.mark.parametrize("trusted", [False, True])
async def test_an_announced_endpoint_gets_the_credential_only_where_the_entry_trusts_announcements(
    *, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_KEY", "sk-secret")
    entry = ConnectorSettings(connector="openai-http", api_key_env="CHAT_KEY", trust_announced=trusted)
    settings = Settings(connectors={"chat": entry})
    parts, problems = resolve_spec("chat:*", name="--connectors", settings=settings, known=("openai-http",))
    assert problems == ()
    instances = [instance for _, instances in parts for instance in instances]
    registry, nobody = _any(OneAnnounced()), _any(None)
    (placed,) = (await discovery_of(registry, instances, settings, nobody, nobody).find()).placed
    config: Any = placed.connector.__dict__["_connector"].__dict__["_config"]
    assert config.api_key == ("sk-secret" if trusted else None)


def _any(value: object) -> Any:
    return value

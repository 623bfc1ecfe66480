"""What the page about Cog writes is understood."""

import re
import shlex
import tomllib
from pathlib import Path

import msgspec

from hostler.connectors.catalogue import build
from hostler.connectors.services.cog.messages import CogPayload
from hostler.contracts.needs import Needs
from hostler.kernel.settings import ConnectorSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs/connectors/cog.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_the_settings_on_the_page_are_settings() -> None:
    entry = msgspec.convert(tomllib.loads(block("toml"))["connectors"]["upscaler"], ConnectorSettings)
    assert entry.url is not None
    build(entry.connector, url=entry.url, slots=entry.slots, options=entry.options)


def test_the_command_on_the_page_submits_what_the_connector_takes() -> None:
    words = shlex.split(block("sh"))
    kind, payload = words[2], words[words.index("--data") + 1]
    connector = build("cog-http", url="http://127.0.0.1:9")
    assert kind in {spec.name for spec in connector.kinds()}
    msgspec.json.decode(payload, type=CogPayload)
    name, _, value = words[words.index("--need") + 1].partition("=")
    assert name == "model"
    Needs(models=(value,))

"""What the page about the Open Inference Protocol shows works as it is written."""

import json
import re
import tomllib
from pathlib import Path

from hostler.connectors.catalogue import build
from hostler.contracts.service import Finished
from hostler.testing.connectors import Work, call_of, steps_of
from hostler.testing.mlserver import Mlserver

PAGE = (Path(__file__).resolve().parents[2] / "docs/connectors/inference.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_settings_on_the_page_are_settings_and_its_kinds_are_kinds() -> None:
    (settings,) = blocks("toml")
    entry = tomllib.loads(settings)["connectors"]["models"]
    build(entry["connector"], url=entry["url"], options=entry["options"])
    kinds = re.findall(r"^\| `(inference[.a-z]+)` \|", PAGE, re.MULTILINE)
    connector = build(entry["connector"], url=entry["url"], options={"kinds": kinds})
    assert kinds == [spec.name for spec in connector.kinds()]
    usual = build(entry["connector"], url=entry["url"]).kinds()
    assert {*kinds} - {spec.name for spec in usual} == {"inference.generate"}


async def test_the_payload_on_the_page_gets_the_result_on_the_page(mlserver: Mlserver) -> None:
    payload, result = map(json.loads, blocks("json"))
    async with build("inference-http", url=mlserver.url) as connector:
        end = (await steps_of(connector, call_of(Work(kind="inference.infer", payload=payload))))[-1]
    assert isinstance(end, Finished), end
    assert json.loads(bytes(end.result)) == result

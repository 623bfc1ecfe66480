"""The five providers of language, on real packages: each answers truly, and text of any script stays as it is."""

import asyncio
import json
import unicodedata
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.service import Finished
from hostler.providers.nlp.catalogue import nlp_providers
from hostler.testing.connectors import Work, call_of, steps_of
from hostler.testing.eventually import eventually

Start = Callable[..., Awaitable[Any]]
pytestmark = pytest.mark.timeout(150)
HARBOURS = (
    "маяк светит кораблям ночью перед берегом",
    "старый маяк и новый маяк стоят над морем где корабли",
    "Φάρος στη θάλασσα φωτίζει πλοία",
    "αυτός φάρος και τα πλοία στη θάλασσα",
    "naïve Bürger von Åland segeln früh",
    "灯台 海 船",
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "häfen.txt"
    path.write_text("\n".join(HARBOURS * 40), encoding="utf-8")
    return path


@pytest.mark.row("002:83", "002:180")
async def test_words_of_every_script_are_learnt_and_come_back_letter_by_letter(start: Start, corpus: Path) -> None:
    asked = await start(*nlp_providers(corpus, only=("gensim",)), wait=120.0)
    for concept, family in (
        ("маяк", HARBOURS[0] + HARBOURS[1]),
        ("φάρος", HARBOURS[2] + HARBOURS[3]),
        ("灯台", "海 船"),
    ):
        status, body, headers = await asked.expand("gensim", concept)
        assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
        terms = [term["term"] for term in body["result"]["terms"]]
        assert terms[0] in unicodedata.normalize("NFC", family).casefold()
        assert concept not in terms
        work = Work(kind="nlp.expand", payload={"provider": "gensim", "concept": concept})
        async with build("nlp-http", url=asked.service.url) as connector:
            end = (await steps_of(connector, call_of(work)))[-1]
        assert isinstance(end, Finished), end
        assert json.loads(bytes(end.result)) == {**body["result"], "unknown": []}
    _, body, _ = await asked.expand("gensim", "ЌÆÞ маяк")
    assert body["result"]["unknown"] == ["ќæþ"]
    assert body["result"]["terms"]
    _, body, _ = await asked.expand("gensim", "quux")
    assert (body["result"]["terms"], body["result"]["unknown"]) == ([], ["quux"])
    candidates = ["Φάρος, πλοία!", "灯台 — 船", "корабли над морем"]
    _, body, _ = await asked.post("/providers/gensim/similarity", {"query": "старый маяк", "candidates": candidates})
    assert body["result"]["matches"][0]["candidate"] == candidates[2]
    assert {match["candidate"] for match in body["result"]["matches"]} == set(candidates)
    view = (await asked.get("/providers/gensim/health"))[1]
    assert view["memory_bytes"] > 64 * 4
    assert view["load_s"] > 0


@pytest.mark.row("002:83")
async def test_the_corpus_that_gensim_ships_gives_vectors_and_topics_that_make_sense(start: Start) -> None:
    asked = await start(*nlp_providers(only=("gensim", "topics")), wait=120.0)
    asking = asyncio.create_task(asked.post("/providers/gensim/expand", {"concept": "prime", "max_concepts": 5}))
    await asked.post("/providers/topics/compare", {"first": "fire", "second": "fire"})
    _, body, _ = await asking
    assert "minister" in [term["term"] for term in body["result"]["terms"]]
    question = {
        "query": "a bushfire near Sydney",
        "candidates": ["a cricket test in Perth", "fire crews in New South Wales", "tanks in Jenin"],
    }
    for provider in ("topics", "gensim"):
        _, body, _ = await asked.post(f"/providers/{provider}/similarity", question)
        assert body["result"]["matches"][0]["index"] == 1, provider
    _, body, _ = await asked.post("/providers/topics/analyze", {"text": "The bushfire came.", "max_items": 1})
    assert [item["text"] for item in body["result"]["items"]] == ["bushfire"]


@pytest.mark.row("002:83")
async def test_times_are_found_in_many_languages_and_counted_from_the_reference(start: Start) -> None:
    asked = await start(*nlp_providers(only=("temporal",)), wait=120.0)
    text = "She left on 12 March 2024, yesterday at 5pm. Поезд ушёл 12 мая 2023 года. Der Zug fuhr am 3. Juni 2022."
    question = {"text": text, "reference": "2024-05-01T12:00:00Z"}
    status, body, _ = await asked.post("/providers/temporal/analyze", question)
    assert status == 200, body
    items = body["result"]["items"]
    assert all(text[item["start"] : item["end"]] == item["text"] for item in items)
    values = [item["value"] for item in items]
    assert "2024-03-12T00:00:00+00:00" in values
    assert "2024-04-30T17:00:00+00:00" in values
    assert "2023-05-12T00:00:00+00:00" in values
    assert "2022-06-03T00:00:00+00:00" in values
    assert items[values.index("2024-04-30T17:00:00+00:00")]["label"] == "time"
    _, body, _ = await asked.post("/providers/temporal/expand", {"concept": "май 2024", "max_concepts": 2})
    assert [term["term"] for term in body["result"]["terms"]] == ["2024-05", "2024"]
    _, body, _ = await asked.post("/providers/temporal/expand", {"concept": "lighthouse"})
    assert body["result"] == {"terms": [], "unknown": ["lighthouse"]}
    status, body, _ = await asked.post("/providers/temporal/analyze", {"text": "today", "language": "xx"})
    assert (status, body["error"]["code"]) == (422, "invalid_input")


@pytest.mark.row("002:83")
async def test_keywords_are_phrases_that_stand_in_the_text(start: Start) -> None:
    asked = await start(*nlp_providers(only=("keywords",)))
    for text, phrase, without in (
        ("The old lighthouse keeper is at the old lighthouse. It is cold.", "old lighthouse keeper", "the"),
        ("Der alte Leuchtturm leuchtet über das kalte Wasser der Nordsee.", "kalte Wasser", "über"),
        ("Криптография под открытым ключом — это основа сети.", "открытым ключом", "это"),
        ("🚢 Ships 🚢 pass quiet harbours", "pass quiet harbours", "🚢"),
    ):
        status, body, _ = await asked.post("/providers/keywords/analyze", {"text": text})
        assert status == 200
        items = body["result"]["items"]
        assert all(text[item["start"] : item["end"]] == item["text"] for item in items)
        assert any(phrase in item["text"] for item in items), items
        assert without not in {item["text"].casefold() for item in items}
        assert items[0]["score"] == 1.0


@pytest.mark.row("002:83")
async def test_spelling_is_compared_without_regard_to_case_or_how_accents_are_composed(start: Start) -> None:
    asked = await start(*nlp_providers(only=("spelling",)))

    async def score(first: str, second: str) -> float:
        _, body, _ = await asked.post("/providers/spelling/compare", {"first": first, "second": second})
        return body["result"]["score"]

    assert await score("Ångström", unicodedata.normalize("NFD", "ÅNGSTRÖM")) == 1.0
    assert await score("Müller Straße", "MÜLLER STRASSE") == 1.0
    assert await score("lighthouse", "lighthuose") > await score("lighthouse", "harbour")
    assert await score("маяк", "φάρος") < 0.2


@pytest.mark.row("002:149")
async def test_a_training_ends_when_the_service_does(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("\n".join(" ".join(HARBOURS) for _ in range(8_000)), encoding="utf-8")
    asked = await start(*nlp_providers(path, only=("gensim",)))
    lazy = asked.service.providers["gensim"]
    await asked.expand("gensim", Prefer="wait=0")
    await eventually(lambda: lazy.view().phase == "training" and lazy.view().item == "epoch 2 of 40", within=120)
    await asked.service.__aexit__(None, None, None)
    assert lazy.view().state == "closed"
    assert lazy.load_s is None

"""Language services: the one that Hostler runs, and servers that say what cannot be true."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import EndpointState, Finished
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.spec import conventional_port
from hostler.ports.connector import Connector
from hostler.providers.messages import ASKS, Ask, Reply
from hostler.providers.nlp.catalogue import nlp_providers
from hostler.providers.nlp.keywords import KeywordsProvider
from hostler.providers.nlp.spelling import SpellingProvider
from hostler.providers.provider import Halt, Loading
from hostler.providers.service import ProviderService, ServiceSettings
from hostler.testing.connectors import Work, call_of, failure_of, steps_of, submitted
from hostler.testing.eventually import eventually

C = FailureClass
Serve = Callable[[Any], Awaitable[str]]
Script = Callable[..., Any]
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
PAIR = {"first": "маяк", "second": "Маяк"}
RANK = {"query": "маяк", "candidates": ["φάρος", "маяки", "灯台"]}
FIND = {"text": "Der alte Leuchtturm 🚢 leuchtet über das kalte Wasser."}


def compare(**more: Any) -> Work:
    return Work(kind="nlp.compare", payload={"provider": "spelling", **PAIR, **more})


def connector_to(url: str, **options: Any) -> Connector:
    return build("nlp-http", url=url, options={"poll": 0.05, **options})


def said(result: Any = None, **more: Any) -> bytes:
    return JSON + json.dumps({"success": True, "provider_name": "spelling", "result": result, **more}).encode()


@pytest.fixture
async def service() -> AsyncGenerator[ProviderService]:
    providers = nlp_providers(only=("keywords", "spelling"))
    async with ProviderService(providers, ServiceSettings(grace=0.2)) as service:
        yield service


class Patient(KeywordsProvider):
    """One whose load goes on until a test ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.done = False

    def load(self, loading: Loading) -> None:
        while not self.done:
            loading.step("training", "epoch 3 of 12", fraction=0.25)
        super().load(loading)


async def answered(url: str, work: Work, **limits: float) -> Failure:
    async with connector_to(url) as connector:
        found = {"connect": 5.0, "load": 5.0, "first_byte": 5.0, "idle": 5.0, "run": 20.0, **limits}
        return await failure_of(connector, call_of(work, timeouts=Timeouts(**found)))


async def result(connector: Connector, kind: str, payload: dict[str, Any], *, job: str) -> dict[str, Any]:
    end = (await steps_of(connector, call_of(Work(kind=kind, payload=payload), job=job)))[-1]
    assert isinstance(end, Finished), end
    return json.loads(bytes(end.result))


@pytest.mark.row("002:83", "002:180")
async def test_verbs_are_paths_and_text_of_every_script_comes_back_as_it_went(service: ProviderService) -> None:
    async with connector_to(service.url) as connector:
        ranked = await result(connector, "nlp.similarity", {"provider": "spelling", **RANK}, job="n.1")
        same = await result(connector, "nlp.compare", {"provider": "spelling", **PAIR}, job="n.2")
        found = await result(connector, "nlp.analyze", {"provider": "keywords", **FIND}, job="n.3")
    assert ranked["matches"][0]["candidate"] == "маяки"
    assert {match["candidate"] for match in ranked["matches"]} == set(RANK["candidates"])
    assert same == {"score": 1.0, "unknown": []}
    assert "alte Leuchtturm" in {item["text"] for item in found["items"]}
    assert all(FIND["text"][item["start"] : item["end"]] == item["text"] for item in found["items"])


def test_what_the_connector_sends_is_what_the_service_takes() -> None:
    for spec in connector_to("http://127.0.0.1:9").kinds():
        ask = ASKS[next(verb for verb in ASKS if spec.name == f"nlp.{verb}")]
        assert spec.payload is not None
        sent = set(spec.payload["$defs"][spec.payload["$ref"].rpartition("/")[2]]["properties"])
        assert set(ask.__struct_fields__) <= sent
        assert sent - set(ask.__struct_fields__) <= {"provider", "options", "field_name"}
    assert conventional_port("nlp-http") == 8001


@pytest.mark.row("002:88", "002:96")
async def test_a_load_is_progress_with_phase_item_and_percent_and_then_the_work_is_done() -> None:
    patient, where = Patient(), Progress(stage="load", message="training epoch 3 of 12 (25 %)")
    service = ProviderService((patient,), ServiceSettings(grace=0.1))
    async with service, connector_to(service.url) as connector:
        call = call_of(Work(kind="nlp.analyze", payload={"provider": "keywords", **FIND}))
        ref = await submitted(connector, call)
        seen: list[Any] = []
        async for step in connector.observe(call, ref):
            seen.append(step)
            patient.done = patient.done or step == where
        assert where in seen
        assert isinstance(seen[-1], Finished)


@pytest.mark.row("002:96")
async def test_a_provider_that_still_loads_is_overload_with_a_time_to_come_back_and_is_not_offered() -> None:
    patient = Patient()
    service = ProviderService((patient, SpellingProvider()), ServiceSettings(grace=0.1))
    async with service, connector_to(service.url, load_wait=0.0) as connector:
        before = await connector.capabilities()
        assert before.models == ("keywords", "spelling"), "what is not loaded yet loads when it is used"
        assert before.kinds == ("nlp.analyze", "nlp.similarity", "nlp.compare")
        work = Work(kind="nlp.analyze", payload={"provider": "keywords", **FIND})
        failure = await failure_of(connector, call_of(work))
        assert (failure.class_, failure.details["code"]) == (C.OVERLOADED, "loading")
        assert failure.retry_after is not None
        await eventually(lambda: service.providers["keywords"].view().phase is not None)
        found, probe = await connector.capabilities(), await connector.probe()
        assert (found.models, found.kinds) == (("spelling",), ("nlp.similarity", "nlp.compare"))
        assert found.pools["slots"].total == 2
        assert probe.state is EndpointState.READY
        assert "keywords: training epoch 3 of 12 (25 %)" in probe.message
        patient.done = True
        await eventually(lambda: service.providers["keywords"].available)
        assert await connector.capabilities() == before


@pytest.mark.row("002:96")
async def test_a_load_over_its_limit_ends_as_timeout_of_the_load_and_uses_up_no_other_limit(serve: Serve) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(JSON + b'{"name":"spelling","state":"loading","phase":"reading"}')
            await writer.drain()
        else:
            await reader.read(-1)

    failure = await answered(await serve(script), compare(), load=0.6, first_byte=0.3)
    assert (failure.class_, failure.stage) == (C.TIMEOUT, Stage.LOAD)


async def test_an_unknown_provider_is_a_mismatch_with_the_nearest_names_and_so_is_a_verb_it_lacks(
    service: ProviderService,
) -> None:
    unknown = await answered(service.url, compare(provider="speling"))
    lacking = await answered(service.url, compare(provider="keywords"))
    assert (unknown.class_, unknown.details["code"]) == (C.CAPABILITY_MISMATCH, "unknown_provider")
    assert "did you mean spelling?" in unknown.message
    assert (lacking.class_, lacking.details["code"]) == (C.CAPABILITY_MISMATCH, "unsupported")
    assert "spelling" in lacking.message
    refused = await answered(service.url, compare(options={"model": "x"}))
    assert refused.class_ is C.INVALID_INPUT
    nobody = await answered(service.url, Work(kind="nlp.compare", payload=PAIR))
    assert nobody.class_ is C.INVALID_INPUT
    async with connector_to(service.url, provider="spelling") as connector:
        assert (await result(connector, "nlp.compare", PAIR, job="n.9"))["score"] == 1.0


class Busy(SpellingProvider):
    """One whose answer waits for a test."""

    name = "busy"

    def __init__(self) -> None:
        self.begun, self.done = threading.Event(), threading.Event()

    def answer(self, ask: Ask, halt: Halt) -> Reply:
        self.begun.set()
        self.done.wait(20)
        return super().answer(ask, halt)


@pytest.mark.row("002:149")
async def test_a_service_that_drains_is_overload_and_is_seen_as_draining() -> None:
    busy = Busy()
    service = ProviderService((busy, SpellingProvider()), ServiceSettings(grace=20.0))
    await service.__aenter__()
    async with connector_to(service.url) as connector:
        call = call_of(Work(kind="nlp.compare", payload={"provider": "busy", **PAIR}), job="n.1")
        ref = await submitted(connector, call)
        await eventually(busy.begun.is_set)
        closing = asyncio.create_task(service.__aexit__(None, None, None))
        await eventually(lambda: service.providers["spelling"].state == "closed")
        assert (await connector.probe()).state is EndpointState.DRAINING
        failure = await failure_of(connector, call_of(compare()))
        assert (failure.class_, failure.details["code"]) == (C.OVERLOADED, "draining")
        busy.done.set()
        assert isinstance([step async for step in connector.observe(call, ref)][-1], Finished)
        await closing


@pytest.mark.parametrize(
    ("answer_", "class_", "words"),
    [
        (JSON + b'{"success":false,"provider_name":"x","error_message":"no vectors today"}', C.TRANSIENT, "no vectors"),
        (
            JSON + b'{"success":false,"error":{"code":"unknown_provider","message":"who?"}}',
            C.CAPABILITY_MISMATCH,
            "who",
        ),
        (JSON + b'{"success":true,"provider_name":"spelling"}', C.TRANSIENT, "no result"),
        (said(), C.TRANSIENT, "none of"),
        (said({"terms": []}), C.TRANSIENT, "none of"),
        (JSON + b"{}", C.TRANSIENT, "not its protocol"),
        (JSON + b'{"success":true,"res', C.TRANSIENT, "not its protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", C.TRANSIENT, "text/html"),
        (b"HTTP/1.1 307 Go\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", C.TRANSIENT, "307"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", C.AUTH, "401"),
    ],
)
async def test_an_answer_that_says_no_or_makes_no_sense_is_no_success(
    serve: Serve, answer: Script, answer_: bytes, class_: FailureClass, words: str
) -> None:
    failure = await answered(await serve(answer(answer_)), compare())
    assert failure.class_ is class_, failure
    assert words in failure.message


@pytest.mark.parametrize(
    ("kind", "payload", "made_up"),
    [
        ("similarity", RANK, {"matches": [{"index": 0, "candidate": "pharos", "score": 1.0}]}),
        ("similarity", RANK, {"matches": [{"index": 7, "candidate": "маяки", "score": 1.0}]}),
        ("similarity", RANK, {"matches": [{"index": 1, "candidate": "маяки", "score": 1.0}] * 2}),
        ("analyze", FIND, {"items": [{"text": "harbour", "label": "keyword", "start": 0, "end": 7}]}),
        ("analyze", FIND, {"items": [{"text": "", "label": "keyword", "start": -9, "end": -9}]}),
    ],
)
async def test_a_result_that_is_not_about_what_was_asked_is_not_believed(
    serve: Serve, answer: Script, kind: str, payload: dict[str, Any], made_up: dict[str, Any]
) -> None:
    work = Work(kind=f"nlp.{kind}", payload={"provider": "x", **payload})
    failure = await answered(await serve(answer(said(made_up))), work)
    assert failure.class_ is C.TRANSIENT
    assert failure.details["protocol"] is True


async def test_a_body_without_end_and_a_silent_service_end_the_work(serve: Serve, answer: Script) -> None:
    url = await serve(answer(JSON, b'{"success":', repeat=b" " * 65_536))
    async with connector_to(url, answer_limit=1_000_000) as connector:
        failure = await failure_of(connector, call_of(compare()))
    assert (failure.class_, "1000000 bytes" in failure.message) == (C.TRANSIENT, True)
    silent = await answered(await serve(answer(hold=True)), compare(), first_byte=0.3)
    assert (silent.class_, silent.stage) == (C.TIMEOUT, Stage.FIRST_BYTE)
    stuck = await answered(await serve(answer(JSON, b"{", hold=True)), compare(), idle=0.3)
    assert (stuck.class_, stuck.stage) == (C.TIMEOUT, Stage.IDLE)


async def test_other_services_with_these_paths_are_driven_too(serve: Serve, answer: Script) -> None:
    health = b'{"status":"initializing_providers","providers":["gensim"]}'
    async with connector_to(await serve(answer(JSON + health))) as connector:
        assert (await connector.probe()).state is EndpointState.LOADING
    rows = b'{"providers":["gensim",{"name":"heideltime","type":"temporal","available":false}]}'
    async with connector_to(await serve(answer(JSON + rows))) as connector:
        found = await connector.capabilities()
    assert found.models == ("gensim",)
    assert found.kinds == ("nlp.expand", "nlp.analyze", "nlp.similarity", "nlp.compare")
    assert found.pools == {}
    asked = (
        b'{"success":true,"provider_name":"Gensim","execution_time_ms":3,"result":{"terms":[]},"error_message":null}'
    )
    async with connector_to(await serve(answer(JSON + asked))) as connector:
        expand = {"provider": "gensim", "concept": "café", "field_name": "title", "options": {"model": "word2vec"}}
        assert await result(connector, "nlp.expand", expand, job="n.1") == {"terms": [], "unknown": []}


async def test_a_key_reaches_the_service_and_no_failure() -> None:
    providers = nlp_providers(only=("spelling",))
    async with ProviderService(providers, ServiceSettings(key="sesame-7", grace=0.1)) as service:
        async with build("nlp-http", url=service.url, api_key="sesame-7") as known:
            assert (await result(known, "nlp.compare", {"provider": "spelling", **PAIR}, job="n.1"))["score"] == 1.0
        async with build("nlp-http", url=service.url, api_key="sesame-8") as stranger:
            failure = await failure_of(stranger, call_of(compare()))
    assert failure.class_ is C.AUTH
    assert "sesame" not in f"{failure}"


async def test_the_service_knows_a_request_by_its_job_and_fence(serve: Serve) -> None:
    heads: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(said({"score": 1.0}))
        await writer.drain()

    async with connector_to(await serve(script)) as connector:
        end = (await steps_of(connector, call_of(compare(), job="nlp.41", fence=3)))[-1]
    assert isinstance(end, Finished)
    assert heads[0].startswith(b"POST /providers/spelling/compare HTTP/1.1")
    assert b"X-Request-ID: nlp.41-3" in heads[0]
    assert b"Prefer: wait=10.000" in heads[0]

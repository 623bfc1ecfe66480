"""Providers behind one door: each loads when it is first needed, once, and holds up nobody else."""

import asyncio
from typing import Any

import aiohttp
import pytest

from hostler.testing.eventually import eventually

Start = Any
Scripted = Any


@pytest.mark.row("002:96")
async def test_twenty_first_uses_at_the_same_time_load_once_and_all_are_answered(
    start: Start, scripted: Scripted
) -> None:
    slow = scripted("slow")
    slow.loading.close()
    asked = await start(slow)
    waiting = [asyncio.create_task(asked.expand("slow", f"q{number}")) for number in range(20)]
    await eventually(slow.loading.reached.is_set)
    slow.loading.open()
    answers = await asyncio.gather(*waiting)
    assert [status for status, _, _ in answers] == [200] * 20
    assert [body["result"]["terms"][0]["term"] for _, body, _ in answers] == [f"q{number}" for number in range(20)]
    assert slow.loads == 1


@pytest.mark.row("002:96")
async def test_of_five_providers_one_that_is_slow_holds_up_none_of_the_other_four(
    start: Start, scripted: Scripted
) -> None:
    slow, *others = (scripted(name) for name in ("slow", "b", "c", "d", "e"))
    slow.loading.close()
    asked = await start(slow, *others)
    loading = asyncio.create_task(asked.expand("slow"))
    await eventually(slow.loading.reached.is_set)
    assert [(await asked.expand(other.name))[0] for other in others] == [200] * 4
    slow.answering.close()
    slow.loading.open()
    await eventually(slow.answering.reached.is_set)
    many = [asyncio.create_task(asked.expand("slow")) for _ in range(8)]
    await eventually(lambda: asked.service.providers["slow"].waiting == 7)
    assert [(await asked.expand(other.name))[0] for other in others] == [200] * 4
    slow.answering.open()
    assert {status for status, _, _ in await asyncio.gather(loading, *many)} == {200}


@pytest.mark.row("002:88", "002:96")
async def test_while_it_loads_phase_item_and_percent_are_told_and_the_service_takes_questions(
    start: Start, scripted: Scripted
) -> None:
    slow, quick = scripted("slow"), scripted("quick")
    slow.loading.close()
    asked = await start(slow, quick)
    assert (await asked.get("/readyz"))[1]["loading"] == []
    status, body, headers = await asked.expand("slow", Prefer="wait=0")
    assert status == 503, "a provider that loads is not unknown"
    assert body["error"]["code"] == "loading"
    assert float(headers["Retry-After"]) > 0
    await eventually(slow.loading.reached.is_set)
    where = {"phase": "training", "item": "epoch 3 of 12", "percent": 25.0}
    assert await asked.get("/readyz") == (
        200,
        {
            "ready": True,
            "available": ["quick"],
            "loading": [{"provider": "slow", **where}],
            "draining": False,
        },
    )
    status, view = await asked.get("/providers/slow/health")
    assert (status, view["state"], view["available"]) == (503, "loading", False)
    assert {name: view[name] for name in where} == where
    assert (await asked.expand("quick"))[0] == 200
    slow.loading.open()
    assert (await asked.expand("slow"))[0] == 200
    assert (await asked.get("/providers/slow/health"))[0] == 200


@pytest.mark.row("002:88")
async def test_readyz_is_503_only_when_no_provider_takes_questions(start: Start, scripted: Scripted) -> None:
    only = scripted("only")
    only.loading.close()
    asked = await start(only)
    assert (await asked.get("/readyz"))[0] == 200
    await asked.expand("only", Prefer="wait=0")
    assert (await asked.get("/readyz"))[0] == 503
    only.loading.open()
    await eventually(lambda: asked.service.providers["only"].available)
    assert (await asked.get("/readyz"))[0] == 200


@pytest.mark.row("002:96")
async def test_a_load_that_fails_is_told_touches_no_other_and_is_tried_again_later(
    start: Start, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostler.providers.lazy.BACKOFF_FIRST", 0.0)
    monkeypatch.setattr("hostler.providers.lazy.COME_BACK", 0.0)
    broken, well = scripted("broken", fails=1), scripted("well")
    asked = await start(broken, well)
    status, body, headers = await asked.expand("broken")
    assert (status, body["error"]["code"]) == (503, "load_failed")
    assert "the disk is gone" in body["error_message"]
    assert "Retry-After" in headers
    assert (await asked.get("/health"))[1]["status"] == "degraded"
    assert (await asked.expand("well"))[0] == 200
    assert (await asked.expand("broken"))[0] == 200
    assert broken.loads == 2
    assert (await asked.get("/health"))[1]["status"] == "healthy"


async def test_until_its_time_to_come_back_a_failed_load_is_not_tried_again(start: Start, scripted: Scripted) -> None:
    broken = scripted("broken", fails=1)
    asked = await start(broken)
    await asked.expand("broken")
    status, body, headers = await asked.expand("broken")
    assert (status, body["error"]["code"], broken.loads) == (503, "load_failed", 1)
    assert 1 <= float(headers["Retry-After"]) <= 5
    assert not (await asked.get("/providers"))[1]["providers"][0]["available"]


async def test_a_provider_whose_package_is_absent_says_what_to_install_and_is_not_tried_again(
    start: Start, scripted: Scripted
) -> None:
    absent = scripted("absent", missing=True)
    asked = await start(absent)
    for _ in range(2):
        status, body, headers = await asked.expand("absent")
        assert (status, body["error"]["code"]) == (501, "missing_extra")
        assert "pip install 'hostler[numbers]'" in body["error_message"]
        assert "Retry-After" not in headers
    assert absent.loads == 1


async def test_a_question_too_many_is_refused_with_a_time_to_come_back(start: Start, scripted: Scripted) -> None:
    one = scripted("one", slots=1)
    one.answering.close()
    asked = await start(one, backlog=1)
    held = [asyncio.create_task(asked.expand("one")) for _ in range(2)]
    await eventually(lambda: asked.service.providers["one"].waiting == 1)
    status, body, headers = await asked.expand("one")
    assert (status, body["error"]["code"]) == (503, "overloaded")
    assert float(headers["Retry-After"]) > 0
    one.answering.open()
    assert [status for status, _, _ in await asyncio.gather(*held)] == [200, 200]


async def test_work_that_nobody_waits_for_any_more_is_halted_and_its_thread_is_free_again(
    start: Start, scripted: Scripted
) -> None:
    one = scripted("one", slots=1)
    one.answering.close()
    asked = await start(one)
    gone = asyncio.create_task(asked.expand("one"))
    await eventually(one.answering.reached.is_set)
    gone.cancel()
    await eventually(lambda: one.halted == 1 and asked.service.providers["one"].in_flight == 0)
    one.answering.open()
    assert (await asked.expand("one"))[0] == 200


async def test_an_answer_over_its_limit_is_halted_and_counts_as_the_providers_fault(
    start: Start, scripted: Scripted
) -> None:
    one = scripted("one")
    asked = await start(one, within=0.1)
    assert (await asked.expand("one"))[0] == 200
    one.answering.close()
    status, body, _ = await asked.expand("one")
    assert (status, body["error"]["code"]) == (504, "too_slow")
    await eventually(lambda: one.halted == 1)
    assert asked.service.providers["one"].stats.figures().error_rate == 0.5


@pytest.mark.row("002:149")
async def test_draining_lets_questions_end_takes_no_new_one_and_closes_every_provider_once(
    start: Start, scripted: Scripted
) -> None:
    used, loading, unused = scripted("used"), scripted("loading"), scripted("unused")
    used.answering.close()
    loading.loading.close()
    asked = await start(used, loading, unused, grace=20.0)
    under_way = asyncio.create_task(asked.expand("used"))
    await eventually(used.answering.reached.is_set)
    await asked.expand("loading", Prefer="wait=0")
    await eventually(loading.loading.reached.is_set)
    closing = asyncio.create_task(asked.service.__aexit__(None, None, None))
    await eventually(lambda: asked.service.providers["used"].state == "closed")
    status, body, _ = await asked.expand("used")
    assert (status, body["error"]["code"]) == (503, "draining")
    status, body = await asked.get("/readyz")
    assert (status, body["draining"]) == (503, True)
    used.answering.open()
    assert (await under_way)[0] == 200
    await closing
    assert [provider.closes for provider in (used, loading, unused)] == [1, 1, 1]
    with pytest.raises(aiohttp.ClientConnectorError):
        await asked.expand("used")


async def test_questions_that_outlast_the_grace_are_halted(start: Start, scripted: Scripted) -> None:
    one = scripted("one", slots=1)
    one.answering.close()
    asked = await start(one, grace=0.05)
    held = [asyncio.create_task(asked.expand("one")) for _ in range(3)]
    await eventually(lambda: asked.service.providers["one"].waiting == 2)
    await asked.service.__aexit__(None, None, None)
    answers = await asyncio.gather(*held)
    assert {body["error"]["code"] for _, body, _ in answers} == {"draining"}
    assert (one.answers, one.halted, one.closes) == (1, 1, 1)


async def test_health_and_metrics_tell_memory_errors_and_times(start: Start, scripted: Scripted) -> None:
    one = scripted("one")
    asked = await start(one)
    for _ in range(3):
        await asked.expand("one")
    one.breaks = True
    status, body, _ = await asked.expand("one", **{"X-Request-ID": "job.7-1"})
    assert (status, body["error"]["code"], body["metadata"]["request_id"]) == (500, "internal_error", "job.7-1")
    _, health = await asked.get("/health")
    assert health["memory_bytes"] > 1_000_000
    assert health["error_rate"] == 0.25
    view = health["providers"]["one"]
    assert view["memory_bytes"] == 4096
    assert (view["stats"]["requests"], view["stats"]["errors"]) == (4, 1)
    assert view["stats"]["last_error"] == "RuntimeError: a wheel came off"
    assert view["stats"]["p95_s"] >= view["stats"]["p50_s"] > 0
    text = await asked.text("/metrics")
    for line in (
        'hostler_provider_answers_total{outcome="ok",provider="one",verb="expand"} 3.0',
        'hostler_provider_answers_total{outcome="internal_error",provider="one",verb="expand"} 1.0',
        'hostler_provider_state{provider="one",state="ready"} 1.0',
        'hostler_provider_memory_bytes{provider="one"} 4096.0',
        'hostler_provider_error_ratio{provider="one"} 0.25',
    ):
        assert line in text


async def test_what_is_wrong_with_a_question_is_said_and_is_nobodys_error(start: Start, scripted: Scripted) -> None:
    one = scripted("one")
    asked = await start(one, body_limit=10_000)
    for body, words in (
        ({"concept": ""}, "concept"),
        ({"concept": "x", "max_concepts": 51}, "max_concepts"),
        ({"concept": "x", "surprise": 1}, "surprise"),
        ({}, "concept"),
    ):
        status, answer, _ = await asked.post("/providers/one/expand", body)
        assert (status, answer["error"]["code"]) == (422, "invalid_input")
        assert words in answer["error_message"]
    assert one.loads == 0
    assert (await asked.post("/providers/one/expand", {"concept": "x" * 20_000}))[0] == 413
    status, answer, _ = await asked.post("/providers/one/compare", {"first": "a", "second": "b"})
    assert (status, answer["error"]["code"]) == (404, "unsupported")
    status, answer, _ = await asked.expand("ome")
    assert (status, answer["error"]["code"]) == (404, "unknown_provider")
    assert "did you mean one?" in answer["error_message"]
    assert (await asked.get("/elsewhere"))[0] == 404
    assert asked.service.providers["one"].stats.figures().errors == 0


async def test_with_a_key_only_health_answers_strangers(start: Start, scripted: Scripted) -> None:
    asked = await start(scripted("one"), key="sesame")
    for path in ("/providers", "/metrics", "/providers/one/health"):
        status, body = await asked.get(path)
        assert (status, body["error"]["code"]) == (401, "unauthorized")
    assert (await asked.expand("one", Authorization="Bearer sesam"))[0] == 401
    assert (await asked.expand("one", Authorization="Bearer sesame"))[0] == 200
    assert (await asked.get("/health"))[0] == 200
    assert (await asked.get("/readyz"))[0] == 200
    assert "sesame" not in repr(asked.service.settings)

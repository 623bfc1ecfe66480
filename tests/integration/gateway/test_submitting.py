"""Submitting over HTTP: durable answers, repetition, limits, refusals that leave no trace."""

import asyncio
import gzip
import hashlib
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hostler.contracts.queue import Limits, QueueSpec

from .conftest import KIND, House

JSON = {"Content-Type": "application/json"}


async def depth(house: House) -> int:
    return (await house.foreman.stats("default")).depth


@pytest.mark.row("002:201")
async def test_a_submitted_job_is_answered_whole_and_found_again(house: House) -> None:
    answer = await house.ask("POST", "/v1/jobs", json={"kind": KIND, "payload": {"say": "héllo"}, "labels": {"a": "b"}})
    assert answer.status == 201
    job = answer.json
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["attempt"], job["payload"]) == ("ready", 0, {"say": "héllo"})
    found = (await house.ask("GET", answer.headers["location"])).json
    assert {**found, "unworkable": job["unworkable"]} == job  # upkeep may note meanwhile that nobody can do it
    listed = (await house.ask("GET", "/v1/jobs?label=a%3Db&state=ready&state=running")).json
    assert [item["id"] for item in listed["items"]] == [job["id"]]
    assert (await house.ask("GET", "/v1/jobs?label=a%3Dc")).json["items"] == []


@pytest.mark.row("003:213")
async def test_a_submit_sent_again_with_its_operation_id_gets_the_first_answer(house: House) -> None:
    headers = {"Operation-Id": "op-1"}
    first = await house.ask("POST", "/v1/jobs", json={"kind": KIND}, headers=headers)
    again = await house.ask("POST", "/v1/jobs", json={"kind": KIND}, headers=headers)
    assert (first.status, again.status) == (201, 201)
    assert first.json["id"] == again.json["id"]
    assert await depth(house) == 1


@pytest.mark.row("002:202")
async def test_a_hundred_racing_submits_with_one_key_make_one_job(house: House) -> None:
    body = {"kind": KIND, "payload": 1, "idempotency_key": "k"}
    answers = await asyncio.gather(*(house.ask("POST", "/v1/jobs", json=body) for _ in range(100)))
    assert sorted(answer.status for answer in answers) == [200] * 99 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1
    assert await depth(house) == 1
    other = await house.ask("POST", "/v1/jobs", json={**body, "payload": 2})
    assert (other.status, other.json["code"]) == (409, "idempotency-conflict")


@pytest.mark.row("002:201")
async def test_a_full_queue_answers_429_with_retry_after_and_keeps_nothing(house: House) -> None:
    await house.foreman.declare_queue(QueueSpec(name="default", limits=Limits(depth=2)))
    answers = [await house.ask("POST", "/v1/jobs", json={"kind": KIND}) for _ in range(4)]
    assert [answer.status for answer in answers] == [201, 201, 429, 429]
    refused = answers[-1]
    assert (refused.json["code"], refused.json["retry"]) == ("queue-full", "later")
    assert int(refused.headers["retry-after"]) >= 1
    assert await depth(house) == 2


BAD: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({}, 422, "invalid", "kind"),
    ({"kind": "nobody.knows"}, 422, "unknown-kind", "kind"),
    ({"kind": KIND, "colour": 1}, 422, "invalid", "colour"),
    ({"kind": KIND, "needs": {"gpus": 1}}, 422, "invalid", "needs.gpus"),
    ({"kind": KIND, "needs": {"models": [1]}}, 422, "invalid", "needs.models[0]"),
    ({"kind": KIND, "needs": {"amounts": {"slots": 0}}}, 422, "invalid", None),
    ({"kind": KIND, "needs": {"versions": {"comfyui": "new"}}}, 422, "invalid", None),
    ({"kind": KIND, "priority": 101}, 422, "invalid", "priority"),
    ({"kind": KIND, "priority": -1}, 422, "invalid", "priority"),
    ({"kind": KIND, "delay": -0.1}, 422, "invalid", "delay"),
    ({"kind": KIND, "delay": 1, "run_at": "2027-01-01T00:00:00Z"}, 422, "invalid", "run_at"),
    ({"kind": KIND, "run_at": "2027-01-01T00:00:00"}, 422, "invalid", "run_at"),
    ({"kind": KIND, "timeouts": {"run": -1}}, 422, "invalid", "timeouts.run"),
    ({"kind": KIND, "queue": "no.such"}, 422, "invalid", "queue"),
    ({"kind": KIND, "queue": "elsewhere"}, 404, "unknown-queue", None),
    ({"kind": KIND, "webhook": "http://127.0.0.1/"}, 422, "invalid", "webhook"),
    ({"kind": KIND, "payload": "x" * 262_144}, 413, "too-large", "payload"),
    (
        {"kind": KIND, "payload": {"$blob": {"sha256": "0" * 64, "size": 1}}},
        422,
        "invalid",
        "payload.$blob",
    ),
]


@pytest.mark.row("002:108")
async def test_a_wrong_job_is_refused_with_the_field_and_leaves_no_trace(house: House) -> None:
    before = await house.foreman.stats("default")
    for body, status, code, field in BAD:
        answer = await house.ask("POST", "/v1/jobs", json=body)
        assert (answer.status, answer.json["code"]) == (status, code), answer.body
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["request_id"] == answer.headers["x-request-id"]
        assert answer.json["detail"]
        assert field is None or answer.json["field"] == field, answer.body
    after = await house.foreman.stats("default")
    assert (after.depth, after.totals, after.offset) == (before.depth, before.totals, before.offset)


BROKEN = [
    (b"{", "malformed"),
    (b"", "malformed"),
    (b'{"kind":"text.echo"} x', "malformed"),
    (b'{"kind":"text.echo","payload":"\xff"}', "malformed"),
    (b'{"kind":"text.echo","payload":NaN}', "malformed"),
    (b'{"kind":"text.echo","payload":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "malformed"),
    (b"[]", "invalid"),
    (b'"text.echo"', "invalid"),
]


async def test_a_broken_body_is_one_clear_problem(house: House) -> None:
    for body, code in BROKEN:
        answer = await house.ask("POST", "/v1/jobs", data=body, headers=JSON)
        assert (answer.status, answer.json["code"]) == (422, code), answer.body


@pytest.mark.row("002:214")
async def test_a_body_over_the_limit_gets_413_sent_at_once_in_chunks_or_compressed(house: House) -> None:
    limit = 10_485_760

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(limit // 65_536 + 1):
            yield b" " * 65_536

    bomb = gzip.compress(b" " * (limit + 1))
    assert len(bomb) < 20_000
    for given in (
        {"data": io.BytesIO(b" " * (limit + 1)), "headers": JSON},
        {"data": endless(), "headers": JSON},
        {"data": bomb, "headers": {**JSON, "Content-Encoding": "gzip"}},
    ):
        answer = await house.ask("POST", "/v1/jobs", **given)
        assert (answer.status, answer.json["code"]) == (413, "too-large")


async def test_a_compressed_body_within_the_limit_is_taken(house: House) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    body = gzip.compress(b'{"kind":"text.echo","payload":"small"}')
    assert (await house.ask("POST", "/v1/jobs", data=body, headers=headers)).json["payload"] == "small"
    broken = await house.ask("POST", "/v1/jobs", data=b"no gzip", headers=headers)
    assert (broken.status, broken.json["code"]) == (422, "malformed")


async def test_a_body_of_another_kind_is_refused(house: House) -> None:
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {**JSON, "Content-Encoding": "br"},
    ):
        answer = await house.ask("POST", "/v1/jobs", data=b'{"kind":"text.echo"}', headers=headers)
        assert (answer.status, answer.json["code"]) == (415, "unsupported-media-type")
    assert await depth(house) == 0


async def test_each_job_of_a_batch_is_judged_by_itself(house: House) -> None:
    jobs = [{"kind": KIND}, {"kind": "x"}, {"kind": KIND, "priority": 900}, {"kind": KIND, "payload": [1]}, 7]
    answer = await house.ask("POST", "/v1/jobs/batch", json={"jobs": jobs}, headers={"Operation-Id": "b"})
    items = answer.json["items"]
    assert answer.status == 200
    assert [item.get("created", False) for item in items] == [True, False, False, True, False]
    assert [item["problem"]["code"] for item in items if "problem" in item] == ["unknown-kind", "invalid", "invalid"]
    assert items[2]["problem"]["field"] == "jobs[2].priority"
    assert await depth(house) == 2
    again = await house.ask("POST", "/v1/jobs/batch", json={"jobs": jobs}, headers={"Operation-Id": "b"})
    assert again.json == answer.json
    assert await depth(house) == 2


async def test_an_empty_batch_and_one_of_501_are_refused(house: House) -> None:
    for count in (0, 501):
        answer = await house.ask("POST", "/v1/jobs/batch", json={"jobs": [{"kind": KIND}] * count})
        assert (answer.status, answer.json["field"]) == (422, "jobs")
    assert await depth(house) == 0


async def test_a_payload_may_refer_to_a_blob_that_is_there(house: House) -> None:
    content = b'"' + b"x" * 300_000 + b'"'
    sha256 = hashlib.sha256(content).hexdigest()
    stored = await house.ask("PUT", f"/v1/blobs/{sha256}", data=content, headers=JSON)
    assert stored.status == 201
    assert stored.json == {"sha256": sha256, "size": len(content), "media_type": "application/json"}
    assert (await house.ask("PUT", f"/v1/blobs/{sha256}", data=content, headers=JSON)).status == 200
    assert (await house.ask("GET", f"/v1/blobs/{sha256}")).body == content
    head = await house.ask("HEAD", f"/v1/blobs/{sha256}")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(content)), b"")
    job_id = await house.submit(payload={"$blob": stored.json})
    assert (await house.ask("GET", f"/v1/jobs/{job_id}")).json["payload"] == {"$blob": stored.json}


async def test_a_blob_that_is_not_what_its_name_says_is_refused(house: House) -> None:
    for name, data, status in (
        ("0" * 64, b"x", 422),
        ("nonsense", b"x", 422),
        (hashlib.sha256(b"z" * 30_000_001).hexdigest(), b"z" * 30_000_001, 413),
    ):
        assert (await house.ask("PUT", f"/v1/blobs/{name}", data=io.BytesIO(data))).status == status
        assert (await house.ask("GET", f"/v1/blobs/{name}")).status in {404, 422}


async def test_an_operation_id_used_for_a_larger_batch_never_answers_short(house: House) -> None:
    headers = {"Operation-Id": "b"}
    first = await house.ask("POST", "/v1/jobs/batch", json={"jobs": [{"kind": KIND}]}, headers=headers)
    other = await house.ask("POST", "/v1/jobs/batch", json={"jobs": [{"kind": KIND}] * 2}, headers=headers)
    assert (first.status, other.status) == (200, 200)
    assert len(other.json["items"]) == 2
    assert all(item["created"] for item in other.json["items"])

"""What a submit is refused for, on a real engine: one clear error each, and no trace."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Raw

from hostler.contracts.job import INLINE_LIMIT, JobRequest, Submitted
from hostler.contracts.needs import Needs
from hostler.contracts.queue import KindSpec
from hostler.kernel.errors import (
    HostlerError,
    IdempotencyConflictError,
    InvalidError,
    PayloadError,
    TooLargeError,
    UnknownKindError,
    UnknownQueueError,
)
from hostler.testing.front import Front, request

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {"prompt": {"type": "string"}, "steps": {"type": "integer"}},
}
SOON = timedelta(hours=1)


@pytest.mark.row("003:41")
@pytest.mark.parametrize(
    ("fields", "error", "field"),
    [
        ({"payload": {"steps": 3}}, PayloadError, "payload"),
        ({"payload": {"prompt": "x", "steps": "many"}}, PayloadError, "payload.steps"),
        ({"payload": {"prompt": "x" * INLINE_LIMIT}}, TooLargeError, "payload"),
        ({"deadline": datetime(2001, 1, 1, tzinfo=UTC)}, InvalidError, "deadline"),
        ({"delay": 1.0, "run_at": datetime.now(UTC) + SOON}, InvalidError, "run_at"),
        ({"delay": -1.0}, InvalidError, "delay"),
        ({"priority": 101}, InvalidError, "priority"),
        ({"queue": "nowhere"}, UnknownQueueError, "queue"),
        ({"needs": Needs(versions={"comfyui": "newest"})}, InvalidError, "needs.versions.comfyui"),
        ({"needs": Needs(amounts={"gpu_memory": -1.0})}, InvalidError, "needs.amounts.gpu_memory"),
    ],
)
async def test_a_wrong_request_is_refused_with_its_field_and_leaves_no_trace(
    front: Front, fields: dict[str, Any], error: type[HostlerError], field: str
) -> None:
    await front.foreman.declare_kind(KindSpec(name="draw", queue="images", payload=SCHEMA))
    with pytest.raises(error) as refused:
        await front.submit("draw", **({"payload": {"prompt": "x"}} | fields))
    assert type(refused.value) is error
    assert refused.value.facts["field"] == field
    stats = await front.foreman.stats("images")
    assert (stats.depth, stats.offset, stats.lanes) == (0, 0, 0)


async def test_a_payload_that_is_too_large_says_how_to_pass_it_by_reference(front: Front) -> None:
    with pytest.raises(TooLargeError, match="/v1/blobs"):
        await front.submit(payload="x" * INLINE_LIMIT)
    reference = {"$blob": {"sha256": "a" * 64, "size": INLINE_LIMIT + 2}}
    assert await front.submit(payload=reference)


async def test_bytes_that_are_no_json_are_refused(front: Front) -> None:
    (answer,) = await front.answers(JobRequest(kind="draw", payload=Raw(b'{"prompt": ')))
    assert isinstance(answer, PayloadError)


async def test_a_batch_over_several_queues_and_steps_is_answered_in_order(front: Front) -> None:
    await front.foreman.declare_kind(KindSpec(name="other", queue="others"))
    requests = [request("draw" if n % 3 else "other", payload=n) for n in range(250)]
    requests[7] = request("unheard.of")
    answers = await front.desk.submit(requests, operation="batch")
    assert isinstance(answers[7], UnknownKindError)
    for n, answer in enumerate(answers):
        if n != 7:
            assert isinstance(answer, Submitted)
            job = await front.desk.get(answer.id, payload=True)
            assert (job.queue, job.payload) == ("images" if n % 3 else "others", Raw(str(n).encode()))
    again = await front.desk.submit(requests, operation="batch")
    assert [type(answer) for answer in again] == [type(answer) for answer in answers]
    assert [answer for answer in again if isinstance(answer, Submitted)] == [
        answer for answer in answers if isinstance(answer, Submitted)
    ]
    assert (await front.foreman.stats("images")).depth + (await front.foreman.stats("others")).depth == 249


@pytest.mark.row("003:213")
async def test_the_answer_to_an_operation_is_given_again_by_another_process(front: Front) -> None:
    other = Front(front.engine)
    (first,) = await front.desk.submit([request()], operation="once")
    (again,) = await other.desk.submit([request()], operation="once")
    assert first == again
    assert (await front.foreman.stats("images")).depth == 1
    await other.aclose()


async def test_an_operation_id_used_for_another_number_of_jobs_is_a_conflict_for_its_own_caller_only(
    front: Front,
) -> None:
    first = await front.desk.submit([request(), request()], operation="twice")
    longer, other, shorter, same = await asyncio.gather(
        front.desk.submit([request()] * 3, operation="twice"),
        front.desk.submit([request(tenant="blue")], operation="else"),
        front.desk.submit([request()], operation="twice"),
        front.desk.submit([request(), request()], operation="twice"),
    )
    assert [type(answer) for answer in (*longer, *shorter)] == [IdempotencyConflictError] * 4
    assert same == first
    (stored,) = other
    assert isinstance(stored, Submitted)
    assert (await front.desk.get(stored.id)).tenant == "blue"
    assert (await front.foreman.stats("images")).depth == 3


async def test_one_operation_handed_in_twice_at_one_moment_stores_its_jobs_once(front: Front) -> None:
    calls = [front.desk.submit([request(), request()], operation="twins") for _ in range(8)]
    answers = await asyncio.gather(*calls)
    assert len(set(answers)) == 1
    assert (await front.foreman.stats("images")).depth == 2

"""Operating over HTTP: queues, workers, actions on many jobs, the dead."""

import pytest

from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.lease import Die

from .conftest import House

FAILURE = Failure(class_=FailureClass.INVALID_INPUT, message="no")


async def states(house: House) -> dict[str, int]:
    stats = await house.foreman.stats("default")
    return {"ready": stats.ready, **stats.kept}


async def kill(house: House, count: int) -> list[str]:
    ids = [await house.submit(labels={"batch": "x"}) for _ in range(count)]
    for _ in ids:
        await house.finish(await house.claim(), Die(failure=FAILURE))
    return ids


async def test_a_queue_is_paused_resumed_and_drained_with_and_without_a_reason(house: House) -> None:
    listed = (await house.ask("GET", "/v1/queues")).json
    assert [queue["name"] for queue in listed["items"]] == ["default"]
    assert [kind["name"] for kind in listed["items"][0]["kinds"]] == ["text.echo"]
    paused = await house.ask("POST", "/v1/queues/default/pause", json={"reason": "too hot"})
    assert (paused.status, paused.json["stats"]["paused"], paused.json["stats"]["reason"]) == (200, True, "too hot")
    resumed = await house.ask("POST", "/v1/queues/default/resume")
    assert resumed.json["stats"]["paused"] is False
    drained = await house.ask("POST", "/v1/queues/default/drain")
    assert drained.json["stats"]["draining"] is True
    refused = await house.ask("POST", "/v1/jobs", json={"kind": "text.echo"})
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    await house.ask("POST", "/v1/queues/default/resume")
    assert (await house.ask("POST", "/v1/jobs", json={"kind": "text.echo"})).status == 201


async def test_a_queue_that_is_not_there_is_404(house: House) -> None:
    for method, path in (("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/drain")):
        for name in ("nobody", "No.Queue"):
            answer = await house.ask(method, f"/v1/queues/{name}{path}")
            assert (answer.status, answer.json["code"]) == (404, "unknown-queue"), (method, path, name)
    answer = await house.ask("GET", "/v1/jobs?queue=nobody")
    assert (answer.status, answer.json["code"]) == (404, "unknown-queue")


async def test_a_worker_is_shown_and_takes_commands(house: House) -> None:
    assert (await house.ask("GET", "/v1/workers")).json == {"items": [], "next": None}
    await house.announce()
    (worker,) = (await house.ask("GET", "/v1/workers")).json["items"]
    assert (worker["id"], worker["state"], worker["offers"][0]["service"]) == ("w-test", "ready", "echo")
    assert (await house.ask("GET", "/v1/workers/w-test")).json["id"] == "w-test"
    for verb in ("pause", "resume", "drain"):
        answer = await house.ask("POST", f"/v1/workers/w-test/{verb}")
        assert (answer.status, answer.json) == (202, {"worker": "w-test", "verb": verb})
    assert await house.registry.commands("w-test") == ("pause", "resume", "drain")
    for method, path in (("GET", "/v1/workers/nobody"), ("POST", "/v1/workers/nobody/pause")):
        assert (await house.ask(method, path)).status == 404


async def test_a_cancel_is_answered_the_same_twice_and_refused_after_another_end(house: House) -> None:
    job_id = await house.submit()
    for _ in range(2):
        answer = await house.ask("POST", f"/v1/jobs/{job_id}/cancel", json={"reason": "not needed"})
        assert (answer.status, answer.json) == (200, {"id": job_id, "state": "cancelled"})
    (dead,) = await kill(house, 1)
    refused = await house.ask("POST", f"/v1/jobs/{dead}/cancel")
    assert (refused.status, refused.json["code"]) == (409, "wrong-state")


async def test_a_running_job_is_asked_to_stop(house: House) -> None:
    job_id = await house.submit()
    await house.claim()
    assert (await house.ask("POST", f"/v1/jobs/{job_id}/cancel")).json["state"] == "running"
    assert (await house.ask("GET", f"/v1/jobs/{job_id}")).json["cancel_requested"] is True


async def test_a_dead_job_is_replayed_once_per_operation_id(house: House) -> None:
    (job_id,) = await kill(house, 1)
    headers = {"Operation-Id": "again"}
    for _ in range(2):
        answer = await house.ask("POST", f"/v1/jobs/{job_id}/retry", headers=headers)
        assert (answer.status, answer.json["state"]) == (200, "ready")
    assert (await house.ask("GET", f"/v1/jobs/{job_id}")).json["generation"] == 2
    refused = await house.ask("POST", f"/v1/jobs/{job_id}/retry")
    assert (refused.status, refused.json["code"]) == (409, "wrong-state")


async def test_the_dead_are_listed_with_their_attempts_replayed_and_purged(house: House) -> None:
    ids = await kill(house, 4)
    listed = (await house.ask("GET", "/v1/dead?queue=default&label=batch%3Dx")).json["items"]
    assert {job["id"] for job in listed} == set(ids)
    error = listed[0]["attempts"][0]["error"]
    assert (error["class"], error["message"]) == ("invalid_input", "no")
    dry = (await house.ask("POST", "/v1/dead/replay", json={"ids": ids[:2], "dry_run": True})).json
    assert (dry["matched"], dry["done"], (await states(house))["dead"]) == (2, 0, 4)
    for _ in range(2):
        body = {"ids": [*ids[:2], "default.999"]}
        done = (await house.ask("POST", "/v1/dead/replay", json=body, headers={"Operation-Id": "r"})).json
        assert (done["done"], done["failed"]) == (2, 1)
        assert done["items"][2]["problem"]["code"] == "not-found"
        assert await states(house) == {"ready": 2, "succeeded": 0, "dead": 2, "cancelled": 0, "expired": 0}
    purged = (await house.ask("POST", "/v1/dead/purge", json={"filter": {"kind": "text.echo"}})).json
    assert (purged["done"], purged["failed"], (await states(house))["dead"]) == (2, 0, 0)
    assert (await house.ask("GET", f"/v1/jobs/{ids[2]}")).status == 404


@pytest.mark.row("002:195")
async def test_the_dead_are_found_by_the_class_of_their_error_and_by_when_they_ended(house: House) -> None:
    ids = await kill(house, 2)
    ended = (await house.ask("GET", f"/v1/jobs/{ids[0]}")).json["finished_at"].replace("+", "%2B")
    for query, found in (
        ("error_class=invalid_input", 2),
        ("error_class=timeout", 0),
        ("ended_since=2026-01-01T00:00:00Z", 2),
        ("ended_until=2026-01-01T00:00:00Z", 0),
        (f"ended_since={ended}&error_class=invalid_input", 2),
    ):
        for path in ("dead", "jobs"):
            assert len((await house.ask("GET", f"/v1/{path}?{query}")).json["items"]) == found, (path, query)
    body = {"filter": {"error_class": "transient"}}
    assert (await house.ask("POST", "/v1/dead/purge", json=body)).json["matched"] == 0
    body = {"filter": {"error_class": "invalid_input", "ended_since": "2026-01-01T00:00:00Z"}}
    assert (await house.ask("POST", "/v1/dead/replay", json=body)).json["done"] == 2


@pytest.mark.row("002:195")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("error_class", "bogus"),
        ("error_class", "timeout:lunch"),
        ("ended_since", "yesterday"),
        ("ended_since", "2026-01-01T00:00:00"),
        ("ended_until", "2026-13-01T00:00:00Z"),
    ],
)
async def test_a_class_or_a_time_that_is_none_is_refused_by_its_name(house: House, field: str, value: str) -> None:
    for answer, named in (
        (await house.ask("GET", f"/v1/dead?{field}={value}"), field),
        (await house.ask("GET", f"/v1/jobs?{field}={value}"), field),
        (await house.ask("POST", "/v1/dead/replay", json={"filter": {field: value}}), f"filter.{field}"),
        (await house.ask("POST", "/v1/dead/purge", json={"filter": {field: value}}), f"filter.{field}"),
    ):
        assert (answer.status, answer.json["field"]) == (422, named)


async def test_many_jobs_are_cancelled_by_filter_slice_by_slice(house: House) -> None:
    keep = await house.submit()
    for _ in range(7):
        await house.submit(labels={"run": "nightly"})
    body = {"verb": "cancel", "filter": {"labels": {"run": "nightly"}}, "reason": "wrong model"}
    dry = (await house.ask("POST", "/v1/jobs/actions", json={**body, "dry_run": True})).json
    assert (dry["matched"], dry["done"]) == (7, 0)
    done, cursor = 0, None
    for _ in range(20):
        report = (await house.ask("POST", "/v1/jobs/actions", json={**body, "limit": 3, "cursor": cursor})).json
        done, cursor = done + report["done"], report["next"]
        assert report["matched"] <= 3
        if cursor is None:
            break
    assert done == 7
    assert (await states(house))["cancelled"] == 7
    assert (await house.ask("GET", f"/v1/jobs/{keep}")).json["state"] == "ready"


@pytest.mark.parametrize(
    "body",
    [
        {"verb": "cancel"},
        {"verb": "cancel", "filter": {}},
        {"verb": "cancel", "all": True, "ids": ["default.1"]},
        {"verb": "explode", "all": True},
        {"verb": "retry", "filter": {"states": ["ready"]}},
        {"verb": "cancel", "ids": ["nonsense"]},
        {"verb": "cancel", "filter": {"colour": "red"}},
        {"verb": "cancel", "all": True, "limit": 0},
    ],
)
async def test_an_action_that_does_not_say_which_jobs_touches_none(house: House, body: dict[str, object]) -> None:
    await house.submit()
    answer = await house.ask("POST", "/v1/jobs/actions", json=body)
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert await states(house) == {"ready": 1, "succeeded": 0, "dead": 0, "cancelled": 0, "expired": 0}


async def test_all_jobs_are_touched_only_when_that_is_said(house: House) -> None:
    for _ in range(3):
        await house.submit()
    report = (await house.ask("POST", "/v1/jobs/actions", json={"verb": "cancel", "all": True})).json
    assert (report["done"], (await states(house))["cancelled"]) == (3, 3)
    again = (await house.ask("POST", "/v1/jobs/actions", json={"verb": "retry", "all": True})).json
    assert again["matched"] == 0


async def test_a_list_is_walked_page_by_page_without_doubles(house: House) -> None:
    ids = [await house.submit() for _ in range(7)]
    seen: list[str] = []
    cursor = ""
    for _ in range(20):
        page = (await house.ask("GET", f"/v1/jobs?limit=3{cursor}")).json
        seen += [job["id"] for job in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == ids[::-1]
    bad = await house.ask("GET", "/v1/jobs?cursor=nonsense")
    assert (bad.status, bad.json["code"]) == (422, "invalid")

"""Limits, times and retries are changed while everything runs: once, for all, with a reason that is kept."""

from typing import Any

import pytest

import hostler
from hostler.contracts.failure import FailureClass
from hostler.contracts.queue import RetryPolicy
from hostler.kernel.errors import InvalidError
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric, Ports
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import registry_key

from .conftest import KIND, House

SLOW = RetryPolicy(base=1_000_000.0, cap=1_000_000.0)


@hostler.handler("c.second", retry=SLOW)
async def second(call: hostler.Call[Any]) -> int:
    """Fail at first, succeed at the second attempt: soon or in days, as the retry policy says."""
    if call.attempt == 1:
        raise hostler.Failed(FailureClass.TRANSIENT, "not yet")
    return call.attempt


@pytest.mark.row("001:308")
async def test_a_retry_setting_that_is_changed_once_reaches_every_running_worker(house: House, engine: Engine) -> None:
    fabric = Fabric(Ports(broker=house.broker, desk=house.desk, foreman=house.foreman, registry=house.registry))
    async with (
        fabric.worker(second, id="one", labels={"who": "one"}),
        fabric.worker(second, id="two", labels={"who": "two"}),
        hostler.connect(house.url) as fleet,
    ):
        late = await fleet.submit("c.second")
        await eventually(lambda: has_state(fabric, late.id, "scheduled"))
        row = await fleet.queues.configure(
            "default", kinds={"c.second": {"retry": {"base": 0.0, "cap": 0.0}}}, reason="the service is quick again"
        )
        assert [kind.retry.base for kind in row.kinds if kind.name == "c.second"] == [0.0]

        async def follows(worker: str) -> bool:
            job = await fleet.submit("c.second", needs={"labels": {"who": worker}})
            await eventually(lambda: attempted(fabric, job.id))
            return await has_state(fabric, job.id, "succeeded") or await has_state(fabric, job.id, "ready", "running")

        for worker in ("one", "two"):
            await eventually(lambda worker=worker: follows(worker), within=5)
        assert await has_state(fabric, late.id, "scheduled")
    entries: list[Any] = await engine.command("XRANGE", registry_key("ev"), "-", "+")
    assert b"the service is quick again" in repr(entries).encode()


async def has_state(fabric: Fabric, job: str, *states: str) -> bool:
    return (await fabric.get(job)).state in states


async def attempted(fabric: Fabric, job: str) -> bool:
    return len((await fabric.get(job)).attempts) > 0


@pytest.mark.row("001:308")
async def test_a_concurrency_limit_holds_from_the_next_claim_on(house: House) -> None:
    async with hostler.connect(house.url) as fleet:
        for _ in range(3):
            await fleet.submit(KIND, concurrency_key="k")
        await house.claim()
        assert (await house.foreman.stats("default")).running == 1
        found = await fleet.queues.configure("default", queue={"limits": {"key_running": 2}}, reason="more memory")
        assert (found.spec.limits.key_running, found.spec.limits.depth) == (2, 1_000_000)
        await fleet.submit(KIND, concurrency_key="k")
        await house.claim()
        assert (await house.foreman.stats("default")).running == 2


@pytest.mark.row("003:343")
async def test_what_cannot_be_changed_is_refused_by_name_and_changes_nothing(house: House, engine: Engine) -> None:
    async with hostler.connect(house.url) as fleet:
        before = await fleet.queues.get("default")
        wrong: tuple[tuple[dict[str, Any], str], ...] = (
            ({"queue": {"lease": -1}}, "lease"),
            ({"queue": {"limits": {"dept": 3}}}, r"`dept`.*, known are bytes, depth, .*; did you mean depth\?"),
            ({"queue": {"limts": {"depth": 3}}}, r"known are about, .*; did you mean limits\?"),
            ({"queue": {"name": "other"}}, "queue.name"),
            ({"queue": {"consumers": ["Not A Role"]}}, "consumers"),
            ({"kinds": {"no.such": {"about": "x"}}}, KIND),
            ({"kinds": {KIND: {"retri": {"attempts": 2}}}}, r"known are about, .*; did you mean retry\?"),
            ({"kinds": {KIND: {"queue": "elsewhere"}}}, "queue"),
            ({"queue": {"lease": 5}, "kinds": {KIND: {"retry": {"attempts": 0}}}}, "attempts"),
        )
        for body, word in wrong:
            with pytest.raises(InvalidError, match=word):
                await fleet.queues.configure("default", reason="try", **body)
        after = await fleet.queues.get("default")
        assert (after.spec, after.kinds) == (before.spec, before.kinds)
    assert "try" not in repr(await engine.command("XRANGE", registry_key("ev"), "-", "+"))
    refused = await house.ask("POST", "/v1/queues/default/configure", json={"queue": {"lease": 5}})
    assert (refused.status, refused.json["field"]) == (422, "reason")

"""Workers on a real cluster of which one primary is gone, or hangs."""

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

import pytest

import hostler
from hostler.chaos.check import Submission, check
from hostler.chaos.nodes import Node
from hostler.contracts.event import Event
from hostler.contracts.job import JobRequest, Submitted
from hostler.contracts.queue import KindSpec
from hostler.kernel.settings import EngineSettings
from hostler.testing.cluster_set import ClusterSet
from hostler.testing.engine_fabric import link_to, opened
from hostler.testing.fabric import Fabric, Ports

HERE, THERE = "default", "main"
"""Their slots lie on two primaries, that of the registry on the third."""
AT_MOST = 60.0


@hostler.handler("c.here", queue=HERE)
async def here(call: hostler.Call[Any]) -> int:
    await asyncio.sleep(0.02)  # not waiting: the work itself
    return call.fence


@hostler.handler("c.there", queue=THERE)
async def there(call: hostler.Call[Any]) -> int:
    await asyncio.sleep(0.02)  # not waiting: the work itself
    return call.fence


async def submitted(ports: Ports, kind: str, queue: str, *, count: int, operation: str) -> list[Submission]:
    requests = [JobRequest(kind=kind, queue=queue) for _ in range(count)]
    answers = await ports.desk.submit(requests, operation=operation)
    return [
        Submission(id=answer.id, request=request)
        for answer, request in zip(answers, requests, strict=True)
        if isinstance(answer, Submitted)
    ]


async def judge(ports: Ports, queue: str, told: Sequence[Submission]) -> None:
    """Every job succeeded, each was recorded once, and the books are right."""
    fabric = Fabric(ports)
    jobs = {each.id: await fabric.ended(each.id, within=AT_MOST) for each in told}
    events: list[Event] = []
    while (page := await ports.desk.events(queue, after=events[-1].offset if events else 0)).events:
        events.extend(page.events)
    finished = [event.job for event in events if event.type == "finish" and event.job is not None]
    assert sorted(finished) == sorted(jobs)
    audit, stats = await ports.foreman.audit(queue), await ports.foreman.stats(queue)
    verdict = check(events, submitted=told, final=jobs, stats=stats, audit=audit)
    assert verdict.clean, verdict


def kill(node: Node) -> None:
    node.kill()


def hang(node: Node) -> None:
    node.signal(signal.SIGSTOP)


@pytest.mark.timeout(300)
@pytest.mark.row("003:293")
@pytest.mark.parametrize("strike", [kill, pytest.param(hang, marks=pytest.mark.long)])
async def test_workers_go_on_with_the_queues_of_the_others_and_nothing_is_lost_or_recorded_twice(strike: Any) -> None:
    async with ClusterSet.started() as nodes:
        settings = EngineSettings(url=nodes.url)
        async with opened(settings) as (engine, ports):
            for kind, queue in (("c.here", HERE), ("c.there", THERE)):
                await ports.foreman.declare_kind(KindSpec(name=kind, queue=queue))
            fabric = Fabric(ports)
            async with (
                fabric.worker(here, there, slots=1, link=link_to(settings), id="one"),
                fabric.worker(here, there, slots=4, link=link_to(settings), id="two"),
            ):
                away = await submitted(ports, "c.there", THERE, count=100, operation="before")
                await fabric.ended(away[3].id, within=AT_MOST)
                struck = await nodes.primary_of(THERE)
                await nodes.hold_back(struck)
                await asyncio.to_thread(strike, struck)
                told = await submitted(ports, "c.here", HERE, count=60, operation="meanwhile")
                for each in told:
                    assert (await fabric.ended(each.id, within=AT_MOST)).state == "succeeded"
                runs = {event.worker for each in told for event in await claims(fabric, each.id)}
                assert runs == {"one", "two"}, "each of them goes on"
                await nodes.hold_back(struck, held=False)
                await nodes.until_primary_is_not(THERE, struck)
                await engine.until_available(AT_MOST)
                await judge(ports, THERE, away)
                await judge(ports, HERE, told)
                if strike is hang:
                    struck.signal(signal.SIGCONT)


async def claims(fabric: Fabric, job: str) -> Sequence[Event]:
    return [event for event in await fabric.events(job) if event.type == "claim"]

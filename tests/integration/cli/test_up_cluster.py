"""`hostler up`, and the commands beside it, on a cluster of real servers."""

import asyncio

import pytest

import hostler
from hostler.client import JobHandle
from hostler.testing.cluster_set import ClusterSet

from .conftest import Ran, Shell
from .test_up import ready, system

AT_MOST = 120.0
HANDLERS = """
import asyncio
import hostler

@hostler.handler("more.here", payload=int, result=int)
async def here(call):
    return call.payload

@hostler.handler("more.there", queue="main", payload=int, result=int)
async def there(call):
    await asyncio.sleep(0.1)  # not waiting: the work itself
    return call.payload
"""
THERE = "main"
"""Its slot, that of `default` and that of the registry are on three primaries."""


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.row("003:293")
async def test_a_whole_system_loses_nothing_with_a_primary_of_its_cluster_and_the_rest_goes_on(shell: Shell) -> None:
    async with ClusterSet.started() as nodes:
        engine = ("--engine", nodes.url)
        doctor = await ran(shell, "doctor", *engine, "--json", HOSTLER_GATEWAY_BIND="127.0.0.1:0")
        assert doctor.code == 0, doctor.out
        assert "in the last 2 s (`cluster-node-timeout`)" in doctor.out
        backup = await ran(shell, "backup", *engine, "a.tar")
        assert backup.code != 0
        assert "back it up with the tools of its server" in backup.err
        with system(shell, engine=engine, handlers=HANDLERS) as up:
            await ready(up)
            async with hostler.connect(up.url) as fleet:
                there = [await fleet.submit("more.there", number) for number in range(60)]
                assert await there[0].result(timeout=AT_MOST) == 0
                await nodes.hold_back(await nodes.primary_of(THERE))
                killed = await nodes.kill_primary(THERE)
                here = [await fleet.submit("more.here", number) for number in range(20)]
                assert [await job.result(timeout=AT_MOST) for job in here] == list(range(20))
                await nodes.hold_back(killed, held=False)
                await nodes.until_primary_is_not(THERE, killed)
                assert [await job.result(timeout=AT_MOST) for job in there] == list(range(60))
                for job in (*here, *there):
                    assert await finishes(job) == 1
            listed = await ran(shell, "queues", "list", "--json", "--url", up.url)
            assert listed.code == 0, listed.err
            jobs = await ran(shell, "jobs", "list", "--json", "--url", up.url)
            assert jobs.code == 0, jobs.err
        doctor = await ran(shell, "doctor", *engine, "--json", HOSTLER_GATEWAY_BIND="127.0.0.1:0")
        assert "has no replica: should it fail, queues in its slots" in doctor.out


async def ran(shell: Shell, *arguments: str, **environment: str) -> Ran:
    """Run a command beside the loop, for as long as it may take on a busy machine."""
    return await asyncio.to_thread(shell.run, *arguments, within=AT_MOST, **environment)


async def finishes(job: JobHandle) -> int:
    return [event.type for event in (await job.timeline()).events].count("finish")

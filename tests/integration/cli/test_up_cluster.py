"""`hostler up` and `hostler doctor` on a cluster of real servers."""

import asyncio

import pytest

from hostler.testing.cluster_set import ClusterSet

from .conftest import Shell
from .test_up import ready, system

AT_MOST = 60.0


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.row("003:293")
async def test_jobs_go_through_a_cluster_while_and_after_the_primary_of_their_queue_dies(shell: Shell) -> None:
    async with ClusterSet.started() as nodes:
        where = ("--engine", nodes.url)
        doctor = await asyncio.to_thread(shell.run, "doctor", *where, "--json", HOSTLER_GATEWAY_BIND="127.0.0.1:0")
        said = [(line["check"], line["level"], line["message"]) for line in doctor.lines if "check" in line]
        assert doctor.code == 0, said
        assert any(
            check == "durability" and "in the last 2 s (`cluster-node-timeout`)" in words for check, _, words in said
        )
        assert ("engine", "bad") not in {(check, level) for check, level, _ in said}
        backup = await asyncio.to_thread(shell.run, "backup", *where, "a.tar")
        assert backup.code != 0
        assert "back it up with the tools of its server" in backup.err
        with system(shell, engine=where) as up:
            await ready(up)
            url = ("--url", up.url)
            first = await asyncio.to_thread(
                shell.run, "submit", "text.upper", "--data", '"abc"', "--wait", "--json", *url
            )
            assert (first.code, first.last["outcome"], first.last["result"]) == (0, "succeeded", "ABC"), first.err
            under_way = await asyncio.to_thread(shell.run, "submit", "text.slow", "--data", "2.0", "--json", *url)
            killed = await nodes.kill_primary("default")
            await nodes.until_primary_is_not("default", killed)
            after = await asyncio.to_thread(
                shell.run, "submit", "text.upper", "--data", '"xyz"', "--wait", "--json", *url
            )
            assert (after.code, after.last["outcome"], after.last["result"]) == (0, "succeeded", "XYZ"), after.err
            followed = await asyncio.to_thread(
                shell.run, "jobs", "follow", under_way.last["id"], "--json", *url, within=AT_MOST
            )
            assert followed.last["outcome"] == "succeeded", followed.out
        doctor = await asyncio.to_thread(shell.run, "doctor", *where, "--json", HOSTLER_GATEWAY_BIND="127.0.0.1:0")
        assert "has no replica: should it fail, queues in its slots" in doctor.out

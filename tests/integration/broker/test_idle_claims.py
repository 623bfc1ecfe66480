"""What a claim that finds nothing costs the engine: it reads from a hash table, and hardly ever writes."""

from collections.abc import AsyncGenerator

import pytest

from hostler.testing.bench import Bench, Server
from hostler.valkeyio.keys import prefix
from hostler.valkeyio.library_text import Build

START = 1_800_000_000_000_000


@pytest.fixture(scope="module")
def clocked() -> object:
    server = Server()
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def bench(clocked: Server) -> AsyncGenerator[Bench]:
    await clocked.up()
    found = Bench(clocked, "idle", Build(clock="key"))
    await found.library.ensure()
    await at(found, 0.0)
    yield found
    await found.command("FLUSHALL")
    await found.aclose()


async def at(bench: Bench, seconds: float) -> None:
    """Set the clock."""
    await bench.command("SET", prefix(bench.queue) + "clock", START + round(seconds * 1_000_000))


async def written(bench: Bench, seconds: float) -> int:
    """Claim in vain at this time; return how many changes of data that made."""
    await at(bench, seconds)
    before = (await bench.command("INFO", "persistence"))["rdb_changes_since_last_save"]
    assert await bench.claim() == ()
    return int((await bench.command("INFO", "persistence"))["rdb_changes_since_last_save"]) - int(before)


async def test_a_claim_that_finds_nothing_writes_nothing_within_a_second_of_the_one_before(bench: Bench) -> None:
    assert await written(bench, 0.0) > 0
    assert [await written(bench, seconds) for seconds in (0.3, 0.6, 0.999)] == [0, 0, 0]
    assert [await written(bench, seconds) for seconds in (1.0, 1.2, 1.9, 2.1)] == [1, 0, 0, 1]


async def test_idle_workers_are_written_as_live_with_every_second_claim(bench: Bench) -> None:
    await written(bench, 0.0)
    changes = [await written(bench, seconds) for seconds in (3.5, 7.0, 10.5, 14.0)]
    assert changes == [1, 2, 1, 2]  # that time went on, and every second time the worker's row


async def test_while_a_job_runs_the_time_of_every_call_is_kept(bench: Bench) -> None:
    await bench.one()
    await bench.take()
    await written(bench, 0.05)
    assert [await written(bench, seconds) for seconds in (0.1, 0.2, 0.3)] == [1, 1, 1]


@pytest.mark.parametrize("charged", [1, 0])
async def test_only_silence_while_jobs_run_grants_a_grace(bench: Bench, charged: int) -> None:
    await written(bench, 0.0)
    await at(bench, 20.0)
    job = await bench.one()
    await bench.take()
    for seconds in (20.1, 24.0, 27.0, 29.4, 30.1):
        if seconds == 20.1 or charged or seconds > 29.0:
            await at(bench, seconds)
            await bench.tick()
    assert await bench.state(job) == ("ready" if charged else "running")
    for seconds in (34.0, 38.0, 40.2):
        await at(bench, seconds)
        await bench.tick()
    assert await bench.state(job) == "ready"
    assert (await bench.record(job)).crashes == charged


async def test_time_does_not_step_back_behind_what_was_written_though_idle_claims_wrote_no_time(bench: Bench) -> None:
    await written(bench, 0.0)
    await at(bench, 0.9)
    job = await bench.one(delay=3600.0)
    await written(bench, 1.5)
    await at(bench, -3600.0)
    later = await bench.one(delay=3600.0)
    times = [event.at for event in await bench.events()]
    assert times == sorted(times)
    assert (await bench.record(later)).created >= (await bench.record(job)).created


async def test_the_scalars_of_a_queue_are_a_hash_table_from_its_first_call_on(bench: Bench) -> None:
    await bench.one()
    assert await bench.command("OBJECT", "ENCODING", prefix(bench.queue) + "meta") == b"hashtable"

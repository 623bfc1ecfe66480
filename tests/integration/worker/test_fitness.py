"""A worker that lacks what any job needs takes none, says what it lacks, and begins when that is there."""

import asyncio
import resource
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hostler.blobs import open_blobs
from hostler.connectors.catalogue import build
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.settings import EngineSettings
from hostler.registry.engine import EngineRegistry
from hostler.testing.engine_fabric import fabric_on
from hostler.testing.eventually import eventually
from hostler.testing.fabric import Fabric
from hostler.testing.sims.http import SimulationHTTPService
from hostler.testing.sims.knobs import SimKnobs
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import registry_key
from hostler.valkeyio.library import Library
from hostler.worker.fitness import Fitness, agrees, has_room, stores
from hostler.worker.system import SystemClock


@pytest.fixture
async def house(engine: Engine) -> AsyncGenerator[Fabric]:
    async with fabric_on(engine) as found:
        yield found


@asynccontextmanager
async def beginning(stack: AsyncExitStack, fabric: Fabric, **more: Any) -> AsyncGenerator[None]:
    """Start a worker without waiting until it is ready; it ends with the stack."""
    task = asyncio.create_task(stack.enter_async_context(fabric.worker(id="w1", **more)))
    try:
        yield
        await task
    finally:
        task.cancel()


async def seen(fabric: Fabric) -> tuple[Worker, ...]:
    return await fabric.ports.registry.workers()


async def events(engine: Engine) -> bytes:
    stream = await engine.command("XRANGE", registry_key("ev"), "-", "+")
    return b"".join(value for _, fields in stream for value in fields.values())


async def test_a_worker_whose_blob_store_cannot_be_written_takes_no_job_until_it_can(
    house: Fabric, engine: Engine, tmp_path: Path
) -> None:
    place = tmp_path / "data"
    async with (
        SimulationHTTPService(SimKnobs(duration=0.01, steps=1)) as service,
        open_blobs(None, place) as blobs,
        AsyncExitStack() as stack,
    ):
        lamp = build("simulation-http", url=service.url, options={"poll": 0.05})
        for folder in place.iterdir():
            folder.rename(tmp_path / folder.name)
        place.rmdir()
        place.write_text("the disk is gone")
        checks = [("blob store", stores(blobs, "w1"))]
        async with beginning(stack, house, connectors=[lamp], checks=checks, blobs=blobs):
            (worker,) = await eventually(lambda: seen(house), within=10.0)
            assert worker.state is WorkerState.STARTING
            assert worker.reason is not None
            assert worker.reason.startswith("not fit to run jobs: blob store: ")
            assert worker.reason.encode() in await events(engine)
            job = await house.submit("sim.echo", {"value": 1})
            why = await house.ports.desk.explain(job)
            assert (why.endpoints, why.kept_out) == (1, {"worker": 1})
            assert "not fit to run jobs: blob store" in why.candidates[0].hindrances[0].words
            assert (await house.get(job)).attempt == 0
            place.unlink()
            place.mkdir()
            for folder in tmp_path.iterdir():
                if folder != place:
                    folder.rename(place / folder.name)
        await house.result(job, within=20.0)
        (worker,) = await seen(house)
        assert (worker.state in {WorkerState.READY, WorkerState.BUSY}, worker.reason) == (True, None)
        assert [path for path in place.rglob("*") if path.is_file()] == [], "the check leaves nothing behind"


async def test_a_worker_that_is_not_fit_can_be_told_to_stop(house: Fabric) -> None:
    async def never() -> str | None:
        return "it never will"

    async with AsyncExitStack() as stack:
        task = asyncio.create_task(stack.enter_async_context(house.worker(id="w1", checks=[("this", never)])))
        await eventually(lambda: seen(house), within=10.0)
        await house.ports.registry.command("w1", "drain")

        async def stopped() -> bool:
            gone = await house.ports.registry.workers(include_gone=True)
            return [worker.state for worker in gone] == [WorkerState.STOPPED]

        await eventually(stopped, within=10.0)
        await task


async def test_a_clock_that_disagrees_with_the_engines_is_named_with_the_difference(engine: Engine) -> None:
    await Library(engine).ensure()
    assert await agrees(EngineRegistry(engine).now, SystemClock())() is None

    async def ahead() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=7)

    words = await agrees(ahead, SystemClock())()
    assert words is not None
    assert "by 7.0 s" in words


async def test_too_little_disk_memory_or_files_is_named_with_what_it_takes() -> None:
    assert await has_room(8)() is None
    assert "of disk free" in str(await has_room(8, disk=10**18)())
    assert "of memory available" in str(await has_room(8, memory=10**18)())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert "more files may be opened, 64 jobs take 288" in str(await has_room(64)())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_check_that_hangs_or_breaks_is_what_is_wrong_and_holds_up_no_other() -> None:
    async def broken() -> str | None:
        raise OSError("no such device")

    async def fine() -> str | None:
        return None

    found = await Fitness([("one", broken), ("two", fine), ("three", broken)]).wrong()
    assert found == "not fit to run jobs: one: OSError: no such device; three: OSError: no such device"


GRPC_ABSENT = "import sys; sys.modules['grpc'] = None; from hostler.cli.main import main; sys.exit(main())"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("No module named 'nowhere'", ("-m", "hostler", "worker", "--handlers", "nowhere.to.be.found")),
        ("pip install 'hostler[grpc]'", ("-c", GRPC_ABSENT, "worker", "--connectors", "simulation-grpc")),
    ],
    ids=["handlers", "extra"],
)
async def test_a_worker_that_cannot_be_built_is_shown_as_failed_with_the_reason(
    engine: Engine,
    engine_settings: EngineSettings,
    tmp_path: Path,
    words: str,
    command: tuple[str, ...],
) -> None:
    command = (sys.executable, *command, "--engine", str(engine_settings.url), "--id", "w7")
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path)
    assert await asyncio.wait_for(process.wait(), 40) != 0
    (worker,) = await EngineRegistry(engine).workers(include_gone=True)
    assert (worker.id, worker.state) == ("w7", WorkerState.FAILED)
    assert words in str(worker.reason)
    assert words.encode() in await events(engine)

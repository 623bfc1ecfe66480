"""A worker that lacks what any job needs takes none, says what it lacks, and begins when that is there."""

import asyncio
import resource
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hostler.blobs import open_blobs
from hostler.connectors.catalogue import build
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.errors import EngineUnavailableError
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
from hostler.worker.call import Call
from hostler.worker.fitness import Fitness, agrees, has_room, stores
from hostler.worker.handlers import handler
from hostler.worker.system import SystemClock, SystemDice


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


async def test_a_worker_that_is_fit_no_longer_pauses_with_the_reason_until_it_is_again_whatever_an_operator_says(
    house: Fabric,
) -> None:
    wrong: list[str] = []

    async def check() -> str | None:
        return wrong[0] if wrong else None

    @handler("fitness.hold")
    async def hold(call: Call[Any]) -> str:
        begun.set()
        await over.wait()
        return call.job_id

    begun, over = asyncio.Event(), asyncio.Event()

    async def state(*states: WorkerState) -> bool:
        return [worker.state for worker in await seen(house) if worker.state in states] != []

    paused = partial(state, WorkerState.PAUSED)
    async with house.worker(hold, id="w1", checks=[("disk", check)], probe_interval=0.02):
        first = await house.submit("fitness.hold")
        await begun.wait()
        wrong.append("3 MB of disk free")
        await eventually(paused, within=20.0)
        (worker,) = await seen(house)
        assert worker.reason == "not fit to run jobs: disk: 3 MB of disk free"
        second = await house.submit("fitness.hold")
        over.set()
        await house.result(first)
        why = await house.ports.desk.explain(second)
        assert "the worker is paused: not fit to run jobs: disk: 3 MB" in why.candidates[0].hindrances[0].words
        await house.ports.registry.command("w1", "resume")
        await house.ports.registry.command("w1", "pause")
        await eventually(partial(reads, house, "paused by an operator; not fit to run jobs: disk: 3 MB of disk free"))
        wrong.clear()
        await eventually(partial(reads, house, "paused by an operator"))
        assert (await house.get(second)).attempt == 0
        await house.ports.registry.command("w1", "resume")
        await house.result(second)


async def test_one_look_that_finds_something_wrong_pauses_nobody() -> None:
    looks, said = 0, list[str | None]()

    async def blip() -> str | None:
        nonlocal looks
        looks += 1
        return "a blip" if looks == 2 else None

    watching = asyncio.create_task(Fitness([("x", blip)]).watch(said.append, SystemDice(), every=0.001))
    await eventually(lambda: looks >= 5)
    watching.cancel()
    assert set(said) <= {None}


async def test_an_engine_that_does_not_answer_is_no_fault_of_the_clock() -> None:
    async def away() -> datetime:
        raise EngineUnavailableError("it is away")

    assert await agrees(away, SystemClock())() is None


async def reads(house: Fabric, reason: str) -> bool:
    return [worker.reason for worker in await seen(house)] == [reason]


async def test_a_clock_that_disagrees_with_the_engines_is_named_with_the_difference(engine: Engine) -> None:
    await Library(engine).ensure()
    assert await agrees(EngineRegistry(engine).now, SystemClock())() is None

    async def ahead() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=7)

    words = await agrees(ahead, SystemClock())()
    assert words is not None
    assert "by 7.0 s" in words


async def test_too_little_disk_memory_or_files_is_named_with_what_it_takes() -> None:
    room = has_room(64)
    assert await room() is None
    assert "of disk free" in str(await has_room(8, disk=10**18)())
    assert "of memory available" in str(await has_room(8, memory=10**18)())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert "more files may be opened, 64 jobs take 288" in str(await has_room(64)())
        assert await room() is None, "what its jobs hold open is theirs"
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

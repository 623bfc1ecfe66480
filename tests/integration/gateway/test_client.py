"""The Python client against a real gateway, also over connections that break."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

import hostler
from hostler.client import JobHandle
from hostler.client.address import address
from hostler.contracts.api import JobFilter
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import JobState, Progress
from hostler.contracts.lease import Die, Succeed, Update
from hostler.contracts.queue import Limits, QueueSpec
from hostler.contracts.reference import payload_reference
from hostler.kernel.errors import (
    GatewayUnavailableError,
    HostlerError,
    IdempotencyConflictError,
    InvalidError,
    JobFailedError,
    NotFoundError,
    QueueFullError,
    SettingsError,
    StateConflictError,
    UnknownKindError,
)
from hostler.kernel.settings import Settings
from hostler.testing.blobs import whole
from hostler.testing.eventually import eventually

from .conftest import KIND, House


class Said(msgspec.Struct, frozen=True, kw_only=True):
    said: str


@dataclass
class Prompt:
    text: str
    steps: int = 4


@pytest.mark.row("003:213")
async def test_a_program_submits_follows_and_gets_a_typed_result(house: House) -> None:
    async with hostler.connect(house.url) as fleet:
        job = await fleet.submit(KIND, Prompt(text="a lighthouse"), needs={"service": "echo"}, labels={"a": "b"})
        assert bytes(msgspec.json.encode((await job.get(payload=True)).payload)) == b'{"text":"a lighthouse","steps":4}'
        following = asyncio.create_task(_types(job))
        result = asyncio.create_task(job.result(type=Said, timeout=20))
        await house.finish(await house.claim())
        assert await result == Said(said="hello")
        assert await following == ["submit", "claim", "finish"]
        assert await job.result() == {"said": "hello"}
        assert [item.id async for item in fleet.jobs(JobFilter(labels={"a": "b"}))] == [job.id]
        assert (await fleet.wait(job.id)).state is JobState.SUCCEEDED
        assert (await fleet.timeline(job.id)).events[0].type == "submit"
        assert (await fleet.explain(job.id)).state is JobState.SUCCEEDED
        assert (await fleet.health()).status == "ready"


async def _types(job: JobHandle) -> list[str]:
    return [event.type async for event in job.follow()]


async def test_every_refusal_is_raised_as_its_own_error_with_the_servers_sentence(house: House) -> None:
    await house.foreman.declare_queue(QueueSpec(name="default", limits=Limits(depth=1)))
    async with hostler.connect(house.url) as fleet:
        with pytest.raises(UnknownKindError) as unknown:
            await fleet.submit("nobody.knows")
        assert unknown.value.facts["field"] == "kind"
        with pytest.raises(NotFoundError):
            await fleet.get("default.99")
        with pytest.raises(InvalidError):
            await fleet.submit(KIND, object())
        with pytest.raises(InvalidError):
            await fleet.submit(KIND, priority=101)
        first = await fleet.submit(KIND, 1, idempotency_key="k")
        again = await fleet.submit(KIND, 1, idempotency_key="k")
        assert (first.created, again.created, again.id) == (True, False, first.id)
        with pytest.raises(IdempotencyConflictError):
            await fleet.submit(KIND, 2, idempotency_key="k")
        with pytest.raises(QueueFullError) as full:
            await fleet.submit(KIND)
        assert full.value.retry_after > 0
        with pytest.raises(StateConflictError):
            await fleet.retry(first.id)
        with pytest.raises(TimeoutError):
            await first.wait(timeout=0.1)
        assert await first.cancel(reason="enough") is JobState.CANCELLED
        with pytest.raises(JobFailedError) as failed:
            await first.result()
        assert failed.value.facts["state"] == "cancelled"


async def test_a_large_payload_and_a_large_result_go_through_the_blob_store_by_themselves(house: House) -> None:
    async with hostler.connect(house.url) as fleet:
        large = {"text": "x" * 3_000_000}
        job = await fleet.submit(KIND, large)
        lease = await house.claim()
        ref = payload_reference(lease.payload)
        assert ref is not None
        assert msgspec.json.decode(await whole(house.blobs, ref.sha256)) == large
        stored = await fleet.blobs.put(msgspec.json.encode(large), media_type="application/json")
        assert stored == ref
        await house.finish(lease, Succeed(ref=ref))
        assert await job.result() == large
        assert msgspec.json.decode(await fleet.blobs.get(ref)) == large


async def test_many_are_submitted_at_once_and_refused_one_by_one(house: House) -> None:
    async with hostler.connect(house.url) as fleet:
        jobs: list[tuple[str, object]] = [(KIND, number) for number in range(600)]
        jobs[300] = ("nobody.knows", None)
        answers = await fleet.submit_many(jobs)
        assert len(answers) == 600
        assert isinstance(answers[300], UnknownKindError)
        assert len({job.id for job in answers if not isinstance(job, HostlerError)}) == 599
        assert (await fleet.queues.get("default")).stats.depth == 599
        report = await fleet.act("cancel", all=True, reason="done")
        assert (report.done, report.failed, report.next) == (599, 0, None)


async def test_operators_pause_replay_and_command(house: House) -> None:
    async with hostler.connect(house.url) as fleet:
        assert [queue.name for queue in await fleet.queues.list()] == ["default"]
        assert (await fleet.queues.pause("default", reason="x")).stats.paused
        assert not (await fleet.queues.resume("default")).stats.paused
        job = await fleet.submit(KIND)
        failure = Failure(class_=FailureClass.INVALID_INPUT, message="no")
        await house.finish(await house.claim(), Die(failure=failure))
        assert [dead.id async for dead in fleet.dead.list(JobFilter(kind=KIND))] == [job.id]
        assert (await fleet.dead.replay(ids=[job.id], dry_run=True)).matched == 1
        assert (await fleet.dead.replay(filter=JobFilter(kind=KIND))).done == 1
        assert (await job.get()).generation == 2
        await fleet.workers.drain(house.worker_id)
        assert (await fleet.workers.get(house.worker_id)).id == house.worker_id
        assert await house.registry.commands(house.worker_id) == ("drain",)


Cut = Callable[[bytes], bool]


class Line:
    """A TCP line to the gateway that cuts answers on order."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.cut: Cut = lambda _answer: False
        self.cuts = 0
        self.connections: set[asyncio.StreamWriter] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self.connections.add(writer)
        try:
            await asyncio.gather(self._pump(reader, back), self._answer(there, writer))
        except ConnectionError:
            pass
        finally:
            self.connections.discard(writer)
            back.close()
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self.cut(data):
                self.cuts += 1
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        writer.close()

    def drop(self) -> None:
        for writer in list(self.connections):
            writer.close()


@contextlib.asynccontextmanager
async def line_to(house: House) -> AsyncGenerator[tuple[str, Line]]:
    line = Line(int(house.url.rpartition(":")[2]))
    server = await asyncio.start_server(line.carry, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", line
    finally:
        line.drop()
        server.close()
        await server.wait_closed()


@pytest.mark.row("003:213")
async def test_a_submit_whose_answer_was_lost_is_sent_again_and_happens_once(house: House) -> None:
    async with line_to(house) as (url, line), hostler.connect(url) as fleet:
        line.cut = lambda answer: b"201 Created" in answer and line.cuts < 3
        job = await fleet.submit(KIND, "once")
        assert (line.cuts, (await job.get()).state) == (3, JobState.READY)
        assert (await house.foreman.stats("default")).totals["submitted"] == 1


async def test_a_follower_resumes_over_broken_connections_without_gap_or_double(house: House) -> None:
    async with line_to(house) as (url, line), hostler.connect(url) as fleet:
        job = await fleet.submit(KIND)
        offsets: list[int] = []
        texts: list[str] = []

        async def follow() -> None:
            async for event in job.follow():
                offsets.append(event.offset)
                texts.append(str(event.data.get("text", "")))

        following = asyncio.create_task(follow())
        await eventually(lambda: len(offsets) == 1)
        lease = await house.claim()
        for number in range(6):
            line.drop()
            update = Update(job_id=job.id, fence=lease.fence, progress=Progress(text=f"{number} "))
            await house.broker.progress(house.worker_id, [update])
            await eventually(lambda number=number: len(offsets) == number + 3, within=10)
        await house.finish(lease)
        async with asyncio.timeout(10):
            await following
        assert offsets == sorted(set(offsets))
        assert "".join(texts) == "0 1 2 3 4 5 "


async def test_a_gateway_that_is_not_there_is_one_error_after_the_last_try() -> None:
    async with hostler.connect("http://127.0.0.1:9", tries=2) as fleet:
        with pytest.raises(GatewayUnavailableError, match="hostler up"):
            await fleet.get("default.1")


async def test_plain_code_has_the_same_names(house: House) -> None:
    def program() -> object:
        with hostler.connect_sync(house.url) as fleet:
            job = fleet.submit(KIND, {"a": 1}, priority=70)
            assert fleet.get(job.id, payload=True).priority == 70
            assert [item.id for item in fleet.jobs()] == [job.id]
            with pytest.raises(UnknownKindError):
                fleet.submit("nobody.knows")
            assert [event.type for event in job.follow()] == ["submit", "claim", "finish"]
            assert fleet.queues.get("default").name == "default"
            assert fleet.blobs.get(fleet.blobs.put(b"bytes")) == b"bytes"
            return job.result(type=Said, timeout=10)

    working = asyncio.create_task(asyncio.to_thread(program))

    async def submitted() -> bool:
        return (await house.foreman.stats("default")).ready == 1

    await eventually(submitted)
    await house.finish(await house.claim())
    assert await working == Said(said="hello")


@pytest.mark.parametrize("told", ["environment", "file"])
async def test_without_a_url_it_is_the_gateway_that_the_commands_speak_to(
    house: House, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOSTLER_URL", "HOSTLER_KEY", "HOSTLER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    assert await asyncio.to_thread(address) == (Settings().url, None)
    if told == "environment":
        monkeypatch.setenv("HOSTLER_URL", house.url)
    else:
        (tmp_path / "hostler.toml").write_text(f'url = "{house.url}"\n')
    async with hostler.connect() as fleet:
        assert (await fleet.health()).status == "ready"

    def plainly() -> str:
        with hostler.connect_sync() as fleet:
            return fleet.health().status

    assert await asyncio.to_thread(plainly) == "ready"
    monkeypatch.setenv("HOSTLER_URL", "nonsense")
    with pytest.raises(SettingsError, match="HOSTLER_URL: expected a URL"):
        async with hostler.connect():
            pass

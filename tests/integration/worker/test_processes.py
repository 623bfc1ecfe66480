"""Child processes of handlers: framed, reused, killed with their group, never in the way of each other."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from msgspec import Raw

from hostler.contracts.job import Progress
from hostler.testing.eventually import eventually
from hostler.testing.programs import ended
from hostler.worker.call import CallFacts
from hostler.worker.frames import Done, Work, Wrong
from hostler.worker.processes import ProcessPool

MODULE = """
import os, subprocess, sys, threading
import hostler

@hostler.handler("p.echo", run="process")
def echo(call):
    print("noise on standard output " * 100, flush=True)
    os.write(1, b"raw noise")
    return {"pid": os.getpid(), "size": len(call.payload["text"]), "text": call.payload["text"][:3]}

@hostler.handler("p.large", run="process")
def large(call):
    return "x" * call.payload

@hostler.handler("p.said", run="process")
def said(call):
    for step in range(3):
        call.progress(fraction=step / 2, stage="counting", text=str(step))
    call.checkpoint({"step": 2})
    return [call.checkpointed, call.attempt, call.job_id]

@hostler.handler("p.spin", run="process")
def spin(call):
    child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait(600)"])
    call.progress(message=str(child.pid))
    while True:
        pass

@hostler.handler("p.polite", run="process")
def polite(call):
    call.progress(message="on it")
    while not call.cancelled:
        threading.Event().wait(0.01)
    return "stopped by itself"

@hostler.handler("p.die", run="process")
def die(call):
    os.kill(os.getpid(), 9)

@hostler.handler("p.leave", run="process")
def leave(call):
    sys.exit(3)

@hostler.handler("p.memory", run="process")
def memory(call):
    raise MemoryError("no room")

@hostler.handler("p.refuse", run="process")
def refuse(call):
    raise hostler.Failed("refused", "not this", retry_after=3, details={"word": "this"})

@hostler.handler("p.late", run="process")
async def late(call):
    import asyncio
    await asyncio.sleep(0)
    return "a coroutine, in a process"
"""


class Heard:
    """Keeps what a call said."""

    cancelled = False

    def __init__(self) -> None:
        self.progressed: list[Progress] = []
        self.saved: list[Any] = []

    def progress(self, progress: Progress) -> None:
        self.progressed.append(progress)

    def checkpoint(self, value: Raw) -> None:
        self.saved.append(msgspec.json.decode(value))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "process_handlers.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def make(name: str, payload: object = None, **facts: Any) -> Work:
        known: dict[str, Any] = {"job_id": "q.1", "kind": f"p.{name}", "attempt": 1, "fence": 1, **facts}
        return Work(
            module="process_handlers", name=name, payload=msgspec.json.encode(payload), facts=CallFacts(**known)
        )

    return make


@pytest.fixture
async def pool() -> AsyncIterator[ProcessPool]:
    async with ProcessPool(idle_max=2) as pool:
        yield pool


def done(answer: Done | Wrong) -> Any:
    assert isinstance(answer, Done), answer
    return msgspec.json.decode(answer.result)


def wrong(answer: Done | Wrong) -> Any:
    assert isinstance(answer, Wrong), answer
    return answer.failure


async def test_messages_of_megabytes_pass_both_ways_and_noise_on_stdout_does_not_reach_the_channel(
    pool: ProcessPool, work: Any
) -> None:
    found = done(await pool.run(work("echo", {"text": "abc" * 1_000_000}), Heard()))
    assert (found["size"], found["text"]) == (3_000_000, "abc")
    assert len(done(await pool.run(work("large", 5_000_000), Heard()))) == 5_000_000


async def test_a_result_over_the_limit_of_a_frame_is_a_failure_with_the_sizes(pool: ProcessPool, work: Any) -> None:
    failure = wrong(await pool.run(work("large", 70_000_000), Heard()))
    assert failure.class_ == "internal"
    assert "over the limit of 67108864" in failure.message
    assert done(await pool.run(work("late"), Heard())).startswith("a coroutine")


async def test_a_warm_child_is_used_again(pool: ProcessPool, work: Any) -> None:
    first = done(await pool.run(work("echo", {"text": "a"}), Heard()))
    second = done(await pool.run(work("echo", {"text": "b"}), Heard()))
    assert first["pid"] == second["pid"] != os.getpid()


async def test_progress_and_checkpoints_arrive_in_order_and_facts_reach_the_handler(
    pool: ProcessPool, work: Any
) -> None:
    heard = Heard()
    answer = await pool.run(work("said", checkpoint=b'{"step":1}', attempt=4, fence=4), heard)
    assert done(answer) == [{"step": 1}, 4, "q.1"]
    assert [each.fraction for each in heard.progressed] == [0.0, 0.5, 1.0]
    assert heard.saved == [{"step": 2}]


async def test_a_cancelled_child_that_spins_is_killed_with_its_whole_group(pool: ProcessPool, work: Any) -> None:
    heard = Heard()
    task = asyncio.create_task(pool.run(work("spin"), heard))
    await eventually(lambda: heard.progressed, within=20)
    grandchild, (child,) = int(heard.progressed[0].message or 0), pool.pids
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not psutil.pid_exists(child))
    await eventually(lambda: ended(grandchild))
    assert pool.pids == ()
    assert done(await pool.run(work("late"), Heard())).startswith("a coroutine")


async def test_a_cancelled_child_that_looks_at_the_call_stops_by_itself_and_lives_on(
    pool: ProcessPool, work: Any
) -> None:
    heard = Heard()
    task = asyncio.create_task(pool.run(work("polite"), heard))
    await eventually(lambda: heard.progressed, within=20)
    before = pool.pids
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.pids == before


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("die", "internal", "SIGKILL"),
        ("leave", "internal", "status 3"),
        ("memory", "out_of_memory", "no room"),
        ("refuse", "refused", "not this"),
    ],
)
async def test_a_child_that_fails_or_dies_gives_a_failure_with_its_class(
    pool: ProcessPool, work: Any, name: str, kind: str, words: str
) -> None:
    failure = wrong(await pool.run(work(name), Heard()))
    assert failure.class_ == kind
    assert words in failure.message
    assert done(await pool.run(work("late"), Heard())).startswith("a coroutine")


async def test_a_handler_that_cannot_be_imported_is_its_own_failure(pool: ProcessPool, work: Any) -> None:
    missing = msgspec.structs.replace(work("echo"), module="no_such_module_at_all")
    assert "no_such_module_at_all" in wrong(await pool.run(missing, Heard())).message


async def test_the_pool_leaves_no_child_behind(work: Any) -> None:
    async with ProcessPool() as pool:
        await asyncio.gather(*(pool.run(work("echo", {"text": ""}), Heard()) for _ in range(3)))
        pids = pool.pids
        assert len(pids) >= 1
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


async def test_a_child_dies_with_a_worker_that_is_killed(tmp_path: Path, work: Any) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import asyncio, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from hostler.worker.call import CallFacts\n"
        "from hostler.worker.frames import Work\n"
        "from hostler.worker.processes import ProcessPool\n"
        "class Out:\n"
        "    cancelled = False\n"
        "    def progress(self, progress): print(pool.pids[0], progress.message, flush=True)\n"
        "    def checkpoint(self, value): ...\n"
        "async def main():\n"
        "    global pool\n"
        "    facts = CallFacts(job_id='q.1', kind='p.spin', attempt=1, fence=1)\n"
        "    async with ProcessPool() as pool:\n"
        "        await pool.run(Work(module='process_handlers', name='spin', payload=b'null', facts=facts), Out())\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(tmp_path), stdout=asyncio.subprocess.PIPE, env={**os.environ}
    )
    assert parent.stdout is not None
    child, grandchild = map(int, (await parent.stdout.readline()).split())
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await eventually(lambda: ended(child))
    await eventually(lambda: ended(grandchild))
    del work

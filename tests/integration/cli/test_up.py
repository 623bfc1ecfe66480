"""`hostler up` on a real folder: one system, watched, that ends as a whole."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from hostler.contracts.queue import NAMING
from hostler.testing.eventually import eventually
from hostler.testing.programs import ended

from .conftest import Shell

HANDLERS = """
import asyncio
import hostler

@hostler.handler("text.upper", payload=str, result=str)
async def upper(call):
    return call.payload.upper()

@hostler.handler("text.slow", payload=float, result=str)
async def slow(call):
    await asyncio.sleep(call.payload)  # not waiting: the work itself
    return "done"

@hostler.handler("text.broken")
async def broken(call):
    raise hostler.Failed("refused", "not today")
"""


class Up:
    """A running `hostler up`, and what it said."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def last_start(self, name: str) -> dict[str, Any]:
        return [line for line in self.said() if line.get("event") == "started" and line["name"] == name][-1]

    @property
    def url(self) -> str:
        return next(line["url"] for line in self.said() if line["event"] == "ready")


@contextmanager
def system(
    shell: Shell, *arguments: str, engine: Sequence[str] = ("--data", "d"), handlers: str = HANDLERS
) -> Generator[Up]:
    (shell.folder / "tasks.py").write_text(handlers)
    log = shell.folder / "up.log"
    out: IO[str]
    with log.open("w") as out, (shell.folder / "up.err").open("w") as err:
        process = subprocess.Popen(
            shell.command("up", *engine, "--json", "--bind", "127.0.0.1:0", "--handlers", "tasks", *arguments),
            cwd=shell.folder,
            env=shell.environment,
            stdout=out,
            stderr=err,
            text=True,
        )
        try:
            yield Up(process, log)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)


async def ready(up: Up) -> None:
    def check() -> bool:
        assert up.process.poll() is None, (up.log.parent / "up.err").read_text()[-3000:]
        refused = [line["error"] for line in up.said() if "error" in line]
        assert not refused, (refused, (up.log.parent / "up.err").read_text()[-3000:])
        return any(line["event"] == "ready" for line in up.said())

    await eventually(check, within=50, every=0.1)


@pytest.mark.timeout(180)
@pytest.mark.row("003:211", "000:50")
async def test_one_system_takes_jobs_heals_and_ends_as_a_whole(shell: Shell) -> None:
    with system(shell) as up:
        await ready(up)
        url = ("--url", up.url)

        # Jobs of plain Python go through, by every way of asking.
        done = shell.run("submit", "text.upper", "--data", '"abc"', "--wait", "--json", *url)
        assert (done.code, done.last["outcome"], done.last["result"]) == (0, "succeeded", "ABC")
        (shell.folder / "p.json").write_text('"from a file"')
        by_file = shell.run("submit", "text.upper", "--data", "@p.json", "--wait", *url)
        assert "FROM A FILE" in by_file.out
        followed = shell.run("submit", "text.upper", "--data", "-", "--follow", "--json", *url, stdin='"x"')
        assert [line["type"] for line in followed.lines[:-1]][:2] == ["submit", "claim"]
        assert followed.last["outcome"] == "succeeded"
        dead = shell.run("submit", "text.broken", "--wait", "--json", *url)
        assert (dead.code, dead.last["outcome"], dead.last["job"]["error"]["class"]) == (1, "dead", "refused")

        # A deadline is a moment, and what is none is said before anything is sent.
        late = shell.run("submit", "text.upper", "--data", '"l"', "--deadline", "2001-01-01T00:00:00Z", "--wait", *url)
        assert late.code != 0
        vague = shell.run("submit", "text.upper", "--data", '"v"', "--deadline", "tomorrow", *url)
        assert vague.code == 2
        assert "--deadline: expected a time like" in vague.err

        # One key makes one job.
        first, second = (
            shell.run("submit", "text.upper", "--data", '"k"', "--key", "one", "--json", *url) for _ in "ab"
        )
        assert (first.last["created"], second.last["created"]) == (True, False)
        assert first.last["id"] == second.last["id"]

        # A second system on the folder is refused with the holder's name.
        again = shell.run("up", "--data", "d", "--bind", "127.0.0.1:0")
        assert again.code == 1
        assert str(up.process.pid) in again.err

        # A killed gateway comes back at the same address, a killed worker comes back too.
        for name in ("gateway", "worker-handlers"):
            before = up.last_start(name)
            os.kill(before["pid"], signal.SIGKILL)
            await eventually(lambda n=name, b=before: up.last_start(n)["start"] > b["start"], within=20)
        after = shell.run("submit", "text.upper", "--data", '"again"', "--wait", "--json", "--wait-engine", "30", *url)
        assert (after.code, after.last["result"]) == (0, "AGAIN")

        children = [up.last_start(name)["pid"] for name in ("gateway", "worker-handlers")]
        up.process.terminate()
        assert up.process.wait(30) == 0
        assert up.said()[-1] == {"event": "stopped"}
        assert all(ended(pid) for pid in children)


@pytest.mark.timeout(120)
async def test_the_children_die_with_up_and_the_folder_opens_again(shell: Shell) -> None:
    with system(shell) as up:
        await ready(up)
        job = shell.run("submit", "text.slow", "--data", "60", "--json", "--url", up.url).last["id"]
        children = [up.last_start(name)["pid"] for name in ("gateway", "worker-handlers")]
        up.process.kill()
        up.process.wait(10)
        await eventually(lambda: all(ended(pid) for pid in children), within=20, every=0.1)
    with system(shell) as up:
        await ready(up)
        found = shell.run("jobs", "show", job, "--json", "--url", up.url)
        assert (found.code, found.last["kind"]) == (0, "text.slow")


@pytest.mark.timeout(120)
async def test_operators_see_and_steer_jobs_queues_and_workers(shell: Shell) -> None:
    with system(shell) as up:
        await ready(up)
        url = ("--url", up.url)
        (worker,) = shell.run("workers", "list", "--json", *url).last["items"]
        assert worker["state"] in ("ready", "busy")
        assert shell.run("workers", "show", worker["id"], *url).out.startswith("worker")
        kinds = [
            kind["name"]
            for row in shell.run("queues", "registry", "--json", *url).last["items"]
            for kind in row["kinds"]
        ]
        assert "text.upper" in kinds

        assert shell.run("queues", "pause", "default", "--reason", "a look", *url).out == "default is paused\n"
        waiting = shell.run("submit", "text.upper", "--data", '"w"', "--json", *url).last["id"]
        impossible = shell.run(
            "submit", "text.upper", "--data", '"n"', "--need", "labels.tier=moon", "--priority", "90", "--json", *url
        ).last["id"]
        assert shell.run("queues", "stats", "default", "--json", *url).last["ready"] == 2

        async def lacking() -> list[str]:
            found = shell.run("jobs", "explain", impossible, "--json", *url).last
            return [need["key"] for need in found["needs"]] if found["unworkable"] else []

        assert "labels.tier" in await eventually(lacking, within=15)
        assert shell.run("jobs", "cancel", impossible, "--json", *url).last == {"id": impossible, "state": "cancelled"}
        assert shell.run("queues", "resume", "default", *url).code == 0
        assert shell.run("jobs", "follow", waiting, *url).code == 0
        types = [event["type"] for event in shell.run("jobs", "timeline", waiting, "--json", *url).last["events"]]
        assert [types[0], types[-1]] == ["submit", "finish"]

        configure = ("queues", "configure", "default", "--reason", "a look", "--json", *url)
        assert shell.run(*configure, "--set", "limits.key_running=4").last["queue"]["limits"]["key_running"] == 4
        wrong = shell.run(*configure, "--kind", "text.broken", "--set", "retry.attempts=none")
        assert (wrong.code, "attempts" in repr(wrong.last["error"])) == (1, True)
        told = shell.run("queues", "registry", *url).out
        assert all(rule in " ".join(told.split()) for rule in NAMING.values())

        shell.run("submit", "text.broken", "--wait", *url)
        (corpse,) = shell.run("dead", "list", "--json", *url).last["items"]
        narrowed = ("--class", "refused", "--since", "1h", "--json", *url)
        assert [one["id"] for one in shell.run("dead", "list", *narrowed).last["items"]] == [corpse["id"]]
        assert shell.run("dead", "replay", "--until", "1h", "--dry-run", "--json", *url).last["matched"] == 0
        wrong = shell.run("dead", "list", "--since", "yesterday", *url)
        assert (wrong.code, "--since" in wrong.err) == (2, True)
        assert shell.run("dead", "replay", corpse["id"], "--json", *url).last["done"] == 1
        await eventually(lambda: shell.run("dead", "list", "--json", *url).last["items"], within=20)
        unsure = shell.run("dead", "purge", "--all", *url)
        assert (unsure.code, "--yes" in unsure.err) == (2, True)
        assert shell.run("dead", "purge", "--all", "--yes", "--json", *url).last["done"] == 1
        assert shell.run("jobs", "show", corpse["id"], *url).code == 1

        wrong = shell.run("submit", "text.uper", "--json", *url)
        assert (wrong.code, wrong.last["error"]["code"]) == (1, "unknown-kind")


def test_a_port_in_use_stops_up_before_anything_starts(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = shell.run("up", "--data", "d", "--bind", address, "--json")
    assert (ran.code, ran.last["error"]["code"]) == (1, "address-in-use")
    assert address in ran.err


@pytest.mark.row("003:211")
def test_a_submit_that_reaches_nobody_says_what_to_do_and_how_to_repeat_it(shell: Shell) -> None:
    ran = shell.run("submit", "text.upper", "--data", '"x"', "--key", "mine", "--url", "http://127.0.0.1:9")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "http://127.0.0.1:9" in ran.err
    assert "hostler up" in ran.err
    assert "--key mine" in ran.err


def test_a_part_that_cannot_start_ends_up_with_its_reason(shell: Shell) -> None:
    (shell.folder / "faulty.py").write_text("import nowhere_to_be_found")
    ran = shell.run("up", "--data", "d", "--bind", "127.0.0.1:0", "--handlers", "faulty", "--json")
    assert ran.code == 2
    assert "worker-handlers could not start" in ran.last["error"]["message"]
    assert "nowhere_to_be_found" in ran.err


def test_a_worker_with_nothing_to_do_is_refused(shell: Shell) -> None:
    ran = shell.run("worker", "--data", "d")
    assert ran.code == 2
    assert "--connectors" in ran.err


def test_payloads_that_are_no_json_are_wrong_usage(shell: Shell) -> None:
    assert shell.run("submit", "text.upper", "--data", "{").code == 2
    assert shell.run("submit", "text.upper", "--data", "@missing.json").code == 2
    assert shell.run("submit", "text.upper", "--need", "service").code == 2

"""Commands as a service: what they may do, what they are held to, and what is left of them."""

import asyncio
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import EndpointState, Failed, Finished, Step
from hostler.contracts.timeouts import Timeouts
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, steps_of, submitted
from hostler.testing.eventually import eventually

ECHOER = (sys.executable, "-I", "-S", str(Path(__file__).parents[2] / "services" / "echoer.py"))
Run = Callable[..., Connector]


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    folder = tmp_path / "traces"
    folder.mkdir()
    return folder


@pytest.fixture
def command(traces: Path) -> Run:
    def make(*arguments: str, **options: Any) -> Connector:
        known: dict[str, Any] = {"kinds": [{"name": "echo.do"}], "environment": {"TRACES": str(traces)}, "grace": 0.3}
        return build("process", url="process:///echo", options={**known, "command": arguments or ECHOER, **options})

    return make


def do(job: str = "conformance.1", timeouts: Timeouts | None = None, **payload: Any) -> Any:
    work = Work(kind="echo.do", payload=payload)
    return call_of(work, job=job) if timeouts is None else call_of(work, job=job, timeouts=timeouts)


def result_of(step: Step) -> Any:
    assert isinstance(step, Finished), step
    return json.loads(bytes(step.result))


async def end_of(connector: Connector, call: Any) -> Step:
    async with connector:
        return (await steps_of(connector, call))[-1]


async def failure_of(connector: Connector, call: Any) -> Failure:
    end = await end_of(connector, call)
    assert isinstance(end, Failed), end
    return end.failure


def runs(number: str) -> bool:
    """Whether a process is there and has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


async def test_a_command_sees_its_job_and_nothing_of_the_worker(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTLER_KEY", "very-secret-indeed")
    found = result_of(await end_of(command(), do(text="ü", command=["rm"])))
    assert found["job"] == {
        "type": "job",
        "job": "conformance.1",
        "fence": 1,
        "kind": "echo.do",
        "payload": {"text": "ü", "command": ["rm"]},
    }
    assert found["cwd"] == found["env"]["HOME"]
    assert not Path(found["cwd"]).exists()
    assert set(found["env"]) <= {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME"}


async def test_what_is_inherited_by_name_is_kept_out_of_what_comes_back(
    command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LICENCE", "sk-0123456789")
    found = result_of(await end_of(command(inherit=["PATH", "LICENCE"]), do()))
    assert found["env"]["LICENCE"] == "***"
    failure = await failure_of(
        command(inherit=["PATH", "LICENCE"]), do(stderr="bad licence sk-0123456789", exit=2, mute=True)
    )
    assert "bad licence ***" in failure.message
    assert "sk-0123456789" not in str(failure)


@pytest.mark.row("003:215", "001:290")
@pytest.mark.parametrize("stubborn", [(), ("stubborn",)])
async def test_cancel_ends_the_whole_group_even_those_who_will_not_listen(
    command: Run, traces: Path, stubborn: tuple[str, ...]
) -> None:
    async with command(*ECHOER, *stubborn) as connector:
        ref = await submitted(connector, do(child=True, linger=True))
        await eventually(lambda: pids(traces / "children"))
        assert await connector.cancel(ref)
        assert not any(map(runs, pids(traces / "begun")))
        await eventually(lambda: not any(map(runs, pids(traces / "children"))))


async def test_a_run_over_its_limit_leaves_no_process(command: Run, traces: Path) -> None:
    failure = await failure_of(command(*ECHOER, "stubborn"), do(timeouts=Timeouts(run=1.0), hang=True))
    assert (failure.class_, failure.stage) == (FailureClass.TIMEOUT, Stage.RUN)
    assert not any(map(runs, pids(traces / "begun")))


async def test_what_a_command_leaves_running_is_ended_and_holds_nothing_up(command: Run, traces: Path) -> None:
    """The child has the pipes of its parent, and ignores SIGTERM."""
    assert result_of(await asyncio.wait_for(end_of(command(), do(child=True)), 20))
    await eventually(lambda: len(pids(traces / "children")) <= 1 and not any(map(runs, pids(traces / "children"))))


KILLED_WORKER = """
import asyncio, sys
from hostler.connectors.catalogue import build
from hostler.testing.connectors import Work, call_of

async def main():
    options = {"command": sys.argv[2:], "kinds": [{"name": "echo.do"}], "environment": {"TRACES": sys.argv[1]}}
    async with build("process", url="process:///echo", options=options) as connector:
        await connector.submit(call_of(Work(kind="echo.do", payload={"hang": True})))
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_command_dies_with_a_worker_that_is_killed(traces: Path) -> None:
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED_WORKER, str(traces), *ECHOER)
    await eventually(lambda: pids(traces / "begun"), within=30)
    worker.kill()
    await worker.wait()
    await eventually(lambda: not any(map(runs, pids(traces / "begun"))))


async def test_lines_of_megabytes_go_in_and_come_out(command: Run) -> None:
    found = result_of(await end_of(command(), do(text="x" * 2_000_000)))
    assert len(found["job"]["payload"]["text"]) == 2_000_000
    assert len(result_of(await end_of(command(), do(large=2_000_000)))["text"]) == 2_000_000


async def test_a_line_or_an_output_without_bound_is_off_the_protocol(command: Run) -> None:
    failure = await failure_of(command(message_limit=100_000), do(large=200_000))
    assert (failure.class_, failure.details["protocol"]) == (FailureClass.TRANSIENT, True)
    failure = await failure_of(command("yes"), do())
    assert failure.class_ is FailureClass.TRANSIENT
    failure = await failure_of(command(output_limit=100_000, served=True), do(steps=100, text="x" * 2_000))
    assert "output_limit" in failure.message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cat",), "none of its protocol"),
        (("echo", "$(touch owned)", ";", "id"), "$(touch owned) ; id"),
        (("true",), "ended without a result"),
        (("sh", "-c", 'echo \'{"type": "result", "job": "other.1", "result": 1}\''), "job 'other.1'"),
        (("sh", "-c", 'printf \'{"type": "result"\''), "none of its protocol"),
        (("sh", "-c", "echo no >&2; exit 3"), "ended with status 3: no"),
        (("sh", "-c", "kill -9 $$"), "ended with SIGKILL"),
    ],
)
async def test_what_is_no_result_is_no_success(command: Run, arguments: tuple[str, ...], words: str) -> None:
    failure = await failure_of(command(*arguments), do())
    assert failure.class_ is FailureClass.TRANSIENT
    assert words in failure.message


async def test_an_exit_has_the_class_that_the_options_give_it_whatever_was_written_before(command: Run) -> None:
    exits = {"3": "capability_mismatch", "SIGKILL": "out_of_memory"}
    failure = await failure_of(command(exits=exits), do(exit=3, stderr="no such voice\n"))
    assert (failure.class_, failure.details["exit"]) == (FailureClass.CAPABILITY_MISMATCH, "3")
    assert "no such voice" in failure.message
    assert (await failure_of(command(exits=exits), do(die=True))).class_ is FailureClass.OUT_OF_MEMORY
    error = {"class": "refused", "message": "not that", "details": {"rule": 7}}
    failure = await failure_of(command(), do(error=error))
    assert (failure.class_, failure.message, failure.details) == (FailureClass.REFUSED, "not that", {"rule": 7})


async def test_only_the_end_of_a_flood_of_errors_is_kept(command: Run) -> None:
    failure = await failure_of(command(), do(mute=True, exit=1, stderr="x" * 1_000_000 + "\nthe last word"))
    assert failure.message.endswith("the last word")
    assert len(json.dumps(failure.details)) < 10_000


BUSY = "while True: pass"
HUNGRY = "x = bytearray(2_000_000_000)"
MANY = "f = [open('/dev/null') for _ in range(500)]"


@pytest.mark.parametrize(
    ("program", "limits", "label", "words"),
    [
        (BUSY, {"cpu": 1}, "timeout:run", "SIGXCPU"),
        (HUNGRY, {"memory": 500_000_000}, "transient", "MemoryError"),
        (MANY, {"open_files": 100}, "transient", "Too many open files"),
    ],
)
async def test_a_command_is_held_to_its_limits(
    command: Run, program: str, limits: dict[str, int], label: str, words: str
) -> None:
    failure = await failure_of(command(sys.executable, "-I", "-S", "-c", program, limits=limits), do())
    assert failure.label == label
    assert words in failure.message


async def test_a_served_command_does_job_after_job_and_is_replaced_when_one_was_cancelled(
    command: Run, traces: Path
) -> None:
    async with command(*ECHOER, "ready", served=True, ready=True) as connector:
        first = result_of((await steps_of(connector, do("q.1")))[-1])
        second = result_of((await steps_of(connector, do("q.2")))[-1])
        ref = await submitted(connector, do("q.3", hang=True))
        await eventually(lambda: len(pids(traces / "begun")) == 3)
        assert await connector.cancel(ref)
        third = result_of((await steps_of(connector, do("q.4")))[-1])
    assert first["pid"] == second["pid"] != third["pid"]
    assert not any(runs(str(found["pid"])) for found in (first, third))


async def test_a_line_for_another_job_ends_the_served_command_that_wrote_it(command: Run) -> None:
    late = '{"type": "result", "job": "q.1", "result": "late"}'
    async with command(served=True) as connector:
        first = result_of((await steps_of(connector, do("q.1", raw=[])))[-1])
        end = (await steps_of(connector, do("q.2", raw=[late])))[-1]
        third = result_of((await steps_of(connector, do("q.3")))[-1])
    assert isinstance(end, Failed)
    assert "which is not the one it has" in end.failure.message
    assert first["pid"] != third["pid"]


async def test_a_command_that_never_loads_is_a_timeout_of_that_stage(command: Run) -> None:
    connector = command(served=True, ready=True)
    failure = await failure_of(connector, do(timeouts=Timeouts(load=0.3, run=20.0)))
    assert (failure.class_, failure.stage) == (FailureClass.TIMEOUT, Stage.LOAD)


async def test_a_command_that_runs_as_often_as_it_may_is_overloaded(command: Run, traces: Path) -> None:
    async with command() as connector:
        await submitted(connector, do("q.1", hang=True))
        await eventually(lambda: pids(traces / "begun"))
        end = (await steps_of(connector, do("q.2")))[-1]
        assert (await connector.probe()).busy == 1
    assert isinstance(end, Failed)
    assert (end.failure.class_, end.failure.retry_after) == (FailureClass.OVERLOADED, 1.0)


async def test_the_endpoint_is_well_while_its_program_is_there_and_its_health_command_says_so(command: Run) -> None:
    async with command("no-such-program-anywhere") as absent, command(health=["false"]) as sick, command() as well:
        assert (await well.probe()).state is EndpointState.READY
        assert (await sick.probe()).state is EndpointState.UNHEALTHY
        found = await absent.probe()
    assert (found.state, "no-such-program-anywhere" in found.message) == (EndpointState.UNHEALTHY, True)


@pytest.mark.row("002:281")
async def test_the_example_of_the_page_runs_as_it_is_written(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "connectors" / "process.md").read_text()
    (tmp_path / "upper.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    written = tomllib.loads(page.partition("```toml\n")[2].partition("```")[0])["connectors"]["upper"]
    options = {**written["options"], "directory": str(tmp_path)}  # in place of the folder that the page names
    connector = build(written["connector"], url="process:///upper", options=options, slots=written["slots"])
    async with connector:
        steps = await steps_of(connector, call_of(Work(kind="text.upper", payload={"text": "grüß"})))
    assert steps[0] == Progress(fraction=0.5, stage="shouting")
    assert result_of(steps[-1]) == {"text": "GRÜSS"}
    assert connector.service == "upper"

"""The command `hostler`: which commands there are, and how every one of them ends."""

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from cyclopts import App, CycloptsError

from hostler.cli.output import fail, hush
from hostler.kernel.errors import HostlerError, InternalError, SettingsError
from hostler.kernel.version import __version__

COMMANDS = {
    "demo": "hostler.cli.demo.command:demo",
    "up": "hostler.cli.up:up",
    "gateway": "hostler.cli.processes:gateway",
    "worker": "hostler.cli.processes:worker",
    "sim": "hostler.cli.sim:sim",
    "serve": "hostler.cli.serve:serve",
    "submit": "hostler.cli.submit:submit",
    "jobs": "hostler.cli.jobs:jobs",
    "queues": "hostler.cli.queues:queues",
    "dead": "hostler.cli.dead:dead",
    "workers": "hostler.cli.workers:workers",
    "services": "hostler.cli.services:services",
    "connectors": "hostler.cli.connectors:connectors",
    "cache": "hostler.cli.cache:cache",
    "limits": "hostler.cli.limits:limits",
    "doctor": "hostler.cli.doctor:doctor",
    "chaos": "hostler.cli.chaos:chaos",
    "bench": "hostler.cli.bench.command:command",
    "backup": "hostler.cli.archive:backup",
    "restore": "hostler.cli.archive:restore",
}
"""Each is imported when it is used, so that `hostler --help` and `hostler submit` stay quick."""

SUMMARIES = {
    "demo": "Run the main job on an embedded engine, with a verdict, in under a minute.",
    "up": "Run the whole system on this machine.",
    "gateway": "Run the HTTP side.",
    "worker": "Run one worker.",
    "sim": "Run a simulated AI service.",
    "serve": "Run an AI service of Hostler's own.",
    "submit": "Submit a job.",
    "jobs": "List, show, follow and steer jobs.",
    "queues": "List, measure, pause, resume and drain queues.",
    "dead": "List, show, replay and purge dead jobs.",
    "workers": "List, show, pause, resume and drain workers.",
    "services": "List, show, explain, register, pause and resume endpoints of AI services.",
    "connectors": "List connectors, and check one against a live service.",
    "cache": "Show and clear the results kept for equal jobs.",
    "limits": "Show the limits that all processes share, and lift what holds calls.",
    "doctor": "Check settings, engine, gateway, services and this machine.",
    "chaos": "Break a system on purpose, and judge what its history says.",
    "bench": "Measure what this machine gives, and compare it with before.",
    "backup": "Save a data folder to one file.",
    "restore": "Fill a new data folder from a backup.",
}

app = App(
    name="hostler",
    version=__version__,
    help="One durable job fabric for fleets of AI services.",
    help_format="plaintext",
)
for _name, _target in COMMANDS.items():
    app.command(_target, name=_name, help=SUMMARIES[_name])


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 on success, 1 on a failed outcome, 2 on wrong usage."""
    tokens = sys.argv[1:] if arguments is None else arguments
    json = "--json" in tokens
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        outcome: Any = command(*bound.args, **bound.kwargs)
        code = _run(outcome) if asyncio.iscoroutine(outcome) else outcome
        sys.stdout.flush()
    except CycloptsError as error:
        fail(SettingsError(_sentence(error)), json=json)
    except HostlerError as error:
        fail(error, json=json)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        hush()  # the reader went away (`hostler jobs list | head`)
        sys.exit(0)
    except OSError as error:
        fail(InternalError(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"), json=json)
    except Exception as error:  # noqa: BLE001 - a defect of ours: shown whole on stderr, named on stdout
        traceback.print_exc()
        fail(InternalError(f"a defect of Hostler: {type(error).__name__}: {error}; please report it"), json=json)
    sys.exit(code if isinstance(code, int) else 0)


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(coroutine)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes event loops: uvloop, which halves the loop's own time, but does not run on Windows."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


def _sentence(error: CycloptsError) -> str:
    text = " ".join(str(error).split())
    command = " ".join(("hostler", *(error.command_chain or ())))
    return text if "--help" in text else f"{text} See: {command} --help"

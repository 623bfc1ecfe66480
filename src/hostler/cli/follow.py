"""Following one job on a terminal: a bar, and the words that it streams."""

import sys
from typing import Final

from hostler.cli.output import Out, console, printable
from hostler.client import JobHandle
from hostler.contracts.event import Event
from hostler.policy.lifecycle import Verb

_SAID: Final = ("stage", "message", "text", "reason", "error")
"""What an event says in words, in this order."""


async def follow_job(out: Out, job: JobHandle) -> None:
    """Show a job's events until it has ended: JSON lines, a bar on a terminal, or plain lines elsewhere."""
    if out.json:
        async for event in job.follow():
            out.document(event)
    elif sys.stdout.isatty():
        await _bar(job)
    else:
        async for event in job.follow():
            out.say(line_of(event))


def line_of(event: Event) -> str:
    """Return one event as one line."""
    parts = [event.at.strftime("%H:%M:%S"), f"{event.type:<9}"]
    if event.state is not None:
        parts.append(f"-> {event.state}")
    if event.worker:
        parts.append(f"by {event.worker}")
    data = event.data
    if isinstance(data.get("fraction"), int | float):
        parts.append(f"{data['fraction']:.0%}")
    parts.extend(
        printable(str(data[name])) for name in ("stage", "message", "text", "reason", "error") if data.get(name)
    )
    return " ".join(parts)


async def _bar(job: JobHandle) -> None:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    screen = console()
    with Progress(*columns, console=screen) as progress:
        task = progress.add_task(job.id, total=1.0)
        async for event in job.follow():
            text = event.data.get("text") if event.type == Verb.PROGRESS else None
            if isinstance(text, str):
                screen.print(printable(text), end="", markup=False, highlight=False, soft_wrap=True)
            fraction = event.data.get("fraction")
            completed = fraction if isinstance(fraction, int | float) else None
            said = event.data.get("stage") or (str(event.state) if event.state else None)
            if event.state is not None and event.state.terminal:
                completed = 1.0
            progress.update(task, completed=completed, description=f"{job.id} {printable(str(said))}" if said else None)

"""What the demo shows while it runs: queues, workers, recent events, and the words that a model streams."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hostler.cli.output import printable
from hostler.contracts.event import Event
from hostler.contracts.queue import QueueStats
from hostler.contracts.worker import Worker
from hostler.policy.lifecycle import Verb

RECENT: Final = 8
CHAT_WIDTH: Final = 72
_DULL: Final = frozenset({Verb.PROGRESS, Verb.RENEW})


class Screen:
    """A live view on a terminal; elsewhere, a line for what matters."""

    def __init__(self, console: Console, *, total: int) -> None:
        self._console = console
        self._total = total
        self._recent: deque[Text] = deque(maxlen=RECENT)
        self._queues: Sequence[QueueStats] = ()
        self._workers: Sequence[Worker] = ()
        self._chat = ("", "")
        self._counts: Counter[str] = Counter()
        self._phase = "starting"
        # The last of all: it draws at once.
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    @property
    def ended(self) -> int:
        """Jobs that have ended."""
        return self._counts["ended"]

    def phase(self, text: str) -> None:
        """Say what the demo does now."""
        self._phase = text
        if self._console.is_terminal:
            self._recent.append(Text(f"-- {text}", style="bold"))
        else:
            self._console.print(text, highlight=False)

    def process(self, event: Mapping[str, Any]) -> None:
        """Show what became of a process."""
        if event["event"] == "killed":
            self.phase(f"{event['name']} is killed with SIGKILL while it holds jobs")
        elif event["event"] == "started" and event["start"] > 1:
            self.phase(f"{event['name']} is started again")

    def event(self, event: Event) -> None:
        """Take one recorded event."""
        self._counts[event.type] += 1
        if event.state is not None and event.state.terminal:
            self._counts["ended"] += 1
        text = event.data.get("text") if event.type == Verb.PROGRESS else None
        if isinstance(text, str) and event.job is not None:
            job, words = self._chat
            self._chat = (event.job, (words if job == event.job else "") + printable(text).replace("\n", " "))
        if event.type not in _DULL and event.job is not None:
            where = f" by {event.worker}" if event.worker else ""
            state = f" -> {event.state}" if event.state else ""
            moment = event.at.astimezone(UTC).strftime("%H:%M:%S.%f")[:-4]
            self._recent.append(Text(f"{moment}  {event.type:<9}{event.job}{state}{where}"))

    def facts(self, queues: Sequence[QueueStats], workers: Sequence[Worker]) -> None:
        """Take how queues and workers are now."""
        self._queues, self._workers = queues, workers

    def _draw(self) -> Group:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            Text(f"{self._phase[:60]:<60}", style="bold"),
            ProgressBar(total=max(1, self._total), completed=self.ended, width=30),
            f"{self.ended}/{self._total}",
        )
        job, words = self._chat
        chat = Text(f"{job or 'chat'}: ...{words[-CHAT_WIDTH:]}" if words else "no words yet", style="italic")
        return Group(bar, self._queue_table(), self._worker_table(), chat, *self._recent)

    def _queue_table(self) -> Table:
        table = Table("queue", "ready", "scheduled", "running", "unworkable", "succeeded", "retried", box=None)
        for stats in self._queues:
            numbers = (stats.ready, stats.scheduled, stats.running, stats.unworkable)
            totals = (stats.totals.get("succeeded", 0), stats.totals.get("retried", 0))
            table.add_row(stats.name, *(str(number) for number in (*numbers, *totals)))
        return table

    def _worker_table(self) -> Table:
        table = Table("worker", "state", "process", "jobs", box=None)
        for worker in self._workers:
            table.add_row(
                worker.id,
                worker.state,
                str(worker.pid),
                ProgressBar(total=worker.slots, completed=worker.running, width=worker.slots),
            )
        return table

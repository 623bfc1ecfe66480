"""`hostler chaos check`: one verdict per promise, over a recorded history or a queue that lives."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hostler.chaos.judge import Report, judge
from hostler.chaos.reading import Record, read_history
from hostler.chaos.record import Header, Line, Mark, Terms
from hostler.chaos.recorder import read_all
from hostler.chaos.search import NODES_MOST
from hostler.chaos.tape import Tape
from hostler.cli.config import load
from hostler.cli.flags import ToEngine
from hostler.cli.output import Out
from hostler.cli.rulings import print_rulings
from hostler.kernel.errors import InvalidError, SettingsError, UnknownQueueError
from hostler.kernel.settings import EngineSettings
from hostler.policy.sharding import shards_of
from hostler.valkeyio.engine import Engine
from hostler.worker.system import SystemClock


async def check(
    history: Annotated[Path | None, Parameter(help="A history: its file, or the folder of its files.")] = None,
    /,
    *,
    queue: Annotated[
        str | None, Parameter(help="Judge this queue of a live system by its events, jobs and books instead.")
    ] = None,
    keep: Annotated[Path | None, Parameter(help="Keep the record of the live queue in this new file.")] = None,
    nodes: Annotated[
        int, Parameter(help="Configurations to look at before the order of a job's operations is left undecided.")
    ] = NODES_MOST,
    common: ToEngine = ToEngine(),
) -> int:
    """Judge a history by every invariant: held, broken with a witness, or not judged and why."""
    out = Out(json=common.json)
    if history is not None and queue is None:
        return print_rulings(out, await asyncio.to_thread(_judged, history, nodes))
    if queue is None or history is not None:
        raise SettingsError("Name a history, or a live queue with --queue.", problems=())
    settings = load(common.settings(), config=common.config).settings.engine
    header, *lines = await _record(settings, queue)
    if keep is not None:
        await asyncio.to_thread(_keep, keep, (header, *lines))
    return print_rulings(out, judge(Record(header=header, lines=tuple(lines)), most=nodes))


def _judged(path: Path, nodes: int) -> Report:
    """Read and judge; a file that is no history is wrong usage, not a broken promise."""
    try:
        return judge(read_history(path), most=nodes)
    except InvalidError as error:
        raise SettingsError(error.message, problems=()) from error


def _keep(path: Path, lines: Sequence[Line]) -> None:
    if path.exists():
        raise SettingsError(f"--keep: {path} exists; name a new file.", problems=())
    with Tape.open(path, SystemClock()) as tape:
        tape.write(*lines)


async def _record(settings: EngineSettings, queue: str) -> tuple[Header, *tuple[Line, ...]]:
    """Return what can be read of a live queue, with the terms that its row states now.

    Limits and budgets are left out: operators change them, and the past was judged by others.
    """
    from hostler.broker.desk import EngineDesk
    from hostler.broker.foreman import EngineForeman
    from hostler.valkeyio.faults import mapped
    from hostler.valkeyio.library import Library

    clock = SystemClock()
    async with Engine.open(settings, role="check") as engine, contextlib.aclosing(EngineDesk(engine)) as desk:
        with mapped():
            await Library(engine).ensure()
        foreman = EngineForeman(engine)
        row = next((row for row in await foreman.registry() if queue in {row.queue.name, *shards_of(row.queue)}), None)
        if row is None:
            raise UnknownQueueError(f"There is no queue {queue}; `hostler queues list` names them.", queue=queue)
        terms = Terms(
            lease=row.queue.lease,
            head_start=row.queue.head_start,
            weights=dict(row.queue.weights),
            window=row.queue.retention.idempotency,
        )
        lines: list[Line] = []
        shards = [shard for shard in shards_of(row.queue) if queue in {shard, row.queue.name}]
        if all([await read_all(lambda *more: lines.extend(more), shard, desk, foreman) for shard in shards]):
            lines.append(Mark(what="read", t_mono=clock.monotonic(), t_wall=clock.now()))
        return Header(began_at=clock.now(), queues=dict.fromkeys(shards, terms)), *lines

"""One run of a rig: warm up, submit, break, heal, drain, read."""

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from hostler.chaos.load import IMAGE, IMAGES, QUEUE, Planned
from hostler.chaos.record import Bounds, Fault, Header, Terms
from hostler.chaos.schedule import Pause, Strike
from hostler.chaos.tape import Tape
from hostler.cli.rig.clients import Clients
from hostler.cli.rig.faults import Faults
from hostler.cli.rig.granted import grants
from hostler.cli.rig.listeners import Listeners
from hostler.cli.rig.nemesis import play
from hostler.cli.rig.observer import Observer
from hostler.cli.rig.operator import Operator
from hostler.cli.rig.secrets import searched, shown
from hostler.cli.rig.stage import Cast, Report, Stage
from hostler.contracts.queue import RetryPolicy
from hostler.kernel.units import Seconds
from hostler.ports.clock import Clock

PATIENCE: Final[Seconds] = 25.0
"""How long clients go on asking after the last submit's moment."""
TURNING_AWAY: Final[Seconds] = 60.0
DRAIN: Final[Seconds] = 120.0
"""For every job to end once nothing is broken any more; what has not by then is judged as lost."""
HEARING: Final[Seconds] = 20.0
"""For every reader of a live stream to be told the end, once all is over."""
HISTORY: Final = "history.ndjson"


class Play(Struct, frozen=True, kw_only=True):
    """What is to happen."""

    seed: int
    scenario: str | None
    cast: Cast
    load: tuple[Planned, ...]
    strikes: tuple[Strike, ...]
    pauses: tuple[Pause, ...] = ()
    bounds: Bounds
    """Of recovery, as the history is judged by them."""


async def perform(play_: Play, folder: Path, out: Path, clock: Clock, report: Report) -> Path:
    """Run it and return the history; `folder` is for the rig's own things and needs a short path."""
    history = out / HISTORY
    with Tape.open(history, clock) as tape:

        def heard(event: Mapping[str, Any]) -> None:
            report(event)
            _note_death(event, stage, tape)

        stage = Stage(folder, play_.cast, heard, seed=play_.seed)
        tape.write(header(play_, stage.canaries.all(), clock))
        async with stage, Observer.open(stage.engine.url, tape, stage.ways.entry) as observer:
            await observer.until_ready(play_.cast.workers)
            report({"event": "ready", "gateways": list(stage.gateways.values()), "services": stage.services})
            urls = tuple(stage.gateways.values())
            async with Listeners(tape, urls, seed=play_.seed) as listeners:
                async with Clients(tape, urls, listeners.follow) as clients, Operator(tape, urls, report) as operator:
                    await _storm(play_, stage, clients, operator, tape, report)
                    await _drain(clients, operator, observer, tape, report)
                missed = await listeners.finish(within=HEARING)
                told = {"readers": listeners.readers, "connections": listeners.connections}
                report({"event": "heard", **told, "missed": missed, "gone": listeners.gone})
            whole = await observer.read()
            for service in stage.services:
                await observer.effects(service, stage.effects(service))
            await _read_what_was_said(stage, tape)
            if whole:
                tape.mark("read")
    return history


async def _read_what_was_said(stage: Stage, tape: Tape) -> None:
    """Record what limits let go, and search all that processes logged, wrote and show for secrets."""
    for name in stage.workers:
        tape.write(*await asyncio.to_thread(grants, stage.log(name)))
    tape.write(*await shown(tuple(stage.gateways.values())))
    tape.write(*await asyncio.to_thread(lambda: tuple(searched(stage.files(), stage.canaries))))


async def _storm(  # noqa: PLR0917 - all that takes part
    play_: Play, stage: Stage, clients: Clients, operator: Operator, tape: Tape, report: Report
) -> None:
    """Submit, pause and break at the same time, until all have ended."""
    faults = Faults(stage)
    for service in stage.services:
        await faults.well(service)
    tape.mark("began")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(clients.perform(play_.load, patience=PATIENCE))
            group.create_task(operator.perform(play_.pauses))
            nemesis = group.create_task(play(play_.strikes, faults, tape, report))
            nemesis.add_done_callback(lambda _: tape.mark("healed"))
    finally:
        stage.calm()


async def _drain(clients: Clients, operator: Operator, observer: Observer, tape: Tape, report: Report) -> None:
    """Wait until every job has its end, with every queue open."""
    opening = asyncio.create_task(operator.keep_open())
    try:
        await clients.turn_away(within=TURNING_AWAY)
        drained = await observer.drained(within=DRAIN)
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
    tape.mark("drained")
    report({"event": "drained", "all": drained})


def _note_death(event: Mapping[str, Any], stage: Stage, tape: Tape) -> None:
    """Record the end of a worker that no schedule killed: it is a fault too."""
    worker = str(event["name"])
    if event["event"] != "ended" or event["pid"] in stage.felled or not stage.ids(worker):
        return
    begin, at = tape.clock.monotonic(), tape.clock.now()
    tape.write(
        Fault(
            kind="poison" if event["code"] == -signal.SIGKILL else "ended",
            target=worker,
            begin=begin,
            end=begin,
            began_at=at,
            ended_at=at,
            how=f"it ended with {event['code']}",
            workers=stage.ids(worker)[-1:],
        )
    )


def header(play_: Play, canaries: tuple[str, ...], clock: Clock) -> Header:
    """Return what was promised to the queues of a rig."""
    retry, depth = RetryPolicy(), play_.cast.depth
    terms = Terms(attempts=retry.attempts, crashes=retry.crashes, backoff_cap=retry.cap, depth=depth)
    image = msgspec.structs.replace(terms, effectful=frozenset({IMAGE}))
    return Header(
        began_at=clock.now(),
        seed=play_.seed,
        scenario=play_.scenario,
        queues={QUEUE: terms, IMAGES: image},
        bounds=play_.bounds,
        canaries=canaries,
    )

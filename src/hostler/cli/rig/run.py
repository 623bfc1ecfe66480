"""One run of a rig: warm up, submit, break, heal, drain, read."""

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from hostler.chaos.load import IMAGE, QUEUE, Planned
from hostler.chaos.record import Bounds, Fault, Header, Terms
from hostler.chaos.schedule import Strike
from hostler.chaos.tape import Tape
from hostler.cli.rig.clients import Clients
from hostler.cli.rig.faults import Faults
from hostler.cli.rig.nemesis import play
from hostler.cli.rig.observer import Observer
from hostler.cli.rig.stage import Cast, Report, Stage
from hostler.contracts.queue import RetryPolicy
from hostler.kernel.units import Seconds
from hostler.ports.clock import Clock

PATIENCE: Final[Seconds] = 25.0
"""How long clients go on asking after the last submit's moment."""
TURNING_AWAY: Final[Seconds] = 60.0
DRAIN: Final[Seconds] = 120.0
"""For every job to end once nothing is broken any more; what has not by then is judged as lost."""
HISTORY: Final = "history.ndjson"


class Play(Struct, frozen=True, kw_only=True):
    """What is to happen."""

    seed: int
    scenario: str | None
    cast: Cast
    load: tuple[Planned, ...]
    strikes: tuple[Strike, ...]
    bounds: Bounds
    """Of recovery, as the history is judged by them."""


async def perform(play_: Play, folder: Path, out: Path, clock: Clock, report: Report) -> Path:
    """Run it and return the history; `folder` is for the rig's own things and needs a short path."""
    history = out / HISTORY
    with Tape.open(history, clock) as tape:
        tape.write(header(play_, clock))

        def heard(event: Mapping[str, Any]) -> None:
            report(event)
            _note_death(event, stage, tape)

        stage = Stage(folder, play_.cast, heard, seed=play_.seed)
        async with stage, Observer.open(stage.socket, tape) as observer:
            await observer.until_ready(play_.cast.workers)
            report({"event": "ready", "gateways": list(stage.gateways.values()), "services": stage.services})
            async with Clients(tape, tuple(stage.gateways.values())) as clients:
                await _storm(play_, stage, clients, tape, report)
                await clients.turn_away(within=TURNING_AWAY)
            drained = await observer.drained(within=DRAIN)
            tape.mark("drained")
            report({"event": "drained", "all": drained})
            whole = await observer.read()
            for service in stage.services:
                await observer.effects(service, stage.effects(service))
            if whole:
                tape.mark("read")
    return history


async def _storm(play_: Play, stage: Stage, clients: Clients, tape: Tape, report: Report) -> None:
    """Submit and break at the same time, until both have ended."""
    faults = Faults(stage)
    for service in stage.services:
        await faults.well(service)
    tape.mark("began")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(clients.perform(play_.load, patience=PATIENCE))
            nemesis = group.create_task(play(play_.strikes, faults, tape, report))
            nemesis.add_done_callback(lambda _: tape.mark("healed"))
    finally:
        stage.calm()


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


def header(play_: Play, clock: Clock) -> Header:
    """Return what was promised to the queues of a rig."""
    retry = RetryPolicy()
    terms = Terms(attempts=retry.attempts, crashes=retry.crashes, backoff_cap=retry.cap)
    image = Terms(attempts=retry.attempts, crashes=retry.crashes, backoff_cap=retry.cap, effectful=frozenset({IMAGE}))
    return Header(
        began_at=clock.now(),
        seed=play_.seed,
        scenario=play_.scenario,
        queues={QUEUE: terms, "image": image},
        bounds=play_.bounds,
    )

"""Plays a schedule of faults on a stage, and records each."""

import asyncio
import time
from collections.abc import Sequence

from hostler.chaos.record import Fault
from hostler.chaos.schedule import Strike
from hostler.chaos.tape import Tape
from hostler.cli.rig.engines import Moments
from hostler.cli.rig.faults import Faults
from hostler.cli.rig.stage import Report


async def play(strikes: Sequence[Strike], faults: Faults, tape: Tape, report: Report) -> None:
    """Break and mend as the schedule says; cancelled, it leaves things broken: the stage ends then, at once."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for strike in strikes:
            group.create_task(_one(strike, began, faults, tape, report))


async def _one(strike: Strike, began: float, faults: Faults, tape: Tape, report: Report) -> None:
    await asyncio.sleep(max(0.0, began + strike.begin - time.monotonic()))
    clock = tape.clock
    begin, began_at = clock.monotonic(), clock.now()
    told = {"kind": strike.kind.value, "target": strike.target}
    report({"event": "broken", **told, "seconds": strike.length})
    struck = await faults.begin(strike)
    broken = clock.monotonic()
    await asyncio.sleep(strike.length)
    over = clock.monotonic()
    how = await faults.end(strike)
    mended, mended_at = clock.monotonic(), clock.now()
    report({"event": "mended", **told, "how": how})
    instant = strike.length == 0
    tape.write(
        Fault(
            kind=strike.kind.value,
            target=strike.target,
            begin=begin,
            end=begin if instant else mended,
            began_at=began_at,
            ended_at=began_at if instant else mended_at,
            how=how,
            workers=struck.workers,
            endpoints=struck.endpoints,
            loses=faults.loses(strike, Moments(begin=begin, broken=broken, over=over, mended=mended)),
        )
    )

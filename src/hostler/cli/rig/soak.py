"""One long run of a rig that nothing breaks: load, measure, let it run dry, and see what is left."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from hostler.broker.foreman import EngineForeman
from hostler.chaos.drift import Drift, Sample, Unit, drifts
from hostler.chaos.leftovers import left
from hostler.chaos.load import QUEUE
from hostler.cli.rig.meter import Meter
from hostler.cli.rig.stage import Cast, Report, Stage
from hostler.cli.rig.traffic import Traffic
from hostler.client import connect
from hostler.kernel.errors import HostlerError
from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds
from hostler.valkeyio.engine import Engine

SAMPLES: Final = 120
"""In one run, as a rule."""
OFTEN: Final[Seconds] = 0.5
SELDOM: Final[Seconds] = 30.0
QUEUES: Final = (QUEUE, "image")
KEPT_SHARE: Final = 10
KEPT_LEAST: Final[Seconds] = 3.0
KEPT_MOST: Final[Seconds] = 300.0
LATE: Final[Seconds] = 60.0
"""So long after its time a key is surely swept."""
TOLD_MOST: Final = 20

TIMED: Final = "keys: timed"
SETTLED: Final[Seconds] = 2400.0
"""From this length on the number of timed keys is judged: answers to operations are kept for ten minutes, so until then
it rises with every job. That each of them has its time to live is seen at the end, however short the run."""


class Soak(Struct, frozen=True, kw_only=True):
    """What a long run came to."""

    seconds: Seconds
    submitted: int
    lost: int
    """Jobs that were acknowledged and have no end."""
    ended: dict[str, int]
    drift: tuple[Drift, ...]
    keys_left: dict[str, int]
    """Keys after everything ended and its time to be kept was over, by lifetime."""
    violations: tuple[str, ...]


async def soak(
    folder: Path, samples: Path, *, seed: int, seconds: Seconds, rate: float, run: str, report: Report
) -> Soak:
    """Run it; `folder` is for the rig's own things and needs a short path, `samples` gets a line for each look."""
    kept = min(KEPT_MOST, max(KEPT_LEAST, seconds / KEPT_SHARE))
    broken: list[str] = []

    def heard(event: Mapping[str, Any]) -> None:
        report(event)
        if event["event"] == "ended":
            broken.append(f"{event['name']} ended with {event['code']}, and nothing had struck it")

    async with Stage(folder, Cast(), heard, seed=seed) as stage:
        urls = tuple(stage.gateways.values())
        await _keep_for(urls[0], kept)
        settings = EngineSettings(url=stage.engine.url)
        async with (
            Engine.open(settings, role="observer") as engine,
            Traffic(urls, seed=seed, rate=rate, run=run) as traffic,
        ):
            report({"event": "ready", "gateways": list(urls), "kept": kept})
            meter = Meter(stage, engine)
            found = await _measured(traffic, meter, samples, seconds, report)
            report({"event": "drained"})
            foreman = EngineForeman(engine)
            totals = [(await foreman.stats(queue)).totals for queue in QUEUES]
            broken += [sentence for queue in QUEUES for sentence in await foreman.audit(queue)]
            lasting, late = await left(engine, within=kept + LATE)
    units = meter.units | dict.fromkeys(_latencies(found), Unit.SECONDS)
    if seconds < SETTLED:
        units.pop(TIMED, None)
    drift = drifts(found, units, seconds=seconds)
    broken += [_grew(one) for one in drift if one.grew] + _told(traffic.failures) + [*late[:TOLD_MOST]]
    recorded = sum(total[name] for total in totals for name in ("succeeded", "dead", "cancelled", "expired"))
    seen = sum(traffic.ended.values())
    if not traffic.submitted == recorded == seen:
        broken.append(f"{traffic.submitted} jobs were acknowledged, {recorded} ends recorded and {seen} seen")
    return Soak(
        seconds=seconds,
        submitted=traffic.submitted,
        lost=max(0, traffic.submitted - recorded),
        ended=dict(traffic.ended),
        drift=drift,
        keys_left=dict(lasting),
        violations=tuple(broken),
    )


async def _keep_for(url: str, kept: Seconds) -> None:
    """Let the engine keep what ended only a part of the run, so that it has to let go of it again and again."""
    retention = {"terminal": kept, "dead": kept, "idempotency": kept, "events": 1_000}
    async with connect(url) as fleet:
        for queue in QUEUES:
            await fleet.queues.configure(queue, queue={"retention": retention}, reason="a long run")


async def _measured(traffic: Traffic, meter: Meter, path: Path, seconds: Seconds, report: Report) -> tuple[Sample, ...]:
    """Measure while the traffic goes; what is measured once its last job was submitted is not of the run."""
    found: list[Sample] = []
    began = time.monotonic()
    pause = min(SELDOM, max(OFTEN, seconds / SAMPLES))
    with await asyncio.to_thread(path.open, "wb") as file:
        going = asyncio.create_task(traffic.perform(seconds))
        try:
            while not going.done():
                await asyncio.wait({going}, timeout=pause)
                at = time.monotonic() - began
                if at > seconds:
                    break
                with contextlib.suppress(HostlerError):
                    sample = Sample(at=round(at, 3), measures=await meter.read() | traffic.take())
                    found.append(sample)
                    await asyncio.to_thread(file.write, msgspec.json.encode(sample) + b"\n")
                    report({"event": "sample", "at": round(at, 1), "submitted": traffic.submitted})
            await going
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
    return tuple(found)


def _latencies(samples: Sequence[Sample]) -> set[str]:
    return {name for sample in samples for name in sample.measures if name.endswith((" p50", " p99"))}


def _grew(drift: Drift) -> str:
    return (
        f"{drift.name} grew from {drift.early:.3g} to {drift.late:.3g} {drift.unit}, by more than {drift.allowed:.3g}"
    )


def _told(failures: Mapping[str, int]) -> list[str]:
    return [f"{number} times a client was told: {sentence}" for sentence, number in failures.items()][:TOLD_MOST]

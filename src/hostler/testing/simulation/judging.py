"""What a story's engine, clients and services recorded, and which promises that breaks."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from hostler.broker.model import ModelBroker
from hostler.chaos.check import Submission, check
from hostler.chaos.check import Told as Settled
from hostler.chaos.facts import Finding, History
from hostler.chaos.invariants.life import effects_fenced
from hostler.chaos.invariants.service import listened
from hostler.chaos.record import Effect, Heard, Terms
from hostler.contracts.event import Event
from hostler.contracts.job import Job
from hostler.contracts.queue import RegistryRow
from hostler.kernel.units import Seconds
from hostler.testing.machine_compare import all_events, all_jobs
from hostler.testing.sims.effects import Effect as SimEffect
from hostler.testing.simulation.plot import Plot

LOSSES: Final = frozenset({"reap", "reject"})
"""Events that need a fault."""


class Told(Struct, frozen=True, kw_only=True):
    """How one story went."""

    seed: int
    findings: tuple[str, ...]
    """What must not be; empty when every promise was kept."""
    jobs: int = 0
    claims: int = 0
    heard: int = 0
    """Events that somebody was sent by a gateway."""
    seconds: Seconds
    """How long it took, on its own clock."""
    digest: str = ""
    """Of all events with their times: the same seed gives the same."""


class Record(Struct, frozen=True, kw_only=True):
    """What there is to judge by."""

    model: ModelBroker
    plot: Plot
    submitted: Sequence[Submission]
    told: Sequence[Settled]
    heard: Mapping[str, Sequence[Heard]]
    """By reader, connection by connection."""
    slots: dict[str, int]
    """Of every worker that ever was."""
    effects: Sequence[Sequence[SimEffect]]
    """Of every process of a service: one knows nothing of another's fences."""


async def jobs_of(model: ModelBroker) -> dict[str, Job]:
    """Return all jobs."""
    found: dict[str, Job] = {}
    for row in await model.registry():
        found.update(await all_jobs(model, row.queue.name))
    return found


async def judged(record: Record, took: Seconds, known: Sequence[str]) -> Told:
    """Judge every queue; `known` was found before."""
    findings, claims, digest = list(known), 0, hashlib.sha256()
    jobs = await jobs_of(record.model)
    for row in await record.model.registry():
        queue = row.queue.name
        events = await all_events(record.model, queue)
        claims += sum(event.type == "claim" for event in events)
        digest.update(msgspec.json.encode(events))
        findings += await _broken(record, row, events, jobs)
    return Told(
        seed=record.plot.seed,
        findings=tuple(dict.fromkeys(findings)),
        jobs=len(jobs),
        claims=claims,
        heard=sum(len(line.pushes) for lines in record.heard.values() for line in lines),
        seconds=round(took, 3),
        digest=digest.hexdigest()[:16],
    )


async def _broken(record: Record, row: RegistryRow, events: Sequence[Event], jobs: dict[str, Job]) -> list[str]:
    queue, retries = row.queue.name, [kind.retry for kind in row.kinds]
    mine = {id_: job for id_, job in jobs.items() if job.queue == queue}
    logs = [
        [Effect(job=each.job, fence=each.fence) for each in log if each.type == "finished" and each.job in mine]
        for log in record.effects
    ]
    verdict = check(
        events,
        submitted=[one for one in record.submitted if one.id in mine],
        final=mine,
        told=[one for one in record.told if one.job in mine],
        effects=sorted((effect for log in logs for effect in log), key=lambda one: one.fence),
        stats=await record.model.stats(queue),
        audit=await record.model.audit(queue),
        terms=Terms(
            slots=record.slots,
            attempts=max(retry.attempts for retry in retries),
            crashes=max(retry.crashes for retry in retries),
            effectful=frozenset({"sim.echo"}),
        ),
    )
    findings = [*verdict.findings, *(finding for log in logs if log for finding in _effects(events, log))]
    for reader, lines in record.heard.items():
        if mentioned := [line for line in lines if line.queue == queue]:
            findings += listened(reader, events, mentioned)
    found = [str(finding) for finding in findings]
    if not record.plot.faults:
        losses = [event for event in events if event.type in LOSSES]
        found += [f"nothing went wrong, and yet there is {event.type} of {event.job}" for event in losses]
    return found


def _effects(events: Sequence[Event], log: Sequence[Effect]) -> list[Finding]:
    """Judge what one process of a service did, in its order; the rest is judged of all of them."""
    history = History(
        events=tuple(events),
        submitted=None,
        final=None,
        told=None,
        effects=log,
        stats=None,
        audit=None,
        terms=Terms(),
    )
    return effects_fenced(history) or []

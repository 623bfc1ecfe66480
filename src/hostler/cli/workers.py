"""`hostler workers`: who runs jobs."""

from typing import Annotated

from cyclopts import App, Parameter

from hostler.cli.flags import ToGateway
from hostler.cli.output import OK, Out
from hostler.cli.talk import facts_table, talking
from hostler.contracts.api import WorkerVerb
from hostler.contracts.worker import Worker

workers = App(name="workers", help="List, show, pause, resume and drain workers.")

Reason = Annotated[str, Parameter(help="Why; it is kept with the event.")]


@workers.command(name="list")
async def list_(
    *,
    gone: Annotated[bool, Parameter(negative="", help="Also those lost or stopped in the last hour.")] = False,
    common: ToGateway = ToGateway(),
) -> int:
    """List workers."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.workers.list(gone=gone)
    if out.json:
        out.document({"items": found})
        return OK
    rows = [
        (
            row.id,
            row.state,
            f"{row.running}/{row.slots}",
            row.machine,
            row.pid,
            ", ".join(kinds_of(row)),
            row.reason or "",
        )
        for row in found
    ]
    out.table(("worker", "state", "jobs", "machine", "process", "serves", ""), rows, empty="no workers")
    return OK


@workers.command
async def show(worker: str, /, *, common: ToGateway = ToGateway()) -> int:
    """Show one worker with what it offers."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.workers.get(worker)
    if out.json:
        out.document(found)
        return OK
    facts_table(
        out,
        (
            ("worker", found.id),
            ("state", found.state),
            ("reason", found.reason),
            ("machine", found.machine),
            ("process", found.pid),
            ("version", found.version),
            ("jobs", f"{found.running} of {found.slots} slots: {', '.join(found.jobs)}"),
            ("queues", ", ".join(found.queues)),
            ("started", found.started_at),
            ("seen", found.seen_at),
            ("settings", found.settings),
        ),
    )
    places = {endpoint.id: endpoint.url for endpoint in found.endpoints}
    for offer in found.offers:
        health = "" if offer.healthy else " (unhealthy)"
        models = f", models {', '.join(offer.models)}" if offer.models else ""
        where = "itself" if offer.endpoint is None else f"{offer.endpoint} at {places.get(offer.endpoint, '?')}"
        labels = "".join(f", {name} {value}" for name, value in offer.labels.items())
        out.say(f"offers        {', '.join(offer.kinds)} on {where}{health}{labels}{models}")
    return OK


@workers.command
async def pause(worker: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Ask a worker to claim nothing more; what it runs goes on."""
    return await _ask(worker, WorkerVerb.PAUSE, reason, common)


@workers.command
async def resume(worker: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Ask a worker to claim again."""
    return await _ask(worker, WorkerVerb.RESUME, reason, common)


@workers.command
async def drain(worker: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Ask a worker to finish, or give back, what it runs, and to stop."""
    return await _ask(worker, WorkerVerb.DRAIN, reason, common)


async def _ask(worker: str, verb: WorkerVerb, reason: str, common: ToGateway) -> int:
    async with talking(common) as fleet:
        ask = {
            WorkerVerb.PAUSE: fleet.workers.pause,
            WorkerVerb.RESUME: fleet.workers.resume,
            WorkerVerb.DRAIN: fleet.workers.drain,
        }
        await ask[verb](worker, reason=reason)
    Out(json=common.json).answer({"worker": worker, "verb": verb}, f"{worker} was asked to {verb}")
    return OK


def kinds_of(worker: Worker) -> list[str]:
    """Return the kinds that a worker serves now."""
    return sorted({kind for offer in worker.offers if offer.healthy for kind in offer.kinds})

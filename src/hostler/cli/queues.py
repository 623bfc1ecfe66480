"""`hostler queues`: where jobs wait."""

from typing import Annotated, Any, cast

import msgspec
from cyclopts import App, Parameter

from hostler.cli.flags import ToGateway
from hostler.cli.output import OK, Out
from hostler.cli.talk import facts_table, pairs, talking
from hostler.contracts.queue import NAMING, QueueStats, QueueView
from hostler.kernel.errors import SettingsError

queues = App(name="queues", help="List, measure, configure, pause, resume and drain queues.")

Reason = Annotated[str, Parameter(help="Why; it is kept with the event.")]


@queues.command(name="list")
async def list_(*, common: ToGateway = ToGateway()) -> int:
    """List queues with what waits and runs in them."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.queues.list()
    if out.json:
        out.document({"items": found})
        return OK
    columns = ("queue", "", "ready", "scheduled", "running", "waiting", "unworkable", "workers", "kinds")
    rows = [
        (
            row.stats.name if row.spec.shards == 1 else f"{row.stats.name} ({row.spec.shards} shards)",
            _mood(row.stats),
            row.stats.ready,
            row.stats.scheduled,
            row.stats.running,
            row.stats.waiting,
            row.stats.unworkable,
            row.stats.workers,
            ", ".join(kind.name for kind in row.kinds),
        )
        for row in found
    ]
    out.table(columns, rows, empty="no queues")
    return OK


@queues.command
async def stats(queue: str, /, *, common: ToGateway = ToGateway()) -> int:
    """Show the exact counters of one queue."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = (await fleet.queues.get(queue)).stats
    if out.json:
        out.document(found)
        return OK
    facts_table(
        out,
        (
            ("queue", found.name),
            ("paused", found.paused),
            ("draining", found.draining),
            ("reason", found.reason),
            *((name, getattr(found, name)) for name in ("ready", "scheduled", "running", "waiting", "unworkable")),
            *((name, getattr(found, name)) for name in ("depth", "bytes", "lanes", "tenants", "workers")),
            ("oldest ready", found.oldest_ready_at),
            ("event offset", found.offset),
        ),
    )
    for shard in found.shards:
        out.say(f"{shard.name:<14}{_counts(shard)}")
    for title, counts in (("in all", found.totals), ("kept", found.kept)):
        out.say(f"{title:<14}{', '.join(f'{name} {count}' for name, count in counts.items() if count) or 'nothing'}")
    return OK


@queues.command
async def pause(queue: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Stop claims from a queue; what runs goes on."""
    async with talking(common) as fleet:
        return _done(common, await fleet.queues.pause(queue, reason=reason))


@queues.command
async def resume(queue: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Allow claims from a queue again; ends a drain too."""
    async with talking(common) as fleet:
        return _done(common, await fleet.queues.resume(queue, reason=reason))


@queues.command
async def drain(queue: str, /, *, reason: Reason = "", common: ToGateway = ToGateway()) -> int:
    """Refuse new jobs and let what is there run out."""
    async with talking(common) as fleet:
        return _done(common, await fleet.queues.drain(queue, reason=reason))


@queues.command
async def configure(
    queue: str,
    /,
    *,
    set_: Annotated[
        tuple[str, ...], Parameter(name="--set", negative="", help="PATH=VALUE, one or more: limits.key_running=3.")
    ],
    kind: Annotated[str | None, Parameter(help="Change this kind of the queue instead: retry.attempts=2.")] = None,
    reason: Annotated[str, Parameter(help="Why; it is kept with the event.")],
    common: ToGateway = ToGateway(),
) -> int:
    """Change limits, times, weights or retries while everything runs; workers follow within seconds."""
    part = _part(set_)
    async with talking(common) as fleet:
        kinds = {} if kind is None else {kind: part}
        found = await fleet.queues.configure(queue, reason=reason, queue=part if kind is None else {}, kinds=kinds)
    Out(json=common.json).answer({"queue": found.spec, "kinds": found.kinds}, f"{queue} is configured")
    return OK


def _part(given: tuple[str, ...]) -> dict[str, Any]:
    """Return `a.b=value` texts as one table; a value is JSON, or else text."""
    found: dict[str, Any] = {}
    for path, text in pairs(given, flag="--set").items():
        *above, last = path.split(".")
        table = found
        for name in above:
            inner = table.setdefault(name, {})
            if not isinstance(inner, dict):
                raise SettingsError(f"--set: {path} lies in a value that is set as well", problems=())
            table = cast("dict[str, Any]", inner)
        try:
            table[last] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            table[last] = text
    return found


@queues.command
async def registry(*, common: ToGateway = ToGateway()) -> int:
    """Show the queue registry: who puts what where, and how it is treated."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.queues.list()
    if out.json:
        out.document({"items": [{"queue": row.spec, "kinds": row.kinds} for row in found], "naming": NAMING})
        return OK
    columns = ("queue", "kind", "service", "declared by", "payload", "result", "attempts", "lease (s)", "run (s)")
    rows = [
        (
            row.name,
            kind.name,
            kind.service,
            kind.declared_by,
            "typed" if kind.payload else "untyped",
            "typed" if kind.result else "untyped",
            kind.retry.attempts,
            row.spec.lease,
            kind.timeouts.run,
        )
        for row in found
        for kind in row.kinds
    ]
    out.table(columns, rows, empty="no kinds are declared yet: a worker, a connector or the configuration does it")
    for what, rule in NAMING.items():
        out.say(f"{what:<14}{rule}")
    return OK


def _mood(found: QueueStats) -> str:
    return "draining" if found.draining else "paused" if found.paused else ""


def _counts(shard: QueueStats) -> str:
    numbers = {name: getattr(shard, name) for name in ("ready", "scheduled", "running", "waiting")}
    words = [f"{name} {number}" for name, number in numbers.items() if number]
    return ", ".join([*words, *filter(None, [_mood(shard)])]) or "empty"


def _done(common: ToGateway, row: QueueView) -> int:
    Out(json=common.json).answer(row.stats, f"{row.stats.name} is {_mood(row.stats) or 'open'}")
    return OK

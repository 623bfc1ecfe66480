"""Why a job is where it is: per need who lacks what, its place in the line, an estimate, and sentences."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, cast

from msgspec import Struct

from hostler.broker.desk_views import Kept, error_of, request_of
from hostler.broker.envelopes import read_envelope
from hostler.broker.records import read_attempt, read_events, read_lane, unpack_record
from hostler.contracts.explain import Explanation, Holding, Lacking
from hostler.contracts.fence import attempt_of
from hostler.contracts.job import JobState, null_json
from hostler.contracts.needs import Lane
from hostler.contracts.offer import Pool
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.units import Json, Seconds
from hostler.policy.lanes import lane_of
from hostler.policy.lifecycle import Verb
from hostler.policy.matching import lacks
from hostler.policy.obstacles import Survey
from hostler.policy.sharding import home_of, place_of
from hostler.policy.sightings import unserved
from hostler.policy.suspicion import said_of
from hostler.registry.endpoints import EngineEndpoints
from hostler.registry.engine import EngineRegistry
from hostler.registry.kinds import Kinds
from hostler.valkeyio.instants import instant
from hostler.valkeyio.library import Library

CLAIMS_NEEDED: Final = 5
"""Claims of the last minutes that an estimate is made from, at least."""
WINDOW: Final[Seconds] = 300.0
_ENTRIES: Final = 500
_MICRO: Final = 1_000_000
_THOUSAND: Final = 1000
_S = JobState
_TAKING: Final = frozenset({WorkerState.READY, WorkerState.BUSY})


class Facts(Struct, frozen=True, kw_only=True):
    """What the function `explain` found, decoded."""

    job: Kept
    now: int
    paused: bool
    draining: bool
    reason: str
    marked: bool
    ahead: int | None
    tenants: int
    share: float
    """Share of turns of its tenant among those that have claimable jobs."""
    key_running: int
    key_limit: int
    taken: dict[str, float]
    """Amounts that running jobs of this queue take, by `<pool>|<amount>`."""


class Explainer:
    """Explains jobs of one engine."""

    def __init__(self, library: Library, registry: EngineRegistry, endpoints: EngineEndpoints, kinds: Kinds) -> None:
        self._library = library
        self._registry = registry
        self._endpoints = endpoints
        self._kinds = kinds

    async def explain(self, queue: str, seq: str) -> Explanation | None:
        """Return why a job is where it is; None when there is no such job."""
        found, *words = cast("list[Any]", await self._library.call("explain", queue, seq=seq))
        if not found:
            return None
        facts = _facts(seq, words)
        record = facts.job.record
        state = record.job_state
        everybody = await self._registry.workers()
        workers = [worker for worker in everybody if home_of(queue) in worker.queues]
        waits = not state.terminal and state is not _S.RUNNING
        needs = lacking(facts.job.lane, workers) if waits else ()
        survey = Survey(
            facts.job.lane,
            workers if waits else (),
            now=instant(facts.now),
            taken=facts.taken,
            asked=facts.job.envelope.needs.amounts,
        )
        unworkable = state is _S.READY and facts.marked
        estimate, rate = None, ""
        if state is _S.READY and not unworkable and not facts.paused:
            estimate, rate = await self._estimate(queue, facts)
        reasons = _standing(queue, facts, unworkable=unworkable, workers=workers, needs=needs, survey=survey)
        reasons += await self._part(queue) if waits else ()
        if state is _S.READY and not survey.open:
            reasons += await self._unserved(facts, everybody)
        return Explanation(
            state=state,
            unworkable=unworkable,
            needs=needs,
            position=None if facts.ahead is None else facts.ahead + 1,
            ahead=facts.ahead,
            estimate_s=estimate,
            reasons=tuple(reason for reason in (*reasons, rate) if reason),
            endpoints=survey.endpoints,
            kept_out=survey.kept_out(),
            candidates=survey.candidates(),
        )

    async def _part(self, queue: str) -> tuple[str, ...]:
        """Say which part of its queue a job waits in, where there are several: its place is one of that line."""
        shards = await self._kinds.shards_seen(home_of(queue))
        mine = next((name for name in shards if place_of(name) == queue), queue)
        return () if len(shards) == 1 else (f"it waits in {mine}, one of {len(shards)} shards, each with its own line",)

    async def _unserved(self, facts: Facts, workers: Sequence[Worker]) -> tuple[str, ...]:
        """Return what is announced, could run the job, and is served by nobody."""
        kind = (await self._kinds.known()).get(facts.job.lane.kind)
        return () if kind is None else unserved(facts.job.lane, kind, await self._endpoints.census(), workers)

    async def _estimate(self, queue: str, facts: Facts) -> tuple[Seconds | None, str]:
        """Return seconds until its turn, from the claims among the latest events; else why there is no estimate."""
        last = int((await self._library.call("history", queue, after=0, most=1))[1])
        entries = cast(
            "list[bytes]", (await self._library.call("history", queue, after=max(0, last - _ENTRIES), most=_ENTRIES))[3]
        )
        since = instant(facts.now - round(WINDOW * _MICRO))
        times = sorted(
            event.at
            for entry, packed in zip(entries[::2], entries[1::2], strict=True)
            for event in read_events(queue, entry.decode(), packed)
            if event.type == Verb.CLAIM and event.at >= since
        )
        if len(times) < CLAIMS_NEEDED:
            return None, f"not enough data for an estimate ({len(times)} of {CLAIMS_NEEDED} claims)"
        span = max((instant(facts.now) - times[0]).total_seconds(), 0.001)
        mine = len(times) / span * facts.share
        seconds = ((facts.ahead or 0) + 1) / mine
        return round(seconds, 3), f"{len(times)} jobs were started in the last {span:.0f} s"


def _facts(seq: str, words: Sequence[Any]) -> Facts:
    (
        packed,
        sealed,
        row,
        now,
        paused,
        draining,
        reason,
        marked,
        ahead,
        tenants,
        share,
        running,
        limit,
        used,
        attempts,
    ) = words
    envelope = read_envelope(sealed)
    record = unpack_record(packed)
    kept = Kept(
        seq=seq,
        record=record,
        envelope=envelope,
        progress=None,
        result=null_json(),
        result_ref=None,
        attempts=tuple(read_attempt(one) for one in attempts),
        lane=read_lane(row)[1] if row else lane_of(request_of(envelope)),
        unworkable=bool(float(marked)),
    )
    return Facts(
        job=kept,
        now=int(now),
        paused=bool(paused),
        draining=bool(draining),
        reason=reason.decode(),
        marked=bool(float(marked)),
        ahead=None if ahead < 0 else ahead,
        tenants=tenants,
        share=share / _THOUSAND,
        key_running=running,
        key_limit=limit,
        taken={field.decode(): int(amount) / _THOUSAND for field, amount in zip(used[::2], used[1::2], strict=True)},
    )


def lacking(lane: Lane, workers: Sequence[Worker]) -> tuple[Lacking, ...]:
    """Return, per need, which of these workers cannot meet it and what they have instead; empty when one fits."""
    missing: dict[str, tuple[Json, list[Holding]]] = {}
    for worker in workers:
        found = lacks(lane, worker.offers, worker=worker.id, pools=_own(worker))
        for key, wanted, has in found:
            missing.setdefault(key, (wanted, []))[1].append(Holding(worker=worker.id, has=has))
    return tuple(Lacking(key=key, wanted=wanted, lacking=tuple(who)) for key, (wanted, who) in missing.items())


def _own(worker: Worker) -> dict[str, Pool]:
    return {"slots": Pool(id=worker.id, total=float(worker.slots))}


def _standing(
    queue: str,
    facts: Facts,
    *,
    unworkable: bool,
    workers: Sequence[Worker],
    needs: Sequence[Lacking],
    survey: Survey,
) -> list[str]:
    """Return what stands between the job and its start (or its end), the most important first."""
    record = facts.job.record
    state = record.job_state
    if state.terminal:
        return _error(facts)
    if state is _S.RUNNING:
        asked = ["it was asked to stop"] if record.cancel else []
        return [*asked, f"{record.worker} runs it, attempt {attempt_of(record.fence)}"]
    reasons: list[str] = []
    if state is _S.READY:
        reasons += _unserved(facts, unworkable=unworkable, workers=workers, needs=needs)
        reasons += survey.sentences()
    if facts.paused:
        reasons.append(f"the queue {queue} is paused{_because(facts.reason)}")
    if facts.draining:
        reasons.append(f"the queue {queue} is being drained{_because(facts.reason)}")
    if state is _S.SCHEDULED:
        kind = (
            "it waits until" if not record.fence else f"after attempt {attempt_of(record.fence)} it is tried again at"
        )
        reasons.append(f"{kind} {instant(record.ready_at).isoformat()}")
        reasons += _error(facts)
    if state is _S.WAITING:
        until = f", until {_moment(record.ready_at)}" if record.ready_at else ""
        reasons.append(f"it waits for: {record.waiting_for}{until}")
    if state is _S.READY:
        reasons += [f"its last attempt ended as {words}" for words in _error(facts)]
        reasons += _contended(facts)
    return reasons


def _error(facts: Facts) -> list[str]:
    error = error_of(facts.job.record, facts.job.attempts)
    return [f"{error.class_}: {error.message}"] if error else []


def _unserved(facts: Facts, *, unworkable: bool, workers: Sequence[Worker], needs: Sequence[Lacking]) -> list[str]:
    if not workers:
        return ["no worker of this queue lives"]
    fit = [
        worker for worker in workers if not lacks(facts.job.lane, worker.offers, worker=worker.id, pools=_own(worker))
    ]
    if not fit:
        first = "no live worker with a healthy endpoint can serve it"
        said = [need for need in needs if need.key != "healthy"]  # how each endpoint is, is said of each
        return [first, *(_unmet(need) for need in said)]
    if not any(worker.state in _TAKING for worker in fit):
        return [f"every worker that fits takes no work now: {', '.join(f'{one.id} is {one.state}' for one in fit)}"]
    if unworkable:
        return ["a worker that can serve it has just come"]
    return []


def _unmet(need: Lacking) -> str:
    if need.key == "avoid.workers":
        who = ", ".join(holding.worker for holding in need.lacking)
        return f"not again at {who}, where it failed"
    if need.key.startswith("avoid."):
        return f"{need.key.removeprefix('avoid.')}: {need.wanted} is to be avoided, and is at {_names(need)}"
    return f"{need.key}: wanted {need.wanted}, lacking at {_names(need)}"


def _contended(facts: Facts) -> list[str]:
    record, reasons = facts.job.record, list[str]()
    if record.ckey and facts.key_running >= facts.key_limit:
        reasons.append(f"{facts.key_running} of {facts.key_limit} jobs of its concurrency key {record.ckey!r} run")
    if record.crashes:
        reasons.append(said_of(record.crashes))
    if facts.tenants > 1:
        reasons.append(f"{facts.tenants} tenants take turns, its own gets {facts.share:.0%} of them")
    if facts.ahead:
        reasons.append(f"{facts.ahead} of its tenant's jobs go before it")
    return reasons


def _names(need: Lacking) -> str:
    return ", ".join(
        f"{holding.worker} (has {'none' if holding.has is None else holding.has})" for holding in need.lacking
    )


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _moment(micros: int) -> str:
    moment: datetime = instant(micros)
    return moment.isoformat()

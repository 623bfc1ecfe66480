"""Every key that Hostler keeps in the engine: shape, type, lifetime, meaning and hash tag.

A queue's keys begin with `h:{<queue>}:` and so lie in one slot; registry-wide ones begin with `h:{reg}:`
(no queue can be named so: the tag `reg` is refused as a queue's name by `prefix`). A key that matches no
row here is a leak, and a test says so.
"""

import re
from typing import Final, Literal

from msgspec import Struct

KeyType = Literal["string", "hash", "zset", "set", "list", "stream"]
Lifetime = Literal["queue", "job", "work", "idle", "timed", "class", "lane", "registry", "test"]
"""How long a key lives.

`queue`: as long as the queue; `job`: until the job is purged or retention takes it; `work`: while work of
that tenant, lane or key waits (an empty collection is no key); `idle`: until the queue has been empty for an hour, at
the most; `timed`: carries a time to live; `class`:
until no live worker is of it; `lane`: until its lane is retired; `registry`: with the fleet; `test`: never
in production.
"""

REGISTRY_TAG: Final = "reg"


class KeyRow(Struct, frozen=True, kw_only=True):
    """One family of keys."""

    name: str
    """What follows the prefix; `<...>` are its variable parts, in `scope` `queue` after `h:{<queue>}:`."""
    type: KeyType
    lifetime: Lifetime
    meaning: str
    scope: Literal["queue", "registry"] = "queue"

    @property
    def shape(self) -> str:
        """Return the whole key as it is documented."""
        return ("h:{<queue>}:" if self.scope == "queue" else "h:{reg}:") + self.name


def _row(name: str, type_: KeyType, lifetime: Lifetime, meaning: str) -> KeyRow:
    return KeyRow(name=name, type=type_, lifetime=lifetime, meaning=meaning)


def _reg(name: str, type_: KeyType, lifetime: Lifetime, meaning: str) -> KeyRow:
    return KeyRow(name=name, type=type_, lifetime=lifetime, meaning=meaning, scope="registry")


KEYS: Final[tuple[KeyRow, ...]] = (
    _row(
        "meta", "hash", "queue", "scalars: clock, offsets, counters (see layout.META); read once, written once a call"
    ),
    _row("epochs", "zset", "queue", "`<epoch>:<offset that it began behind>` of the last lives, by epoch"),
    _row("lives", "zset", "queue", "last job number of the life before, by the number above which a life's begin"),
    _row("cfg", "string", "queue", "packed configuration (layout.CONFIG); its hash is `cfg` in meta"),
    _row("j:<seq>", "string", "job", "packed record of a job (layout.RECORD)"),
    _row(
        "p:<seq>", "string", "job", "sealed envelope: payload and all that never changes; the functions never open it"
    ),
    _row("a:<seq>", "list", "job", "attempts that ended without success, oldest first (layout.ATTEMPT)"),
    _row("g:<seq>", "string", "job", "latest progress and remote reference (layout.PROGRESS)"),
    _row("c:<seq>", "string", "job", "checkpoint, sealed"),
    _row("pv:<seq>", "string", "timed", "latest preview picture of a running job, its bytes; a minute at most"),
    _row("s:<seq>", "string", "job", "result (layout.RESULT); absent means null"),
    _row(
        "r:<lane>:<tenant>", "zset", "work", "claimable jobs by effective arrival; a trailing k marks those with a key"
    ),
    _row("tl:<tenant>", "zset", "work", "lanes where the tenant has claimable jobs, by their head's effective arrival"),
    _row("lt:<lane>", "set", "work", "tenants with claimable jobs in a lane"),
    _row("TN", "zset", "work", "tenants with claimable jobs, by exact pass"),
    _row(
        "TN:<class>", "zset", "class", "tenants that may have jobs for a worker class, by a lower bound of their pass"
    ),
    _row("pass", "hash", "idle", "pass of tenants without claimable jobs that is still ahead of the queue's"),
    _row("td", "hash", "work", "jobs that have not ended, per tenant"),
    _row("lanes", "hash", "lane", "lane number -> packed row (layout.LANE)"),
    _row("lanekeys", "hash", "lane", "lane key (sha of its canonical form) -> lane number"),
    _row("lc", "hash", "work", "jobs that have not ended, per lane"),
    _row("lr", "hash", "work", "ready jobs, parked ones included, per lane"),
    _row("un", "hash", "work", "lanes that no live worker can serve -> since (microseconds)"),
    _row("classes", "hash", "class", "worker class -> highest lane number that was judged for it"),
    _row("cl:<class>", "hash", "class", "lane -> indexes of the offers that fit, best first, joined by commas"),
    _row("cls:<lane>", "set", "lane", "classes that cover a lane"),
    _row("w", "hash", "class", "live worker -> packed (expires at, class)"),
    _row("idle:<class>", "set", "class", "workers of the class whose last claim came back empty"),
    _row("use", "hash", "work", "`<pool>|<amount>` -> thousandths taken by running jobs"),
    _row("grace", "zset", "timed", "leases that were extended after a restart or stall, by the end they got"),
    _row(
        "gracing", "zset", "timed", "leases that still have to be extended after a restart or stall, a slice at a time"
    ),
    _row("k:<key>", "hash", "work", "concurrency key: `r` running, `q<lane>` claimable, `p<lane>` parked"),
    _row("kw:<lane>:<key>", "zset", "work", "parked jobs of a concurrency key by effective arrival"),
    _row("delayed", "zset", "work", "scheduled jobs by when they become ready"),
    _row("waiting", "zset", "work", "waiting jobs by when they wake by themselves (inf: never)"),
    _row("leases", "zset", "work", "running jobs by lease end"),
    _row("expiry", "zset", "work", "jobs by deadline or end of queue wait, whichever is first"),
    _row("cancels", "zset", "work", "running jobs that were asked to stop, by end of their grace"),
    _row("done", "zset", "job", "succeeded, cancelled and expired jobs by end"),
    _row("dead", "zset", "job", "dead jobs by end"),
    _row("op:<id>", "string", "timed", "answer to one operation, for ten minutes"),
    _row("i:<tenant>:<key>", "string", "timed", "idempotency key -> packed (job, hash of the body)"),
    _row("home:<affinity>", "string", "timed", "where the last job of a session ran: packed (endpoint, until)"),
    _row("ev", "stream", "queue", "events; entry id `<first offset>-0`, field `e` packed (layout.ENTRY)"),
    _row("clock", "string", "test", "the time in microseconds, in a test build of the library only"),
    _reg("meta", "hash", "registry", "scalars of the registry's own stream (layout.META: clock and offsets only)"),
    _reg("kinds", "hash", "registry", "kind -> its declaration"),
    _reg("queues", "hash", "registry", "queue -> its row"),
    _reg("v", "string", "registry", "version of kinds and queues, raised by every change"),
    _reg("workers", "hash", "registry", "worker -> packed (state, seen, reason, what it announced)"),
    _reg("alive", "zset", "registry", "worker -> when its lease ends"),
    _reg("gone", "zset", "registry", "worker that was lost or stopped -> since when; an hour"),
    _reg("cmd:<worker>", "list", "timed", "commands that wait for a worker"),
    _reg("endpoints", "hash", "registry", "announced endpoint -> packed (since, seen, what was announced)"),
    _reg("epends", "zset", "registry", "announced endpoint -> when its lease ends"),
    _reg(
        "epmarks", "hash", "registry", "endpoint -> packed (why an operator paused it or false, resets of its breakers)"
    ),
    _reg("epv", "string", "registry", "version of endpoints and marks, raised by every change but a renewal"),
    _reg(
        "mem:<endpoint>",
        "string",
        "timed",
        "an endpoint that holds one model: packed (who decides, until when, what is to come, the latest load, calls)",
    ),
    _reg(
        "lim:<name>",
        "string",
        "timed",
        "a shared limit: packed (paid for until, nobody before, leases, text, its line), while it says anything",
    ),
    _reg("limends", "zset", "registry", "shared limit -> when its row ends"),
    _reg("rc:<key>", "string", "timed", "a kept result, sealed"),
    _reg("rf:<key>", "string", "timed", "who runs what is not kept: packed (job, fence)"),
    _reg("rends", "zset", "registry", "kept result -> when it ends"),
    _reg("rsize", "hash", "registry", "kept result -> its bytes; `all`: together"),
    _reg("rstat", "hash", "registry", "`<kind>|<what>` -> how often: hits, misses, waits, kept"),
    _reg("ev", "stream", "registry", "events about workers, kinds and endpoints, as in a queue's stream"),
    _reg("clock", "string", "test", "the time in microseconds, in a test build of the library only"),
)
"""The table; a new key begins with a new row here."""


def prefix(queue: str) -> str:
    """Return what every key of `queue` begins with; `ValueError` for a name that no queue may have."""
    if queue == REGISTRY_TAG or "{" in queue or "}" in queue or not queue:
        raise ValueError(queue)
    return f"h:{{{queue}}}:"


def registry_key(name: str) -> str:
    """Return the registry-wide key `name`."""
    return f"h:{{{REGISTRY_TAG}}}:{name}"


def meta_key(queue: str) -> str:
    """Return the key that every function call declares: it fixes the slot."""
    return prefix(queue) + "meta"


def wake_channel(queue: str, worker: str) -> str:
    """Return the channel (not a key) on which `worker` hears of claimable work in `queue`."""
    return f"{prefix(queue)}w:{worker}"


def _compile(row: KeyRow) -> re.Pattern[str]:
    parts = re.split(r"<(\w+)>", row.name)
    named = {"seq": r"\d+", "lane": r"\d+", "class": r"[0-9a-f]+"}
    body = "".join(re.escape(part) if index % 2 == 0 else named.get(part, ".+") for index, part in enumerate(parts))
    tag = r"h:\{(?!reg\})[^{}]+\}:" if row.scope == "queue" else r"h:\{reg\}:"
    return re.compile(tag + body, re.DOTALL)


_PATTERNS: Final = tuple((_compile(row), row) for row in KEYS)


def owner_of(key: str | bytes) -> KeyRow | None:
    """Return the row that a key in the engine belongs to; None means that it leaked."""
    text = key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else key
    return next((row for pattern, row in _PATTERNS if pattern.fullmatch(text)), None)

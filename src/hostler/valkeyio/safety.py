"""Whether an engine keeps what it acknowledged: read its settings, then judge them purely."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from hostler.kernel.errors import EngineUnsafeError, EngineVersionError
from hostler.valkeyio.client import send
from hostler.valkeyio.faults import mapped

MINIMUM_VALKEY = (8,)
MINIMUM_REDIS = (7,)
_NEAR_FULL = 0.8

TO_WRITE, MAX_LAG = "min-replicas-to-write", "min-replicas-max-lag"
NODE_TIMEOUT, VALIDITY, COVERAGE = (
    "cluster-node-timeout",
    "cluster-replica-validity-factor",
    "cluster-require-full-coverage",
)
PING_PERIOD = "repl-ping-replica-period"
_SETTINGS = (
    "maxmemory-policy",
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "auto-aof-rewrite-percentage",
    TO_WRITE,
    MAX_LAG,
    NODE_TIMEOUT,
    VALIDITY,
    COVERAGE,
    PING_PERIOD,
)
_NOTHING_LOST = "nothing that was acknowledged is lost, not even by a power cut of its machine"
_WANTED: Mapping[str, tuple[str, str]] = {
    "maxmemory-policy": ("noeviction", "it may evict jobs when its memory is full"),
    "appendonly": ("yes", "a restart loses what came after the last snapshot"),
    "appendfsync": ("always", "a power cut loses jobs whose submit was acknowledged"),
    "no-appendfsync-on-rewrite": ("no", "a power cut during a rewrite loses acknowledged jobs"),
}


class Facts(Struct, frozen=True, kw_only=True):
    """What a server says of itself; `settings` is None when it does not let us read them."""

    name: str
    """`valkey` or `redis`."""
    version: str
    role: str
    cluster: bool
    functions: bool
    replicas: int = 0
    """Those that are connected to it."""
    used_memory: int
    """Bytes."""
    max_memory: int
    """Bytes; 0 is without a limit, as the server says it."""
    settings: Mapping[str, str] | None

    @property
    def product(self) -> str:
        """What it is, like `valkey 9.1.2`."""
        return f"{self.name} {self.version}"


class Watch(Struct, frozen=True, kw_only=True):
    """What sentinels say of the server that they watch."""

    service: str
    primary: str
    """HOST:PORT."""
    sentinels: int
    """As many know of each other, those that are down included."""
    quorum: int
    down_after: float
    """Seconds of silence after which one of them takes the primary for down."""
    named: int = 1
    """Sentinels in the engine's URL."""
    answering: int = 1
    """Of those."""
    trouble: str = ""
    """Why they could not choose another primary now, in their words."""


class Verdict(Struct, frozen=True, kw_only=True):
    """The judgement: reasons are full sentences that name the setting and what to do."""

    impossible: tuple[str, ...] = ()
    """Why it can never work: refused whatever the operator says."""
    unsafe: tuple[str, ...] = ()
    """Why acknowledged jobs may be lost: refused unless the operator insists."""
    warnings: tuple[str, ...] = ()
    promise: str = ""
    """What of that which was acknowledged can be lost, and when; empty where `unsafe` says that."""


def judge(facts: Facts, watch: Watch | None = None, *, in_cluster: bool = False) -> Verdict:
    """Decide purely whether this engine can be used, and whether safely; `watch` where sentinels lead to it.

    With `in_cluster` it is a primary that was reached as one of a cluster, which is judged in `safety_cluster`.
    """
    unsafe: list[str] = []
    if facts.settings is None:
        unsafe.append(
            "it cannot be checked whether it keeps jobs, because this user may not run CONFIG GET: allow it with "
            f"`ACL SETUSER <user> +config|get`, after making sure of {_wanted_line()}"
        )
    else:
        unsafe.extend(_wrong_settings(facts.settings))
    warnings: list[str] = []
    if facts.max_memory and facts.used_memory > _NEAR_FULL * facts.max_memory:
        share = facts.used_memory / facts.max_memory
        warnings.append(
            f"its memory is {share:.0%} full: raise `maxmemory` (now {facts.max_memory} bytes) or purge jobs"
        )
    promise = _NOTHING_LOST
    if watch is not None:
        unsafe.extend(_unguarded(facts.settings or {}))
        warnings.extend(_thin(facts, watch))
        promise = _window(facts.settings or {})
    return Verdict(
        impossible=tuple(_impossible(facts, in_cluster=in_cluster)),
        unsafe=tuple(unsafe),
        warnings=tuple(warnings),
        promise="" if unsafe else promise,
    )


def _unguarded(settings: Mapping[str, str]) -> list[str]:
    """Say what lets a primary that was cut off go on acknowledging."""
    found: list[str] = []
    if settings.get(TO_WRITE, "0") == "0":
        found.append(
            f"`{TO_WRITE}` is `{settings.get(TO_WRITE, 'unknown')}`, so a primary that is cut off from its replicas "
            "goes on acknowledging jobs, and a fail-over loses them all, however long that lasts: run "
            f"`CONFIG SET {TO_WRITE} 1` and `CONFIG REWRITE` on each server of the service"
        )
    if settings.get(MAX_LAG) == "0":
        found.append(
            f"`{MAX_LAG}` is `0`, which switches `{TO_WRITE}` off: run `CONFIG SET {MAX_LAG} 10` and "
            "`CONFIG REWRITE` on each server of the service"
        )
    return found


def _thin(facts: Facts, watch: Watch) -> list[str]:
    found: list[str] = []
    if watch.trouble:
        found.append(
            f"if the primary {watch.primary} of {watch.service} fails, no other can be chosen: {watch.trouble}; start "
            "the sentinels that are missing"
        )
    if watch.answering < watch.named:
        found.append(f"{watch.answering} of the {watch.named} sentinels in the engine's URL answer: start the others")
    needed = int((facts.settings or {}).get(TO_WRITE, "0"))
    if facts.replicas <= needed:
        found.append(
            f"{facts.replicas} replicas of {watch.service} are connected, and `{TO_WRITE}` is {needed}: after a "
            "fail-over jobs are refused until another replica is there; add one"
        )
    return found


def _window(settings: Mapping[str, str]) -> str:
    return (
        "a fail-over may lose what no replica had received when the primary failed: what was acknowledged in the last "
        "milliseconds, and no more than in the last "
        f"{settings.get(MAX_LAG, '?')} s (`{MAX_LAG}`) when the primary was cut off; fences, job numbers and epochs "
        "go on above all that were given"
    )


def _wanted_line() -> str:
    return ", ".join(f"`{name} {wanted}`" for name, (wanted, _) in _WANTED.items())


def _impossible(facts: Facts, *, in_cluster: bool) -> list[str]:
    found: list[str] = []
    minimum = MINIMUM_VALKEY if facts.name == "valkey" else MINIMUM_REDIS
    parts = tuple(int(part) for part in facts.version.split(".") if part.isdigit())
    if parts < minimum:
        found.append(
            f"it is {facts.name} {facts.version}, and Valkey 8 or Redis 7.0 is the oldest that works: upgrade it"
        )
    elif not facts.functions:
        found.append(
            "it has no functions (FCALL), or this user may not call them: run `ACL SETUSER <user> +@scripting`"
        )
    if facts.role != "master":
        found.append("it is a read-only replica: give the URL of its primary (`INFO replication` there names it)")
    if facts.cluster and not in_cluster:
        found.append(
            "it is one node of a cluster, and has but a part of the queues: give the cluster's URL, as "
            "redis+cluster://HOST:PORT,HOST:PORT,HOST:PORT (rediss+cluster:// with TLS)"
        )
    return found


def _wrong_settings(settings: Mapping[str, str]) -> list[str]:
    found = [
        f"`{name}` is `{settings.get(name, 'unknown')}`, so {harm}: run `CONFIG SET {name} {wanted}` and "
        f"`CONFIG REWRITE`, or put `{name} {wanted}` into its configuration file"
        for name, (wanted, harm) in _WANTED.items()
        if settings.get(name) != wanted
    ]
    if settings.get("auto-aof-rewrite-percentage", "0") == "0":
        found.append(
            "`auto-aof-rewrite-percentage` is `0`, so its log grows without end and a restart takes ever longer: run "
            "`CONFIG SET auto-aof-rewrite-percentage 100` and `CONFIG REWRITE`"
        )
    return found


async def read_facts(client: Redis) -> Facts:
    """Ask a server about itself; a few commands, none of which writes."""
    with mapped():
        info = cast("dict[str, Any]", await send(client, "INFO", "everything"))
        settings = await _read_settings(client)
        functions = await _has_functions(client)
    return Facts(
        name=str(info.get("server_name", "redis")),
        version=str(info.get("valkey_version", info.get("redis_version", "0"))),
        role=str(info.get("role", "unknown")),
        cluster=bool(info.get("cluster_enabled", 0)),
        functions=functions,
        replicas=int(info.get("connected_slaves", 0)),
        used_memory=int(info.get("used_memory", 0)),
        max_memory=int(info.get("maxmemory", 0)),
        settings=settings,
    )


async def _read_settings(client: Redis) -> dict[str, str] | None:
    try:
        found = cast("dict[Any, Any]", await send(client, "CONFIG GET", *_SETTINGS))
    except NoPermissionError:
        return None
    except ResponseError as error:  # managed servers rename or disable the command
        if "unknown command" not in str(error).lower():
            raise
        return None
    return {_text(name): _text(value) for name, value in found.items()}


async def _has_functions(client: Redis) -> bool:
    try:
        await send(client, "FCALL_RO", "hostler_no_such_function", 0)
    except NoPermissionError:
        return False
    except ResponseError as error:
        return "function not found" in str(error).lower()
    return True


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def admit(verdict: Verdict, *, url: str, allow_degraded: bool) -> None:
    """Refuse an engine that may not be used.

    `EngineVersionError` for what can never work, `EngineUnsafeError` for what may lose jobs and was not allowed to.
    """
    if verdict.impossible:
        raise EngineVersionError(f"the engine {url} cannot be used: {_list(verdict.impossible)}", url=url)
    if verdict.unsafe and not allow_degraded:
        raise EngineUnsafeError(
            f"the engine {url} may lose acknowledged jobs: {_list(verdict.unsafe)}; or run on it all the same, "
            "marked degraded, with --allow-degraded, `allow_degraded = true` under [engine] or "
            "HOSTLER_ENGINE_ALLOW_DEGRADED=1",
            url=url,
            reasons=verdict.unsafe,
        )


def _list(reasons: Sequence[str]) -> str:
    return "; ".join(reasons)

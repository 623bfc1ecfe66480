"""`hostler submit`: one job, and what becomes of it."""

import asyncio
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from hostler.cli.flags import SHARED, Common, given
from hostler.cli.follow import follow_job
from hostler.cli.output import FAILED, OK, Out
from hostler.cli.talk import exact_moment, pairs, said_of, talking
from hostler.client import Fleet, JobHandle
from hostler.contracts.job import Job, JobState
from hostler.kernel.errors import CapacityError, EngineError, GatewayUnavailableError, HostlerError, SettingsError
from hostler.kernel.units import Seconds

POLL: Final[Seconds] = 0.3


@Parameter(name="*", group=SHARED)
@dataclass(frozen=True, kw_only=True)
class ToGatewayBesidesKey(Common):
    """As other commands of users, but `--key` is the job's: the credential comes by another name."""

    url: str | None = None
    """Address of the gateway; `HOSTLER_URL`, else http://127.0.0.1:7700."""
    api_key: str | None = None
    """Credential for the gateway, `--key` of the other commands; `HOSTLER_KEY`."""

    def settings(self) -> dict[str, tuple[str, Any]]:
        """Return the settings that were given as flags."""
        return given({"url": ("--url", self.url), "key": ("--api-key", self.api_key)})


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class About:
    """What can be said about a job."""

    need: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """What the worker must offer: service=, model=, labels.NAME=, versions.NAME=, isolation=, amounts.NAME=."""
    avoid: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """What it must not offer, written alike."""
    priority: int | None = None
    """0 to 100; higher goes first."""
    key: str | None = None
    """Idempotency key, not a credential (that is --api-key): one key gives one job, however often it is sent."""
    delay: float | None = None
    """Seconds until it may start."""
    deadline: str | None = None
    """Time (RFC 3339, as 2026-11-24T09:00:00Z) after which it is expired."""
    queue: str | None = None
    """The kind's own unless given."""
    tenant: str | None = None
    """Whose turn it takes."""
    concurrency_key: str | None = None
    """Jobs with one key never run at the same time."""
    label: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """NAME=VALUE to find it by."""

    def options(self) -> dict[str, Any]:
        """Return what was given, as the client takes it."""
        options = {
            "needs": needs_of(self.need, flag="--need"),
            "avoid": needs_of(self.avoid, flag="--avoid"),
            "priority": self.priority,
            "delay": self.delay,
            "deadline": None if self.deadline is None else exact_moment(self.deadline, flag="--deadline"),
            "queue": self.queue,
            "tenant": self.tenant,
            "concurrency_key": self.concurrency_key,
            "labels": pairs(self.label, flag="--label"),
        }
        return {name: value for name, value in options.items() if value not in (None, {})}


async def submit(
    kind: str,
    /,
    *,
    data: Annotated[
        str | None, Parameter(help="Payload: JSON, @FILE, or - for stdin.", allow_leading_hyphen=True)
    ] = None,
    about: About = About(),
    wait: Annotated[bool, Parameter(negative="", help="Wait for the end; exit 0 only on success.")] = False,
    follow: Annotated[bool, Parameter(negative="", help="Show progress until the end; exit as --wait.")] = False,
    wait_engine: Annotated[
        float | None, Parameter(help="Seconds to wait for a gateway or engine that does not answer yet.")
    ] = None,
    common: ToGatewayBesidesKey = ToGatewayBesidesKey(),
) -> int:
    """Submit a job; it is durable once its id is printed."""
    out = Out(json=common.json)
    payload = await asyncio.to_thread(read_payload, data)
    options = about.options()
    key = about.key or f"cli-{uuid.uuid4().hex}"
    async with talking(common) as fleet:
        if wait_engine is not None:
            await _until_ready(fleet, wait_engine)
        hint = "" if wait_engine is not None else "; --wait-engine SECONDS waits for what does not answer yet"
        job = await _send(fleet, kind, payload, {**options, "idempotency_key": key}, hint=hint)
        if not wait and not follow:
            known = "" if job.created else " (the key was seen: this is the first job)"
            out.answer({"id": job.id, "created": job.created}, f"{job.id}{known}")
            return OK
        if follow:
            await follow_job(out, job)
        return await conclude(out, job)


async def conclude(out: Out, job: JobHandle) -> int:
    """Wait for a job's end and print it; the exit code tells whether it succeeded."""
    ended = await job.wait()
    result: Any = await job.result(type=msgspec.Raw) if ended.state is JobState.SUCCEEDED else None
    if out.json:
        out.document({"outcome": ended.state, "created": job.created, "result": result, "job": ended})
    else:
        out.say(_words(ended))
        if result is not None and bytes(result) != b"null":
            out.say(bytes(result).decode())
    return OK if ended.state is JobState.SUCCEEDED else FAILED


def needs_of(given_pairs: tuple[str, ...], *, flag: str) -> dict[str, Any]:
    """Return `--need` arguments as the API takes them; what they mean is judged there."""
    needs: dict[str, Any] = {}
    for pair in given_pairs:
        ((path, value),) = pairs([pair], flag=flag).items()
        head, _, name = path.partition(".")
        if head in ("model", "models"):
            needs.setdefault("models", []).extend(part for part in value.split(",") if part)
        elif name:
            needs.setdefault(head, {})[name] = _number(value, flag) if head == "amounts" else value
        else:
            needs[head] = value
    return needs


def read_payload(data: str | None) -> Any:
    """Return the payload that `--data` names."""
    if data is None:
        return None
    try:
        if data == "-":
            text = sys.stdin.read()
        elif data.startswith("@"):
            text = Path(data[1:]).read_text(encoding="utf-8")
        else:
            text = data
        return msgspec.json.decode(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--data: {data} cannot be read ({error})", problems=()) from error
    except msgspec.DecodeError as error:
        words = f"--data: expected JSON, @FILE or -, got: {error}; text is JSON in double quotes: --data '\"hello\"'"
        raise SettingsError(words, problems=()) from error


async def _send(fleet: Fleet, kind: str, payload: Any, options: dict[str, Any], *, hint: str) -> JobHandle:
    try:
        (answer,) = await fleet.submit_many([(kind, payload, options)])
        if isinstance(answer, EngineError):
            raise answer
    except (GatewayUnavailableError, EngineError) as error:
        key = options["idempotency_key"]
        raise type(error)(
            f"{error.message.rstrip('.')}. The job may or may not be stored; send it again with --key {key}: that "
            f"makes one job, however often it is sent{hint}.",
            **{**error.facts, "key": key},
        ) from error
    if isinstance(answer, CapacityError):
        words = f"{answer.message} Come back in {answer.retry_after:g} s."
        raise type(answer)(words, retry_after=answer.retry_after) from answer
    if isinstance(answer, HostlerError):
        raise answer
    return answer


async def _until_ready(fleet: Fleet, limit: Seconds) -> None:
    ends = time.monotonic() + limit
    while True:
        try:
            await fleet.health()
        except (GatewayUnavailableError, EngineError):
            if time.monotonic() >= ends:
                raise
            await asyncio.sleep(POLL)
        else:
            return


def _number(value: str, flag: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise SettingsError(f"{flag}: an amount is a number, got {value!r}", problems=()) from error


def _words(job: Job) -> str:
    said = said_of(job)
    return f"{job.id} {job.state}{f': {said}' if said else ''}"

"""The promises of the connector port, put to a live service: which are kept, broken or could not be tried."""

import asyncio
import inspect
import traceback
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, Literal
from unittest import SkipTest

from msgspec import Struct, structs

from hostler.contracts.service import Failed, RemoteRef, Step
from hostler.kernel.units import Seconds
from hostler.ports.connector import Connector
from hostler.testing.connectors_house import ConnectorHarness, Work, call_of
from hostler.testing.connectors_promises import TroublePromises, WorkPromises

CYCLES: Final = 3
"""Times that a live service is opened, used and closed to see whether something is left open."""
Need = Literal["nothing", "payload", "slow", "wrong"]
NEEDS: Final[dict[str, Need]] = {
    "test_a_probe_says_how_the_endpoint_is_and_never_raises": "nothing",
    "test_capabilities_name_kinds_that_are_declared_and_raise_one_error_when_nobody_answers": "nothing",
    "test_an_endpoint_that_is_not_there_is_a_failure_with_a_class": "payload",
    "test_work_ends_in_exactly_one_end_after_progress_that_only_rises": "payload",
    "test_whoever_stops_watching_does_not_stop_the_work": "payload",
    "test_reconcile_tells_the_truth_and_fetch_gives_the_same_end": "payload",
    "test_another_connector_learns_of_the_work_or_says_that_it_cannot": "payload",
    "test_release_is_idempotent_and_forgets": "payload",
    "test_work_that_does_not_fit_its_kind_is_invalid_input": "wrong",
    "test_cancel_stops_the_work_and_its_observer_learns_it": "slow",
    "test_a_run_over_its_limit_ends_as_timeout_and_is_stopped": "slow",
    "test_a_deadline_ends_work_as_timeout": "slow",
    "test_closing_leaves_nothing_open": "slow",
}
"""What each promise needs of whoever asks; those that need a hold on the service (to hang, to cut) are not here."""
SUPPORTS: Final = {
    "probe": "test_a_probe_says_how_the_endpoint_is_and_never_raises",
    "capabilities": "test_capabilities_name_kinds_that_are_declared_and_raise_one_error_when_nobody_answers",
    "work": "test_work_ends_in_exactly_one_end_after_progress_that_only_rises",
    "fetch": "test_reconcile_tells_the_truth_and_fetch_gives_the_same_end",
    "reconcile": "test_another_connector_learns_of_the_work_or_says_that_it_cannot",
    "cancel": "test_cancel_stops_the_work_and_its_observer_learns_it",
    "release": "test_release_is_idempotent_and_forgets",
}
"""What a service can do, by the promise that shows it."""


class Verdict(Struct, frozen=True, kw_only=True):
    """One promise, put to a service."""

    promise: str
    """A sentence."""
    outcome: Literal["kept", "broken", "untried"]
    reason: str = ""


class Asked(Struct, frozen=True, kw_only=True):
    """What a service is asked to do; what is None is not tried."""

    kind: str
    payload: Any = None
    slow: Any = None
    wrong: Any = None


class Trial(WorkPromises, TroublePromises):
    """The promises, with less repetition than in a test."""

    cycles = CYCLES


async def first_run(connector: Connector, asked: Asked) -> tuple[RemoteRef | None, list[Step]]:
    """Do the work once, and return the service's name for it with every step."""
    call = call_of(Work(kind=asked.kind, payload=asked.payload, job=_fresh()))
    async with connector:
        ref = await connector.submit(call)
        if not isinstance(ref, RemoteRef):
            return None, [ref]
        steps = [step async for step in connector.observe(call, ref)]
        await connector.release(ref)
        return ref, steps


async def verdicts(
    build: Callable[[], Connector],
    unreachable: Callable[[], Connector],
    asked: Asked,
    *,
    remembers: bool,
    within: Seconds,
    sick: str | None = None,
) -> AsyncGenerator[Verdict]:
    """Put one promise after another to the service, each with a job of its own; none to one that is `sick`, and why."""
    given = {"payload": asked.payload, "slow": asked.slow, "wrong": asked.wrong}
    for name, need in NEEDS.items():
        sentence = sentence_of(name)
        if sick is not None:
            yield Verdict(promise=sentence, outcome="untried", reason=sick)
            continue
        if need != "nothing" and (asked.payload is None or given[need] is None):
            missing = "payload" if asked.payload is None else need
            yield Verdict(promise=sentence, outcome="untried", reason=f"needs --{missing}")
            continue
        job = _fresh()
        harness = ConnectorHarness(
            build=build,
            unreachable=unreachable,
            quick=Work(kind=asked.kind, payload=asked.payload, job=job),
            slow=Work(kind=asked.kind, payload=asked.slow, job=job),
            wrong=Work(kind=asked.kind, payload=asked.wrong, job=job),
            remembers=remembers,
        )
        found = await _verdict(getattr(Trial(), name)(harness), within=within)
        yield structs.replace(found, promise=sentence)


async def _verdict(promise: Awaitable[None], *, within: Seconds) -> Verdict:
    try:
        async with asyncio.timeout(within):
            await promise
    except SkipTest as error:
        return Verdict(promise="", outcome="untried", reason=str(error))
    except TimeoutError:
        return Verdict(promise="", outcome="broken", reason=f"not within {within:g} s")
    except Exception as error:  # noqa: BLE001 - whatever a promise meets, it was not kept, and the next is tried
        return Verdict(promise="", outcome="broken", reason=_words(error))
    return Verdict(promise="", outcome="kept")


def sentence_of(name: str) -> str:
    """Return the promise in words."""
    return name.removeprefix("test_").replace("_", " ")


def all_promises() -> set[str]:
    """Return the names of all promises of the port."""
    return {name for name, _ in inspect.getmembers(Trial, inspect.isfunction) if name.startswith("test_")}


def _words(error: Exception) -> str:
    """Return what went wrong: the error's own words, and the line that was not true."""
    line = traceback.extract_tb(error.__traceback__)
    promise = next((frame.line for frame in reversed(line) if frame.filename.endswith("connectors_promises.py")), "")
    subject = error.args[0] if error.args else None
    if isinstance(error, AssertionError) and subject is None and promise:
        return f"not so: {promise.removeprefix('assert ')}"
    failed = isinstance(subject, Failed)
    words = f"{subject.failure.label}: {subject.failure.message}" if failed else str(error) or type(error).__name__
    return f"{words} ({promise})" if promise else words


def _fresh() -> str:
    return f"check.{uuid.uuid4().hex[:12]}"

"""What a submit, or an order, is to many shards: parts that each go to one of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeVar

from msgspec import Struct

from hostler.broker.engine_submit import SUBMIT_MAX, Prepared, Submitter
from hostler.contracts.job import Submitted
from hostler.contracts.queue import QueueSpec
from hostler.kernel.errors import CapacityError, EngineTimeoutError, EngineUnavailableError, HostlerError
from hostler.policy.sharding import open_of, shard_for, shards_of, spread_of

T = TypeVar("T")
_OPERATION: Final = "operation"


class Part(Struct, frozen=True, kw_only=True):
    """Jobs that are stored in one step."""

    shard: str
    operation: str
    spread: int
    """Over how many shards keys are spread, by what was known when this was made."""
    jobs: tuple[tuple[int, Prepared], ...]
    """Each with its place in the answer."""
    free: bool
    """Whether any other shard would have done."""


def parts_of(spec: QueueSpec, jobs: Sequence[tuple[int, Prepared]], operation: str) -> Iterator[Part]:
    """Yield the parts of one submit to one queue; the same jobs and operation give the same parts again.

    Jobs without a key go where the operation leads, so that it finds what it stored whoever asks again.
    """
    shards, spread = shards_of(spec), spread_of(spec)
    if len(shards) == 1:
        for first, some in _pieces(jobs):
            yield Part(shard=shards[0], operation=f"{operation}:{first}", spread=spread, jobs=some, free=False)
        return
    keyed: dict[int, list[tuple[int, Prepared]]] = {}
    for job in jobs:
        if (key := job[1].key) is not None:
            keyed.setdefault(shard_for(key, spread), []).append(job)
    for number, mine in keyed.items():
        for first, some in _pieces(mine):
            name = f"{operation}:{first}:{spread}"
            yield Part(shard=shards[number], operation=name, spread=spread, jobs=some, free=False)
    for first, some in _pieces([job for job in jobs if job[1].key is None]):
        name = f"{operation}:{first}"
        number = shard_for(f"{_OPERATION}:{name}", max(1, open_of(spec)))
        yield Part(shard=shards[number], operation=name, spread=spread, jobs=some, free=True)


def _pieces(jobs: Sequence[tuple[int, Prepared]]) -> Iterator[tuple[int, tuple[tuple[int, Prepared], ...]]]:
    return ((first, tuple(jobs[first : first + SUBMIT_MAX])) for first in range(0, len(jobs), SUBMIT_MAX))


class Router:
    """Stores parts. One that is refused for where it was led to may be led elsewhere, under another operation."""

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter

    async def store(self, part: Part) -> Sequence[Submitted | HostlerError]:
        """Store a part's jobs; one answer each, in order.

        What refuses jobs without a key says `reroute`, also where it is known that nothing reached the server of their
        shard: nothing was stored, and another operation would lead elsewhere. By itself nothing is led elsewhere:
        whoever repeats the operation has to find what it stored.
        """
        prepared = [job for _, job in part.jobs]
        try:
            found = await self._submitter.submit(part.shard, prepared, part.operation, spread=part.spread)
        except (EngineUnavailableError, EngineTimeoutError) as error:
            if not part.free or "server" not in error.facts or error.facts.get("executed") is not False:
                raise
            return _away(part)
        for answer in found if part.free else ():
            if isinstance(answer, CapacityError):
                answer.facts["reroute"] = True
        return found


def _away(part: Part) -> list[HostlerError]:
    words = f"the server of {part.shard} does not answer: nothing was stored"
    return [EngineUnavailableError(words, executed=False, reroute=True) for _ in part.jobs]


async def all_of(act: Callable[[str], Awaitable[T]], shards: Sequence[str]) -> list[T]:
    """Do something to every shard; one that fails keeps no other from it, and is raised when all have ended."""
    if len(shards) == 1:
        return [await act(shards[0])]
    answers = await asyncio.gather(*(act(shard) for shard in shards), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]

"""Ends of jobs on their way to the broker: none is left behind, whoever else has no answer."""

import asyncio
from collections.abc import Sequence
from typing import cast

from msgspec import Raw

from hostler.contracts.lease import Settled, Settlement, Succeed
from hostler.kernel.errors import EngineUnavailableError
from hostler.policy.sharding import shard_of
from hostler.ports.broker import Broker
from hostler.testing.clock import SeededDice
from hostler.worker.settler import CALLS, Settler, Settlers

TURNS = 50
"""Turns of the event loop within which everything that can go on has gone on."""


class Answering:
    """A broker that answers when it is told to; the shard `away` never does."""

    def __init__(self, away: str | None = None) -> None:
        self.calls: list[tuple[list[str], asyncio.Future[None]]] = []
        self._away = away

    async def settle(self, worker: str, settlements: Sequence[Settlement]) -> tuple[Settled, ...]:
        if any(shard_of(one.job_id) == self._away for one in settlements):
            raise EngineUnavailableError("its server is away", executed=False)
        told = asyncio.get_running_loop().create_future()
        self.calls.append(([one.job_id for one in settlements], told))
        await told
        return tuple(Settled(job_id=one.job_id, accepted=True, state="succeeded", reason="") for one in settlements)


def ending(job: str) -> Settlement:
    return Settlement(job_id=job, fence=1, ending=Succeed(result=Raw(b"1")))


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def test_what_ends_in_the_moment_in_which_all_calls_are_answered_is_sent_too() -> None:
    broker = Answering()
    settler = Settler(cast("Broker", broker), "w", dice=SeededDice())
    first: list[asyncio.Task[Settled | None]] = []
    for number in range(CALLS):
        first.append(asyncio.create_task(settler.settle(ending(f"q.{number}"))))
        await turns()
    assert len(broker.calls) == CALLS
    for _, told in broker.calls:  # one read brings all answers
        told.set_result(None)
    last = asyncio.create_task(settler.settle(ending("q.99")))
    await turns()
    assert all(task.done() for task in first)
    assert broker.calls[-1][0] == ["q.99"]
    broker.calls[-1][1].set_result(None)
    await turns()
    word = last.result()
    assert word is not None
    assert word.accepted


async def test_ends_of_a_shard_that_answers_do_not_wait_for_one_that_does_not() -> None:
    broker = Answering(away="q~1")
    settlers = Settlers(cast("Broker", broker), "w", dice=SeededDice())
    waiting = [asyncio.create_task(settlers.settle(ending(f"q~1.{number}"))) for number in range(CALLS + 1)]
    await turns()
    here = asyncio.create_task(settlers.settle(ending("q.1")))
    await turns()
    broker.calls[0][1].set_result(None)
    await turns()
    assert here.done()
    assert not any(task.done() for task in waiting)
    await settlers.close()
    await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)

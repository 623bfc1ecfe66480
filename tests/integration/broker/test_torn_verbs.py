"""An error at any engine call of any other verb: the same call again works, and a repair finds every job again."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Final

import pytest
from msgspec import Struct

from hostler.broker.desk import EngineDesk
from hostler.broker.desk_audit import Audit
from hostler.broker.engine_tick import configure
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import Progress
from hostler.contracts.lease import Die, LeaseRef, Update
from hostler.contracts.queue import KindSpec, QueueSpec, Retention
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.errors import InternalError
from hostler.registry.kinds import Kinds
from hostler.testing.bench import Bench, Server
from hostler.valkeyio.config import config_hash, pack_config
from hostler.valkeyio.keys import prefix
from hostler.valkeyio.library_text import Build

SECOND: Final = 1_000_000
CALLS: Final = 150


class Torn(Struct, frozen=True):
    """One queue, its desk and its clock."""

    bench: Bench
    desk: EngineDesk
    audit: Audit

    async def at(self, seconds: float) -> None:
        await self.bench.command("SET", prefix(self.bench.queue) + "clock", 10**15 + int(seconds * SECOND))

    async def fail_at(self, call: int) -> None:
        await self.bench.command("FCALL_RO", "hostler1_probe", 0, call)

    async def repaired(self) -> None:
        await self.audit.run(self.bench.queue, repair=True)
        assert await self.audit.run(self.bench.queue, repair=False) == ()

    async def order(self, verb: str, operation: str = "o") -> object:
        return await self.bench.library.call(verb, self.bench.queue, operation=f"{verb}:{operation}", reason="why")

    async def scalar(self, name: str) -> int:
        return (await self.bench.meta()).get(name, 0)

    async def end_all(self) -> list[str]:
        """Let an hour pass, run everything that waits to its end, and return the state of every job."""
        await self.bench.configure()
        await self.order("resume", "end")
        for seconds in (3600, 3604, 3608, 3612):  # after the silence every lease gets one more
            await self.at(seconds)
            await self.bench.tick()
        while leases := await self.bench.claim(10, worker="w9"):
            for lease in leases:
                assert (await self.bench.settle(lease, worker="w9")).accepted
        keys = [key for key in await self.bench.keys() if key.startswith(prefix(self.bench.queue) + "j:")]
        jobs = [f"{self.bench.queue}.{key.rpartition(':')[2]}" for key in keys]
        return sorted([await self.bench.state(job) for job in jobs])


Verb = Callable[[], Awaitable[object]]
Case = Callable[[Torn], Awaitable[tuple[Verb, list[str]]]]
"""Prepares a queue; returns what is torn, and the states that all its jobs must have in the end."""


async def renew(torn: Torn) -> tuple[Verb, list[str]]:
    await torn.bench.one()
    lease = await torn.bench.take()
    await torn.at(1)

    async def act() -> None:
        renewal = await torn.bench.broker.renew("w1", [LeaseRef(job_id=lease.job_id, fence=lease.fence)])
        assert renewal.lost == ()

    return act, ["succeeded"]


async def progress(torn: Torn) -> tuple[Verb, list[str]]:
    await torn.bench.one()
    lease = await torn.bench.take()
    update = Update(job_id=lease.job_id, fence=lease.fence, progress=Progress(fraction=0.5), remote="r1")

    async def act() -> None:
        assert await torn.bench.broker.progress("w1", [update]) == ()

    return act, ["succeeded"]


async def cancel_ready(torn: Torn) -> tuple[Verb, list[str]]:
    job = await torn.bench.one(concurrency_key="k")
    await torn.bench.submit(2, concurrency_key="k")
    return lambda: torn.desk.cancel(job, operation="o"), ["cancelled", "succeeded", "succeeded"]


async def cancel_running(torn: Torn) -> tuple[Verb, list[str]]:
    await torn.bench.submit(2, concurrency_key="k")
    job = (await torn.bench.take()).job_id
    return lambda: torn.desk.cancel(job, operation="o"), ["cancelled", "succeeded"]


async def wake(torn: Torn) -> tuple[Verb, list[str]]:
    job = await torn.bench.one(delay=600.0, tenant="blue")
    return lambda: torn.desk.wake(job, operation="o"), ["succeeded"]


async def dead(torn: Torn) -> str:
    await torn.bench.submit(2, concurrency_key="k")
    lease = await torn.bench.take()
    await torn.bench.settle(lease, Die(failure=Failure(class_=FailureClass.REFUSED, message="no")))
    return lease.job_id


async def replay(torn: Torn) -> tuple[Verb, list[str]]:
    job = await dead(torn)
    return lambda: torn.desk.replay(job, operation="o"), ["succeeded", "succeeded"]


async def purge(torn: Torn) -> tuple[Verb, list[str]]:
    job = await dead(torn)
    return lambda: torn.desk.purge(job, operation="o"), ["succeeded"]


async def tick(torn: Torn) -> tuple[Verb, list[str]]:
    """One job lost, one of its key parked, one due, one expired by its wait, one cancelled too late, one too old."""
    bench = torn.bench
    await bench.configure(cancel_grace=20.0, retention=Retention(terminal=30.0))
    await bench.submit(2, concurrency_key="k")
    old, asked = await bench.submit(2)
    for lease in await bench.claim(3):
        if lease.job_id == old:
            await bench.settle(lease)
        elif lease.job_id == asked:
            await torn.desk.cancel(asked, operation="c")
    await bench.one(delay=5.0)
    await bench.one(timeouts=Timeouts(queue=5.0))

    async def act() -> None:
        await torn.at(41)
        await bench.tick()

    return act, ["cancelled", "expired", "succeeded", "succeeded", "succeeded"]


async def pause(torn: Torn) -> tuple[Verb, list[str]]:
    await torn.bench.one()

    async def act() -> None:
        await torn.order("pause")
        assert await torn.scalar("paused") == 1
        assert await torn.bench.claim() == ()

    return act, ["succeeded"]


async def drain(torn: Torn) -> tuple[Verb, list[str]]:
    await torn.bench.one()

    async def act() -> None:
        await torn.order("drain")
        assert await torn.scalar("draining") == 1

    return act, ["succeeded"]


async def resume(torn: Torn) -> tuple[Verb, list[str]]:
    await torn.bench.one()
    await torn.order("pause")
    await torn.order("drain")
    assert await torn.bench.claim(worker="w5") == ()

    async def act() -> None:
        await torn.order("resume")
        assert (await torn.scalar("paused"), await torn.scalar("draining")) == (0, 0)

    return act, ["succeeded"]


async def declare(torn: Torn) -> tuple[Verb, list[str]]:
    """A kind and, since it has no row, its queue; another process sees both."""
    await torn.bench.one()
    spec = KindSpec(name=f"kind-{torn.bench.queue}", queue=torn.bench.queue)
    here, there = (Kinds(torn.bench.engine, library=torn.bench.library) for _ in range(2))
    await there.read()

    async def act() -> None:
        await here.declare_kind(spec)
        seen = await there.read()
        assert seen.kinds[spec.name] == spec
        assert spec.queue in seen.queues

    return act, ["succeeded"]


async def set_up(torn: Torn) -> tuple[Verb, list[str]]:
    await torn.bench.one()
    spec = QueueSpec(name=torn.bench.queue, head_start=30.0)
    packed = pack_config(spec)

    async def act() -> None:
        await configure(torn.bench.library, spec)
        start = prefix(torn.bench.queue)
        assert await torn.bench.command("GET", start + "cfg") == packed
        assert await torn.bench.command("HGET", start + "meta", "cfg") == config_hash(packed).encode()

    return act, ["succeeded"]


CASES: Final[dict[str, Case]] = {
    "renew": renew,
    "progress": progress,
    "cancel a ready job": cancel_ready,
    "cancel a running job": cancel_running,
    "wake": wake,
    "replay": replay,
    "purge": purge,
    "tick": tick,
    "pause": pause,
    "resume": resume,
    "drain": drain,
    "declare": declare,
    "configure": set_up,
}


@pytest.fixture(scope="module")
def probed() -> Generator[Server]:
    server = Server()
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def queues(probed: Server) -> AsyncGenerator[Callable[[int], Awaitable[Torn]]]:
    """Open the queue whose verb is going to fail at a call."""
    await probed.up()
    found: list[Torn] = []

    async def opened(call: int) -> Torn:
        bench = Bench(probed, f"v{call}", Build(probe=True, clock="key"))
        desk = EngineDesk(bench.engine, library=bench.library)
        found.append(Torn(bench, desk, Audit(bench.engine, bench.library)))
        await bench.library.ensure()
        await found[-1].at(0)
        return found[-1]

    yield opened
    for torn in found:
        await torn.bench.command("FLUSHALL")
        await torn.desk.aclose()
        await torn.bench.aclose()


@pytest.mark.row("000:48", "001:158")
@pytest.mark.parametrize("repair_first", [False, True], ids=["again, then repair", "repair, then again"])
@pytest.mark.parametrize("name", CASES)
async def test_a_verb_that_fails_at_any_call_is_done_by_the_same_call_again(
    queues: Callable[[int], Awaitable[Torn]], name: str, *, repair_first: bool
) -> None:
    second: dict[int, object] = {}
    for call in range(1, CALLS):
        torn = await queues(call)
        act, ends = await CASES[name](torn)
        await torn.fail_at(call)
        failed, first = False, None
        try:
            first = await act()
        except InternalError:
            failed = True
        await torn.fail_at(0)
        if failed and repair_first:
            await torn.repaired()
        if failed:
            second[call] = await act()
        await torn.repaired()
        assert await torn.end_all() == ends, f"{name} torn at {call}"
        offsets = [event.offset for event in await torn.bench.events()]
        assert offsets == list(range(1, len(offsets) + 1)), f"{name} torn at {call}"
        if not failed:
            assert {call: answer for call, answer in second.items() if answer != first} == {}
            return
    raise AssertionError(f"{name} makes more than {CALLS} engine calls")

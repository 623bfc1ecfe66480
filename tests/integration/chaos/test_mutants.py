"""Every seeded defect of broker, worker and live push is caught by the checker, from the history alone.

Each mutant is the real code with one change: of the function library's text, or of what stands before the engine.
The unchanged code under the same run is clean. A mutant that survives fails here.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.contracts.job import JobRequest, Submitted
from hostler.contracts.lease import ClaimRequest, Lease
from hostler.ports.broker import Broker, Desk
from hostler.testing.bench import Server
from hostler.testing.broker import BrokerHarness
from hostler.testing.broker_engine import BUILD, engine_harness
from hostler.valkeyio.client import send
from hostler.valkeyio.library import Library
from hostler.valkeyio.library_text import assemble, read_files

from .workload import Parts, Whole, found, judged

Edit = tuple[str, str, str]
"""A file of the function library, what stands in it once, and what takes its place."""


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    found = Server()
    found.start()
    yield found
    found.kill()


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """The tape joins its thread where the loop runs: it is no part of what is tested."""


def edited(edits: Sequence[Edit]) -> Callable[[Library], Awaitable[None]]:
    """Return what installs our functions with these changes."""

    async def install(library: Library) -> None:
        files = read_files()
        for file, old, new in edits:
            assert files[file].count(old) == 1, f"{file}.lua no longer says {old!r}: the mutant has to follow"
            files[file] = files[file].replace(old, new)
        library._text = assemble(files, BUILD)  # pyright: ignore[reportPrivateUsage] - other functions than ours
        await send(library._engine.client, "FUNCTION", "FLUSH")  # pyright: ignore[reportPrivateUsage] - as above
        await library.ensure()

    return install


class Passing:
    """Passes everything on to the real part."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class LosesAnswers(Passing):
    """Every second submit is done and its answer lost; whoever waits sends it again, under `again(operation)`."""

    def __init__(self, real: Desk, again: Callable[[str], str]) -> None:
        super().__init__(real)
        self._again = again
        self._calls = 0

    async def submit(self, requests: Sequence[JobRequest], *, operation: str) -> tuple[Submitted | Exception, ...]:
        self._calls += 1
        if self._calls % 2 == 0:
            await self._real.submit(requests, operation=operation)
            operation = self._again(operation)
        return await self._real.submit(requests, operation=operation)


class Patient(Whole):
    """Sends again what was not answered, as the same operation."""

    def desk(self, desk: Desk) -> Desk:
        wrapped: Any = LosesAnswers(desk, lambda operation: operation)
        return wrapped


class RetriesBlindly(Whole):
    """Sends again what was not answered, as if it were new."""

    def desk(self, desk: Desk) -> Desk:
        wrapped: Any = LosesAnswers(desk, lambda operation: f"{operation}-again")
        return wrapped


class AckFirst(Passing):
    """Answers before anything is stored, and dies before it stores the last one."""

    def __init__(self, real: Desk) -> None:
        super().__init__(real)
        self._last = 0

    async def submit(self, requests: Sequence[JobRequest], *, operation: str) -> tuple[Submitted | Exception, ...]:
        if requests[0].tenant == "last":
            return (Submitted(id=f"main.{self._last + 1}", created=True),)
        answers = await self._real.submit(requests, operation=operation)
        numbers = [int(one.id.rpartition(".")[2]) for one in answers if isinstance(one, Submitted)]
        self._last = max([self._last, *numbers])
        return answers


class AcksBeforeWrite(Whole):
    def desk(self, desk: Desk) -> Desk:
        wrapped: Any = AckFirst(desk)
        return wrapped


class Looks(Passing):
    """Claims in two calls: one looks, one takes; at first two workers look before either takes."""

    def __init__(self, real: Broker, both: asyncio.Barrier) -> None:
        super().__init__(real)
        self._both = both
        self._met = False

    async def claim(self, request: ClaimRequest, *, operation: str) -> tuple[Lease, ...]:
        await self._real.claim(request, operation=f"look:{operation}")
        if not self._met:
            self._met = True
            await self._both.wait()
        return await self._real.claim(request, operation=f"take:{operation}")


class ClaimsInTwoCalls(Whole):
    def __init__(self) -> None:
        self._both = asyncio.Barrier(2)

    def broker(self, broker: Broker) -> Broker:
        wrapped: Any = Looks(broker, self._both)
        return wrapped


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """One seeded defect."""

    broken: frozenset[str]
    """Invariants that must be found broken."""
    edits: tuple[Edit, ...] = ()
    parts: Callable[[], Parts] = Whole


HELD = "record and record[F.state] == S.running and record[F.fence] == item[2] and record[F.worker] == worker"
GUARD = ("_3_records", "if not MOVES[", "if false and not MOVES[")
TAKES = "local got = claim.grant(q, s.picks, worker, lease > 0 and lease or ctx.config(q)[C.lease])"
LOOKS_FIRST = f"""if string.sub(operation, 1, 5) == 'look:' then
  redis.call('SET', q.p .. 'look:' .. worker, cmsgpack.pack(s.picks), 'EX', 60)
  return {{q.now, born, 0, {{}}, {{}}}}
end
local looked = redis.call('GET', q.p .. 'look:' .. worker)
if looked then
  s.picks = cmsgpack.unpack(looked)
end
{TAKES}"""

MUTANTS: dict[str, Mutant] = {
    "no fence check": Mutant(
        broken=frozenset({"LIN", "S6"}),
        edits=(("settle", HELD, "record and record[F.state] == S.running"),),
    ),
    "complete ignores state": Mutant(
        broken=frozenset({"S3", "LIN"}),
        edits=(("settle", HELD, HELD.replace(" and record[F.state] == S.running", "")), GUARD),
    ),
    "claim in two calls": Mutant(
        broken=frozenset({"S5"}),
        edits=(("claim", TAKES, LOOKS_FIRST), ("_h_claim", "record[F.state] ~= S.ready or ", ""), GUARD),
        parts=ClaimsInTwoCalls,
    ),
    "reaper on local time": Mutant(
        broken=frozenset({"S5", "L4"}),
        edits=(
            ("_f_due", "local seqs = due.take(q, 'leases', most)",
             "local there = {p = q.p, now = q.now + 8000000}\n  local seqs = due.take(there, 'leases', most)"),
        ),
    ),
    "destructive pop": Mutant(
        broken=frozenset({"L1", "L2", "S12"}),
        edits=(("_h_claim", "  write.zadd(q, 'leases', q.now + lease, one.seq)\n", ""),),
    ),
    "retry without operation id": Mutant(broken=frozenset({"S2"}), parts=RetriesBlindly),
    "dead-letter move in two steps": Mutant(
        broken=frozenset({"S12"}),
        edits=(
            ("_e_life", "write.zadd(q, to == S.dead and 'dead' or 'done', q.now, seq)",
             "if to ~= S.dead then write.zadd(q, 'done', q.now, seq) end"),
        ),
    ),
    "dedup window too short": Mutant(
        broken=frozenset({"S9"}),
        edits=(("_g_submit", "cmsgpack.pack({seq, job[14]}), cfg[C.idempotency])",
                "cmsgpack.pack({seq, job[14]}), 5000)"),),
    ),
    "ack before write": Mutant(broken=frozenset({"S1", "S20"}), parts=AcksBeforeWrite),
    "claims go on while paused": Mutant(
        broken=frozenset({"S17"}),
        edits=(("claim", "if q.m.paused == 0 and q.m.draining == 0 then", "if q.m.draining == 0 then"),
               ("claim", "if q.m.paused == 1 or q.m.draining == 1 then", "if q.m.draining == 1 then")),
    ),
    "fences that do not rise": Mutant(
        broken=frozenset({"S6", "LIN"}),
        edits=(("_h_claim", "q.m.life * FENCE_STEP + fence % FENCE_STEP) + 1", "1)"),),
    ),
    "a cancel that is not kept": Mutant(
        broken=frozenset({"S14"}),
        edits=(("_i_settle", "if record[F.cancel] > 0 or ending == E.stopped then", "if false then"),
               ("_i_settle", "elseif ending == E.succeed then", "elseif ending < E.again or ending == E.stopped then")),
    ),
}  # fmt: skip


@pytest.fixture
def harness_of(server: Server) -> Callable[[Sequence[Edit]], AbstractAsyncContextManager[BrokerHarness]]:
    @asynccontextmanager
    async def opened(edits: Sequence[Edit]) -> AsyncGenerator[BrokerHarness]:
        await server.up()
        async with engine_harness(server, install=edited(edits)) as harness:
            yield harness

    return opened


@pytest.mark.parametrize("parts", [Whole, Patient])
async def test_the_real_code_is_clean(harness_of: Any, parts: Callable[[], Parts], tmp_path: Path) -> None:
    async with harness_of(()) as harness:
        report = await judged(harness, tmp_path, parts())
    assert found(report) == {}
    judged_by = {ruling.invariant for ruling in report.rulings if ruling.verdict == "held"}
    assert judged_by >= {f"S{n}" for n in (1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 17, 20)} | {
        "LIN",
        "L1",
        "L2",
    }


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.row("000:48")
async def test_a_mutant_is_caught(name: str, harness_of: Any, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    async with harness_of(mutant.edits) as harness:
        report = await judged(harness, tmp_path, mutant.parts())
    assert mutant.broken <= found(report).keys(), found(report)

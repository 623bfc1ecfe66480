"""The worker registry on a real engine."""

from datetime import UTC, datetime

import msgspec
import pytest

from hostler.contracts.offer import Offer
from hostler.contracts.worker import Worker, WorkerState
from hostler.kernel.errors import InvalidError, NotFoundError, StateConflictError
from hostler.registry.engine import EngineRegistry
from hostler.testing.eventually import eventually
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import owner_of, registry_key
from hostler.valkeyio.library import Library


def worker(id_: str = "w1", state: WorkerState = WorkerState.STARTING, **facts: object) -> Worker:
    now = datetime.now(UTC)
    base = Worker(
        id=id_,
        state=state,
        machine="here",
        pid=7,
        version="1",
        slots=2,
        running=0,
        queues=("default",),
        offers=(Offer(kinds=("draw",)),),
        started_at=now,
        seen_at=now,
        expires_at=now,
        loop_age=0.0,
        settings="abc",
    )
    return msgspec.structs.replace(base, **facts)


@pytest.fixture
def registry(engine: Engine) -> EngineRegistry:
    return EngineRegistry(engine)


async def moves(engine: Engine) -> list[tuple[str, str]]:
    """Return every move of a worker's state in the registry's stream, checking that offsets have no gaps."""
    entries = await engine.command("XRANGE", registry_key("ev"), "-", "+")
    events: list[tuple[str, str]] = []
    offset = 0
    for entry, fields in entries:
        assert int(entry.split(b"-")[0]) == offset + 1
        unpacked = msgspec.msgpack.decode(fields[b"e"])[1]
        offset += len(unpacked)
        events += [(event[5]["from"], event[5]["to"]) for event in unpacked if event[0] == "worker"]
    return events


async def test_each_change_of_state_is_one_event_and_a_heartbeat_is_none(
    engine: Engine, registry: EngineRegistry
) -> None:
    for state in ("starting", "ready", "ready", "busy", "busy", "ready", "draining"):
        await registry.announce(worker(state=WorkerState(state)))
    await registry.withdraw("w1")
    await registry.withdraw("w1")
    assert await moves(engine) == [
        ("", "starting"),
        ("starting", "ready"),
        ("ready", "busy"),
        ("busy", "ready"),
        ("ready", "draining"),
        ("draining", "stopped"),
    ]


async def test_an_illegal_move_is_refused_and_changes_nothing(engine: Engine, registry: EngineRegistry) -> None:
    await registry.announce(worker(state=WorkerState.STARTING))
    await registry.announce(worker(state=WorkerState.DRAINING))
    before = await moves(engine)
    with pytest.raises(StateConflictError) as refused:
        await registry.announce(worker(state=WorkerState.READY, slots=99))
    assert refused.value.facts["state"] == "draining"
    (known,) = await registry.workers()
    assert (known.state, known.slots) == (WorkerState.DRAINING, 2)
    assert await moves(engine) == before


async def test_moves_between_two_heartbeats_are_all_told(engine: Engine, registry: EngineRegistry) -> None:
    await registry.announce(worker(state=WorkerState.STARTING))
    await registry.announce(worker(state=WorkerState.BUSY))
    assert await moves(engine) == [("", "starting"), ("starting", "ready"), ("ready", "busy")]


async def test_another_process_under_the_same_name_is_a_loss_and_a_start(
    engine: Engine, registry: EngineRegistry
) -> None:
    await registry.announce(worker(state=WorkerState.STARTING))
    await registry.announce(worker(state=WorkerState.READY))
    await registry.announce(worker(state=WorkerState.STARTING, pid=8))
    assert (await moves(engine))[-2:] == [("ready", "lost"), ("lost", "starting")]


async def test_a_lapsed_worker_is_lost_once_and_comes_back_through_lost(
    engine: Engine, registry: EngineRegistry
) -> None:
    await registry.announce(worker(state=WorkerState.READY), ttl=0.05)
    await eventually(lambda: _empty(registry))
    (gone,) = await registry.workers(include_gone=True)
    assert gone.state is WorkerState.LOST

    async def lost() -> bool:
        await registry.upkeep()
        return ("ready", "lost") in await moves(engine)

    await eventually(lost)
    await registry.announce(worker(state=WorkerState.BUSY))
    assert await moves(engine) == [("", "ready"), ("ready", "lost"), ("lost", "busy")]


async def test_a_worker_that_comes_back_before_anybody_noticed_was_lost_all_the_same(
    engine: Engine, registry: EngineRegistry
) -> None:
    await registry.announce(worker(state=WorkerState.READY), ttl=0.05)
    await eventually(lambda: _empty(registry))
    await registry.announce(worker(state=WorkerState.READY))
    assert await moves(engine) == [("", "ready"), ("ready", "lost"), ("lost", "ready")]
    assert [one.state for one in await registry.workers()] == [WorkerState.READY]


async def test_times_are_the_engines_not_the_workers(registry: EngineRegistry) -> None:
    wrong = datetime(2001, 1, 1, tzinfo=UTC)
    await registry.announce(worker(seen_at=wrong, expires_at=wrong), ttl=30.0)
    (known,) = await registry.workers()
    assert abs((known.seen_at - datetime.now(UTC)).total_seconds()) < 5
    assert round((known.expires_at - known.seen_at).total_seconds(), 3) == 30.0


async def test_what_was_announced_comes_back_whole(registry: EngineRegistry) -> None:
    offers = (Offer(kinds=("draw",), service="simulation", models=("größer",), labels={"tier": "gold"}),)
    said = worker(offers=offers, jobs=("default.1",), reason="warm", loop_age=0.25)
    await registry.announce(said)
    (known,) = await registry.workers()
    assert known == msgspec.structs.replace(said, seen_at=known.seen_at, expires_at=known.expires_at)


async def test_a_command_is_taken_once_in_order_and_only_by_a_live_worker(registry: EngineRegistry) -> None:
    await registry.announce(worker())
    await registry.command("w1", "pause", reason="lunch")
    await registry.command("w1", "resume")
    assert await registry.commands("w1") == ("pause", "resume")
    assert await registry.commands("w1") == ()
    with pytest.raises(NotFoundError):
        await registry.command("nobody", "pause")
    with pytest.raises(InvalidError):
        await registry.command("w1", "dance")


async def test_commands_leave_with_their_worker_and_have_an_end(engine: Engine, registry: EngineRegistry) -> None:
    await registry.announce(worker())
    await registry.command("w1", "drain")
    assert 0 < await engine.command("PTTL", registry_key("cmd:w1")) <= 60_000
    await registry.withdraw("w1", state="failed")
    assert await registry.commands("w1") == ()


async def test_every_key_of_the_registry_is_in_the_key_table(engine: Engine, registry: EngineRegistry) -> None:
    await registry.announce(worker())
    await registry.command("w1", "drain")
    await registry.announce(worker("w2"))
    await registry.withdraw("w2")
    keys = await engine.command("KEYS", "*")
    assert keys
    assert [key for key in keys if owner_of(key) is None] == []


async def _empty(registry: EngineRegistry) -> bool:
    return await registry.workers() == ()


async def test_a_command_whose_answer_is_lost_on_the_way_is_given_again(
    engine: Engine, registry: EngineRegistry
) -> None:
    await registry.announce(worker())
    await registry.command("w1", "pause")
    lost = await Library(engine).call_registry("commands", worker="w1", after=0)
    assert lost[1::2] == [b"pause"]
    assert await registry.commands("w1") == ("pause",)
    await registry.command("w1", "resume")
    assert await registry.commands("w1") == ("resume",)
    assert await registry.commands("w1") == ()
    assert not await engine.command("EXISTS", registry_key("cmd:w1"))

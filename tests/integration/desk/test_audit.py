"""The audit on a real engine: what an error left behind is found, said and mended, and nothing else is."""

import pytest

from hostler.contracts.lease import Hold
from hostler.kernel.errors import InternalError
from hostler.testing.eventually import eventually
from hostler.testing.front import Front, request
from hostler.valkeyio.keys import prefix

HOME = prefix("images")


async def _busy(front: Front) -> dict[str, str]:
    """Bring jobs into every state, with a concurrency key that parks one; return some of their numbers."""
    await front.hire()
    first, second = await front.submit(), await front.submit(concurrency_key="k")
    leases = await front.claim(2)
    parked = await front.submit(concurrency_key="k")
    held, done = await front.submit(), await front.submit()
    mine = await front.claim(2)
    await front.end(mine[0], Hold(reason="a person"))
    await front.end(mine[1])
    ready, delayed = await front.submit(tenant="blue"), await front.submit(delay=60.0)
    assert {lease.job_id for lease in leases} == {first, second}
    jobs = {"running": first, "parked": parked, "held": held, "done": done, "ready": ready, "delayed": delayed}
    return {name: job_id.partition(".")[2] for name, job_id in jobs.items()}


async def test_a_sound_queue_has_no_differences_in_any_state(front: Front) -> None:
    await _busy(front)
    await front.answers(*(request(tenant=f"t{n}") for n in range(100)))
    assert await front.foreman.audit("images") == ()


@pytest.mark.row("000:48")
@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (("ZREM", HOME + "leases", "{running}"), "leases"),
        (("ZADD", HOME + "leases", "1", "{ready}"), "leases"),
        (("ZREM", HOME + "delayed", "{delayed}"), "delayed"),
        (("ZREM", HOME + "waiting", "{held}"), "waiting"),
        (("ZREM", HOME + "done", "{done}"), "done"),
        (("ZADD", HOME + "dead", "1", "{done}"), "dead"),
        (("ZADD", HOME + "expiry", "1", "100000099999"), "expiry"),
        (("ZREM", HOME + "r:1:blue", "{ready}"), "r:1:blue"),
        (("ZADD", HOME + "r:1:blue", "1", "{done}"), "r:1:blue"),
        (("ZREM", HOME + "tl:blue", "1"), "r:1:blue"),
        (("ZREM", HOME + "TN", "blue"), "r:1:blue"),
        (("ZADD", HOME + "tl:green", "5", "1"), "r:1:green"),
        (("ZREM", HOME + "kw:1:k", "{parked}"), "kw:1:k"),
        (("SET", HOME + "a:100000099999", "x"), "100000099999"),
        (("HINCRBY", HOME + "meta", "n_ready", "3"), "n_ready"),
        (("HINCRBY", HOME + "meta", "bytes", "3"), "bytes"),
        (("HSET", HOME + "td", "blue", "9"), "td blue"),
        (("HDEL", HOME + "lc", "1"), "lc 1"),
        (("HSET", HOME + "use", "w9|slots", "1000"), "use w9|slots"),
        (("HSET", HOME + "k:k", "r", "2"), "k:k r"),
    ],
)
async def test_each_damage_is_said_in_one_place_mended_when_asked_and_then_gone(
    front: Front, damage: tuple[str, ...], word: str
) -> None:
    numbers = await _busy(front)
    await front.engine.command(
        *(part.format(**numbers) if part[0] == "{" and part != HOME else part for part in damage)
    )
    found = await front.foreman.audit("images")
    assert found
    assert all(word in sentence for sentence in found), found
    assert await front.foreman.audit("images") == found
    await front.foreman.audit("images", repair=True)
    assert await front.foreman.audit("images") == ()


async def test_a_mended_line_is_served_again(front: Front) -> None:
    job_id = await front.submit(tenant="blue")
    for key in ("r:1:blue", "tl:blue", "TN", "lt:1"):
        await front.engine.command("DEL", HOME + key)
    assert await front.claim() == ()
    await front.foreman.audit("images", repair=True)
    assert [lease.job_id for lease in await front.claim()] == [job_id]


async def test_a_delayed_job_that_was_put_back_in_its_place_becomes_ready_in_time(front: Front) -> None:
    await front.hire()
    job_id = await front.submit(delay=0.3)
    await front.engine.command("ZREM", HOME + "delayed", job_id.partition(".")[2])
    await front.engine.command("HSET", HOME + "meta", "due", 0)
    await front.foreman.audit("images", repair=True)

    async def claimed() -> bool:
        return bool(await front.claim())

    await eventually(claimed)


async def test_a_parked_job_whose_key_was_miscounted_takes_its_place_when_that_is_mended(front: Front) -> None:
    await front.hire()
    first, parked = await front.submit(concurrency_key="k"), await front.submit(concurrency_key="k")
    (lease,) = await front.claim()
    await front.engine.command("HSET", HOME + "k:k", "r", 2)
    await front.end(lease)
    assert lease.job_id == first
    assert await front.claim() == ()
    await front.foreman.audit("images", repair=True)
    assert [lease.job_id for lease in await front.claim()] == [parked]


async def test_a_stream_that_is_ahead_of_its_counter_costs_one_refusal_and_no_gap(front: Front) -> None:
    await front.submit()
    await front.engine.command("HSET", HOME + "meta", "off", 0)
    with pytest.raises(InternalError):
        await front.submit()
    await front.submit()
    page = await front.desk.events("images", after=0)
    assert [event.offset for event in page.events] == [1, 2]
    assert not page.gap
    await front.engine.command("HSET", HOME + "meta", "off", 1)
    assert "off is 1, counted 2" in await front.foreman.audit("images", repair=True)
    await front.submit()

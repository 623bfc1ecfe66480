"""The engine forgets a picture by itself, whatever becomes of whoever sent it."""

from collections.abc import AsyncGenerator

import pytest

from hostler.broker.desk import EngineDesk
from hostler.contracts.lease import Update
from hostler.contracts.preview import PREVIEW_LIFE, preview_of
from hostler.kernel.errors import NotFoundError
from hostler.testing.bench import Bench, Server
from hostler.valkeyio.keys import prefix

PICTURE = b"\xff\xd8\xff some light"


@pytest.fixture
async def bench(server: Server, request: pytest.FixtureRequest) -> AsyncGenerator[Bench]:
    await server.up()
    found = Bench(server, f"p{abs(hash(request.node.name))}")
    await found.library.ensure()
    yield found
    await found.aclose()


async def test_a_picture_has_an_end_of_its_own_which_the_next_one_moves(bench: Bench) -> None:
    await bench.submit(1)
    lease = await bench.take()
    key = prefix(bench.queue) + "pv:" + lease.job_id.rpartition(".")[2]
    update = Update(job_id=lease.job_id, fence=lease.fence, preview=preview_of(PICTURE))
    await bench.broker.progress("w1", [update])
    assert 0 < await bench.command("PTTL", key) <= PREVIEW_LIFE * 1000
    await bench.command("PEXPIRE", key, 5_000)
    await bench.broker.progress("w1", [update])
    assert await bench.command("PTTL", key) > 5_000
    desk = EngineDesk(bench.engine, library=bench.library)
    assert await desk.preview(lease.job_id) == preview_of(PICTURE)
    await bench.command("PEXPIRE", key, 0)
    with pytest.raises(NotFoundError):
        await desk.preview(lease.job_id)


async def test_no_picture_is_in_the_stream_of_events(bench: Bench) -> None:
    await bench.submit(1)
    lease = await bench.take()
    before = await bench.command("XLEN", prefix(bench.queue) + "ev")
    await bench.broker.progress("w1", [Update(job_id=lease.job_id, fence=lease.fence, preview=preview_of(PICTURE))])
    assert await bench.command("XLEN", prefix(bench.queue) + "ev") == before
    await bench.settle(lease)
    assert not [name for name in await bench.keys() if ":pv:" in name]

"""After a restore no fence, job number or offset is given again, and what is left of the lost time is refused."""

import asyncio
import time
from functools import partial
from pathlib import Path

import pytest

from hostler.contracts.fence import attempt_of
from hostler.contracts.job import JobState
from hostler.contracts.lease import Again, LeaseRef
from hostler.kernel.errors import NotFoundError
from hostler.kernel.settings import EngineSettings
from hostler.testing.eventually import eventually
from hostler.valkeyio.backup import backup, restore
from hostler.valkeyio.keys import owner_of

from .house import LATER, house


async def test_what_was_claimed_after_the_copy_is_refused_after_its_restore_and_nothing_is_numbered_twice(
    data_folder: Path, tmp_path: Path
) -> None:
    async with house(EngineSettings(data=str(data_folder))) as before:
        job = await before.submit()
        first = await before.claim()
        await before.settle(first, Again(failure=None))
        await backup(before.engine, tmp_path / "backup.tar")
        stale = await before.claim()
        lost = await before.submit()
        lost_lease = await before.claim()
        await before.foreman.declare_kind(LATER)
        unheard_of = await before.submit(LATER)
        unheard_of_lease = await before.claim(LATER)
        epochs = [await before.epoch(), await before.epoch("later")]
        known = time.time()
    restored = data_folder.parent / "restored"
    await eventually(lambda: int(time.time()) > int(known), within=5.0)  # lives are told apart by the second
    await asyncio.to_thread(restore, tmp_path / "backup.tar", restored)
    async with house(EngineSettings(data=str(restored))) as after:
        assert (await after.desk.get(job)).state is JobState.READY
        for known_only_before in (lost, unheard_of):
            with pytest.raises(NotFoundError):
                await after.desk.get(known_only_before)
        lease = await after.claim()
        assert lease.job_id == stale.job_id == job
        assert lease.fence > stale.fence
        assert [one.number for one in lease.history] == [1]
        for old in (first, stale, lost_lease, unheard_of_lease):
            assert not (await after.settle(old)).accepted
        refs = [LeaseRef(job_id=job, fence=stale.fence), LeaseRef(job_id=job, fence=lease.fence)]
        assert (await after.broker.renew("w1", refs)).lost == (refs[0],)
        shown = await after.desk.get(job)
        assert (shown.state, shown.attempt) == (JobState.RUNNING, 2)
        assert [event.attempt for event in (await after.desk.timeline(job)).events if event.type == "claim"] == [1, 2]
        assert "w1 runs it, attempt 2" in (await after.desk.explain(job)).reasons
        assert (await after.settle(lease)).accepted
        await after.foreman.declare_kind(LATER)
        fresh, also_fresh = await after.submit(), await after.submit(LATER)
        assert {fresh, also_fresh}.isdisjoint({lost, unheard_of})
        assert (await after.claim(LATER)).fence > unheard_of_lease.fence
        assert not (await after.settle(unheard_of_lease)).accepted
        assert {await after.epoch(), await after.epoch("later")}.isdisjoint(epochs)
        assert [key for key in await after.engine.command("KEYS", "h:*") if owner_of(key) is None] == []
        assert await after.foreman.audit("main") == ()


def later(than: float) -> bool:
    return int(time.time()) > than


async def test_two_restores_of_one_copy_give_different_fences_numbers_and_epochs(
    data_folder: Path, tmp_path: Path
) -> None:
    async with house(EngineSettings(data=str(data_folder))) as before:
        await before.submit()
        await backup(before.engine, tmp_path / "backup.tar")
    seen: list[tuple[int, str, int]] = []
    for name in ("once", "twice"):
        await asyncio.to_thread(restore, tmp_path / "backup.tar", data_folder.parent / name)
        await eventually(partial(later, time.time()))  # each is used first in a second of its own
        async with house(EngineSettings(data=str(data_folder.parent / name))) as after:
            seen.append(((await after.claim()).fence, await after.submit(), await after.epoch()))
    (fence, number, epoch), again = seen
    assert fence < again[0]
    assert number != again[1]
    assert epoch < again[2]
    assert attempt_of(fence) == attempt_of(again[0]) == 1

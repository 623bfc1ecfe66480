"""Promise of a broker: the latest picture of running work is shown, and nothing of it is kept."""

from typing import Final

import pytest

from hostler.contracts.job import Progress
from hostler.contracts.lease import Die, Ending, Hold, Succeed, Update
from hostler.contracts.preview import PREVIEW_LIMIT, preview_of
from hostler.kernel.errors import NotFoundError
from hostler.testing.broker_house import TRANSIENT, House, ref

PICTURES: Final = (b"\x89PNG\r\n\x1a\n one", b"\xff\xd8\xff" + bytes(range(256)) * ((PREVIEW_LIMIT - 3) // 256))
"""A small one, and one about as large as may be, of every byte."""


class PreviewPromises:
    """A preview is its attempt's: the latest wins, it ends with the attempt, and events say only its number."""

    async def test_the_latest_preview_is_shown_while_the_attempt_runs_and_by_its_number_in_events(
        self, house: House
    ) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        with pytest.raises(NotFoundError):
            await house.desk.preview(job_id)
        for number, picture in enumerate(PICTURES, 1):
            update = Update(
                job_id=job_id, fence=lease.fence, progress=Progress(preview=number), preview=preview_of(picture)
            )
            assert await house.broker.progress("w1", [update]) == ()
        await house.broker.progress("w1", [Update(job_id=job_id, fence=lease.fence, progress=Progress(fraction=0.5))])
        assert await house.desk.preview(job_id) == preview_of(PICTURES[-1])
        told = [event.data for event in (await house.desk.timeline(job_id)).events if event.type == "progress"]
        assert told == [{"preview": 1}, {"preview": 2}, {"fraction": 0.5}]
        await house.fail(lease)
        await house.claim_one(job_id)
        with pytest.raises(NotFoundError):
            await house.desk.preview(job_id)

    @pytest.mark.parametrize("ending", [Succeed(), Hold(reason="a person"), Die(failure=TRANSIENT)])
    async def test_no_preview_outlives_the_attempt_that_it_shows(self, house: House, ending: Ending) -> None:
        job_id = await house.submit()
        lease = await house.claim_one(job_id)
        await house.broker.progress("w1", [Update(job_id=job_id, fence=lease.fence, preview=preview_of(PICTURES[0]))])
        await house.desk.preview(job_id)
        await house.end(lease, ending)
        with pytest.raises(NotFoundError):
            await house.desk.preview(job_id)

    async def test_the_preview_of_a_lease_that_was_lost_is_gone_and_no_late_one_is_stored(self, house: House) -> None:
        job_id = await house.submit()
        late = await house.claim_one(job_id)
        update = Update(job_id=job_id, fence=late.fence, preview=preview_of(PICTURES[0]))
        await house.broker.progress("w1", [update])
        await house.pass_time(11.0)
        await house.claim_one(job_id, worker="w2")
        assert await house.broker.progress("w1", [update]) == (ref(late),)
        with pytest.raises(NotFoundError):
            await house.desk.preview(job_id)

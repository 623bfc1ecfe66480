"""The picture of a running job over HTTP, from programs and from the command line."""

import asyncio
import sys
from pathlib import Path

import pytest

import hostler
from hostler.contracts.job import Progress
from hostler.contracts.lease import Update
from hostler.contracts.preview import preview_of
from hostler.kernel.errors import NotFoundError

from .conftest import House

PICTURE = b"\xff\xd8\xff some light"


async def test_a_picture_is_served_as_what_it_is_and_never_kept_by_anybody(house: House) -> None:
    job = await house.submit()
    lease = await house.claim()
    none = await house.ask("GET", f"/v1/jobs/{job}/preview")
    assert (none.status, none.json["code"]) == (404, "not-found")
    assert none.headers["content-type"] == "application/problem+json"
    update = Update(job_id=job, fence=lease.fence, progress=Progress(preview=1), preview=preview_of(PICTURE))
    await house.broker.progress(house.worker_id, [update])
    found = await house.ask("GET", f"/v1/jobs/{job}/preview")
    assert (found.status, found.body) == (200, PICTURE)
    assert found.headers["content-type"] == "image/jpeg"
    assert found.headers["cache-control"] == "no-store"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert (await house.ask("GET", f"/v1/jobs/{job}")).json["progress"]["preview"] == 1
    await house.finish(lease)
    assert (await house.ask("GET", f"/v1/jobs/{job}/preview")).status == 404
    assert (await house.ask("GET", "/v1/jobs/default.99999999999999/preview")).status == 404


async def test_programs_and_the_command_line_get_the_picture(house: House, tmp_path: Path) -> None:
    job = await house.submit()
    lease = await house.claim()
    await house.broker.progress(house.worker_id, [Update(job_id=job, fence=lease.fence, preview=preview_of(PICTURE))])
    async with hostler.connect(house.url) as fleet:
        assert await fleet.preview(job) == preview_of(PICTURE)
    assert await asyncio.to_thread(_plainly, house.url, job) == PICTURE
    target = tmp_path / "look.jpg"
    words = ("-m", "hostler", "jobs", "preview", job, "--out", str(target), "--url", house.url)
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert b"image/jpeg" in said
    assert target.read_bytes() == PICTURE
    await house.finish(lease)
    async with hostler.connect(house.url) as fleet:
        with pytest.raises(NotFoundError):
            await fleet.preview(job)


def _plainly(url: str, job: str) -> bytes:
    with hostler.connect_sync(url) as fleet:
        return fleet.preview(job).data

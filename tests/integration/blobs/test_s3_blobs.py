"""The S3 store against its promises, on a real moto server process."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from hostler.blobs import open_blobs
from hostler.kernel.errors import ServiceUnavailableError
from hostler.ports.blobs import Blobs
from hostler.testing.blobs import BlobsConformance
from hostler.testing.eventually import eventually


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Stand in for the guard: the S3 library reads its own model files when a client is made."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture
async def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)

    async def made() -> bool:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.put(f"{s3_endpoint}/blobs") as answer:
                    return answer.status in {200, 409}
            except aiohttp.ClientConnectionError:
                return False

    await eventually(made, within=30, every=0.1)
    return f"s3://blobs/{time.monotonic_ns()}?endpoint={s3_endpoint}"


class TestS3(BlobsConformance):
    @pytest.fixture
    async def blobs(self, bucket: str, tmp_path: Path) -> AsyncIterator[Blobs]:
        async with open_blobs(bucket, tmp_path) as blobs:
            yield blobs


async def test_a_bucket_that_is_not_there_is_refused_at_the_start(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailableError):
        async with open_blobs(bucket.replace("s3://blobs", "s3://elsewhere"), tmp_path):
            pass

"""The guard that all tests run under: a test that blocks the event loop fails, whatever it asserts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[2]
_GUARDED = """
import os
import redis
import redis.asyncio

CLIENT = redis.Redis(unix_socket_path=os.environ["SOCKET"])

async def test_that_pings_with_the_synchronous_client_in_a_coroutine():
    assert CLIENT.ping()

async def test_that_pings_with_the_asynchronous_client():
    client = redis.asyncio.Redis(unix_socket_path=os.environ["SOCKET"])
    assert await client.ping()
    await client.aclose()

def test_that_pings_with_the_synchronous_client_where_no_loop_runs():
    assert CLIENT.ping()
    CLIENT.close()
"""


@pytest.mark.row("002:28")
def test_a_test_that_pings_synchronously_in_a_coroutine_fails_and_no_other(engine_socket: Path, tmp_path: Path) -> None:
    (tmp_path / "test_guarded.py").write_text(_GUARDED)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-rA", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(_TESTS), "SOCKET": str(engine_socket)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout
    assert "BlockingError: Blocking call to socket.socket" in ran.stdout
    assert "FAILED test_guarded.py::test_that_pings_with_the_synchronous_client_in_a_coroutine" in ran.stdout
    assert "PASSED test_guarded.py::test_that_pings_with_the_asynchronous_client" in ran.stdout
    assert "PASSED test_guarded.py::test_that_pings_with_the_synchronous_client_where_no_loop_runs" in ran.stdout

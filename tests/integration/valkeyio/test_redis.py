"""Redis 7.0 by URL: over TCP and TLS, with passwords and users, judged like any other engine."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from msgspec import Struct

from hostler.kernel.errors import (
    EngineDeniedError,
    EngineUnavailableError,
    EngineUnsafeError,
    EngineVersionError,
    SettingsError,
)
from hostler.kernel.settings import EngineSettings
from hostler.testing.eventually import eventually
from hostler.testing.programs import redis_program
from hostler.valkeyio.engine import Engine

from .conftest import SAFE
from .house import house


class Redis(Struct, frozen=True, kw_only=True):
    """A server of Redis that a test started."""

    port: int
    tls_port: int
    files: Path
    """Where `ca.pem`, `other.pem`, `cert.pem` and `key.pem` are."""

    @property
    def plain(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def tls(self, *, login: str = "", host: str = "localhost", ca: str = "ca.pem", more: str = "") -> str:
        return f"rediss://{login}{host}:{self.tls_port}?ssl_ca_certs={self.files / ca}{more}"

    @property
    def ours(self) -> str:
        """Return what shows our own certificate to the server."""
        return f"&ssl_certfile={self.files / 'cert.pem'}&ssl_keyfile={self.files / 'key.pem'}"


StartRedis = Callable[[dict[str, str]], Awaitable[Redis]]


@pytest.fixture
async def start_redis(tmp_path: Path) -> AsyncGenerator[StartRedis]:
    """Starts one server with safe settings and those given on top, on a plain and on a TLS port."""
    program = redis_program()
    if program is None:
        pytest.skip("needs the program redis-server: apt-get install redis-tools")
    started: list[subprocess.Popen[bytes]] = []

    def launch(options: dict[str, str]) -> Redis:
        redis = Redis(port=_free_port(), tls_port=_free_port(), files=tmp_path)
        tls = {"tls-port": str(redis.tls_port), "tls-auth-clients": "no"}
        tls |= {"tls-cert-file": "cert.pem", "tls-key-file": "key.pem", "tls-ca-cert-file": "ca.pem"}
        settings = SAFE | tls | {"port": str(redis.port), "bind": "127.0.0.1", "dir": str(tmp_path)} | options
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        process = subprocess.Popen(
            ["redis-server", *words], executable=program, cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        started.append(process)
        return redis

    async def start(options: dict[str, str]) -> Redis:
        await asyncio.to_thread(_certify, tmp_path)
        for _ in range(5):  # another program may take a free port before the server does
            redis = await asyncio.to_thread(launch, options)
            if await _listens(redis.port, started[-1]):
                return redis
        raise AssertionError("the server found no free port")

    yield start
    for process in started:
        process.kill()
        process.wait()


def _certify(folder: Path) -> None:
    ours, other = trustme.CA(), trustme.CA()
    server = ours.issue_cert("localhost")
    ours.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other.pem"))
    server.private_key_pem.write_to_path(str(folder / "key.pem"))
    server.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))


def _free_port() -> int:
    """Return a free port whose 10,000th successor is one too: a node of a cluster listens there as well."""
    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = int(found.getsockname()[1])
        if port <= 65_535 - 10_000:
            return port


async def _listens(port: int, process: "subprocess.Popen[bytes]") -> bool:
    listens = False

    async def decided() -> bool:
        nonlocal listens
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return process.poll() is not None
        writer.close()
        await writer.wait_closed()
        listens = True
        return True

    await eventually(decided, within=10)
    return listens


async def refusal(url: str, *, wait: float = 0.5) -> Exception:
    """Return what opening `url` raises; `AssertionError` when it opens."""
    try:
        async with Engine.open(EngineSettings(url=url, wait=wait), role="test"):
            raise AssertionError("it was opened")
    except (EngineDeniedError, EngineUnavailableError, SettingsError) as error:
        return error


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_redis_seven_by_url_runs_jobs(start_redis: StartRedis, scheme: str) -> None:
    redis = await start_redis({})
    url = redis.plain if scheme == "redis" else redis.tls()
    async with house(EngineSettings(url=url)) as opened:
        assert opened.engine.version.startswith("redis 7.")
        assert opened.engine.degraded == ()
        assert opened.engine.url.startswith(f"{scheme}://")
        job = await opened.submit()
        lease = await opened.claim()
        assert lease.job_id == job
        assert (await opened.settle(lease)).accepted
        assert str((await opened.desk.get(job)).state) == "succeeded"


async def test_a_password_is_asked_for_checked_and_never_shown(start_redis: StartRedis) -> None:
    redis = await start_redis({"requirepass": "s3cret"})
    async with Engine.open(EngineSettings(url=redis.tls(login=":s3cret@")), role="test") as engine:
        assert await engine.command("PING")
        assert "s3cret" not in engine.url
    none, wrong = await refusal(redis.plain), await refusal(redis.tls(login=":wr0ng@"))
    assert isinstance(none, EngineDeniedError)
    assert "wants a password" in str(none)
    assert isinstance(wrong, EngineDeniedError)
    assert "does not accept this user and password" in str(wrong)
    assert "wr0ng" not in str(wrong)


async def test_a_user_of_its_own_runs_jobs_with_hostlers_keys_and_no_dangerous_command(start_redis: StartRedis) -> None:
    redis = await start_redis({})
    rights = ("~h:*", "&h:*", "+@all", "-@dangerous", "-@admin", "+info", "+config|get", "+function|load")
    async with Engine.open(EngineSettings(url=redis.plain), role="admin") as admin:
        await admin.command("ACL SETUSER", "app", "on", ">s3cret", *rights)
    async with house(EngineSettings(url=redis.tls(login="app:s3cret@"))) as opened:
        assert opened.engine.degraded == ()
        await opened.submit()
        assert (await opened.settle(await opened.claim())).accepted
        for forbidden in (("FLUSHALL",), ("CONFIG SET", "appendonly", "no"), ("GET", "somebody's")):
            with pytest.raises(EngineDeniedError):
                await opened.engine.command(*forbidden)


async def test_a_user_that_may_not_read_the_settings_is_told_what_to_grant(start_redis: StartRedis) -> None:
    redis = await start_redis({})
    async with Engine.open(EngineSettings(url=redis.plain), role="admin") as admin:
        await admin.command("ACL SETUSER", "app", "on", ">s3cret", "~*", "+@all", "-config")
    with pytest.raises(EngineUnsafeError, match=r"\+config\|get"):
        async with Engine.open(EngineSettings(url=redis.tls(login="app:s3cret@")), role="test"):
            pass


@pytest.mark.parametrize(
    ("ca", "host", "why"),
    [("other.pem", "localhost", "self-signed certificate in certificate chain"), ("ca.pem", "127.0.0.1", "127.0.0.1")],
)
async def test_a_certificate_that_is_not_trusted_is_refused_at_once_with_what_to_do(
    start_redis: StartRedis, ca: str, host: str, why: str
) -> None:
    redis = await start_redis({})
    async with asyncio.timeout(10):
        error = await refusal(redis.tls(ca=ca, host=host, login=":s3cret@"), wait=60)
    assert isinstance(error, EngineDeniedError)
    assert "certificate is not trusted" in str(error)
    assert why in str(error)
    assert "ssl_ca_certs" in str(error)
    assert "s3cret" not in str(error)


async def test_a_server_that_wants_our_certificate_gets_it(start_redis: StartRedis) -> None:
    redis = await start_redis({"tls-auth-clients": "yes"})
    async with Engine.open(EngineSettings(url=redis.tls(more=redis.ours)), role="test") as engine:
        assert await engine.command("PING")
    assert isinstance(await refusal(redis.tls()), EngineUnavailableError)


@pytest.mark.parametrize("ca", ["absent.pem", "key.pem"])
async def test_a_file_of_authorities_that_cannot_be_used_is_a_wrong_setting(start_redis: StartRedis, ca: str) -> None:
    redis = await start_redis({})
    error = await refusal(redis.tls(ca=ca))
    assert isinstance(error, SettingsError)
    assert "ssl_ca_certs" in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maxmemory-policy", "allkeys-lru"),
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("auto-aof-rewrite-percentage", "0"),
    ],
)
async def test_an_unsafe_redis_is_refused_by_name_and_degraded_when_insisted(
    start_redis: StartRedis, name: str, value: str
) -> None:
    redis = await start_redis({name: value})
    with pytest.raises(EngineUnsafeError, match=f"CONFIG SET {name}"):
        async with Engine.open(EngineSettings(url=redis.tls()), role="test"):
            pass
    async with Engine.open(EngineSettings(url=redis.tls(), allow_degraded=True), role="test") as engine:
        assert len(engine.degraded) == 1
        assert name in engine.degraded[0]


@pytest.mark.parametrize(
    ("name", "value", "why"), [("replicaof", "127.0.0.1 1", "read-only replica"), ("cluster-enabled", "yes", "cluster")]
)
async def test_a_replica_and_a_node_of_a_cluster_are_refused(
    start_redis: StartRedis, name: str, value: str, why: str
) -> None:
    redis = await start_redis({name: value})
    with pytest.raises(EngineVersionError, match=why):
        async with Engine.open(EngineSettings(url=redis.plain, allow_degraded=True), role="test"):
            pass

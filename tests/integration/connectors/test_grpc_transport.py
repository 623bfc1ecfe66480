"""The gRPC transport against real servers: deadlines, cancels, limits, credentials, certificates, foreign answers."""

import ast
import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
import trustme

import hostler.connectors
from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.transports.conversation import Limits
from hostler.connectors.transports.grpc import GrpcTransport, parse_target
from hostler.connectors.transports.protobuf import Method
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.kernel.errors import InvalidError
from hostler.testing.connectors_house import open_files
from hostler.testing.eventually import eventually

C = FailureClass
Context = grpc.aio.ServicerContext[bytes, bytes]
SECRET = "sk-very-secret-0123456789"


def method(name: str) -> Method[Any]:
    def encode(values: Mapping[str, Any]) -> bytes:
        return json.dumps(dict(values)).encode()

    return Method(path=f"/test.Peer/{name}", encode=encode, decode=json.loads)


class Peer:
    """Does what the request says, and keeps what it saw of each call."""

    def __init__(self) -> None:
        self.url = ""
        self.deadlines: list[float | None] = []
        self.metadata: list[dict[str, Any]] = []
        self.present = 0
        self.cancelled = 0

    @asynccontextmanager
    async def served(self, tls: grpc.ServerCredentials | None = None, *, port: int = 0) -> AsyncGenerator["Peer"]:
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        handlers: dict[str, Any] = {
            "Once": grpc.unary_unary_rpc_method_handler(self._once),
            "Stream": grpc.unary_stream_rpc_method_handler(self._stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Peer", handlers),))
        address = f"127.0.0.1:{port}"
        found = server.add_secure_port(address, tls) if tls else server.add_insecure_port(address)
        await server.start()
        self.url = f"{'grpcs' if tls else 'grpc'}://127.0.0.1:{found}"
        try:
            yield self
        finally:
            await server.stop(None)

    async def _once(self, request: bytes, context: Context) -> bytes:
        async with self._seen(context):
            asked = json.loads(request)
            if asked.get("hang"):
                await asyncio.Event().wait()
            if "status" in asked:
                await context.abort(grpc.StatusCode[asked["status"]], asked.get("message", ""))
            shown = dict(context.invocation_metadata() or ()).get("authorization", "")
            return json.dumps({"text": "x" * asked.get("size", 0), "shown": shown}).encode()

    async def _stream(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        async with self._seen(context):
            asked = json.loads(request)
            if not asked.get("late"):
                await context.send_initial_metadata(())
            for number in range(asked.get("count", 0)):
                yield json.dumps({"number": number, "text": "x" * asked.get("size", 0)}).encode()
            if asked.get("hang") or asked.get("late"):
                await asyncio.Event().wait()

    @asynccontextmanager
    async def _seen(self, context: Context) -> AsyncGenerator[None]:
        self.deadlines.append(context.time_remaining())
        self.metadata.append({str(name): value for name, value in context.invocation_metadata() or ()})
        self.present += 1
        ended = asyncio.Event()

        def over(_: Context) -> None:  # a stream may be between two messages, where its handler hears of no cancel
            self.cancelled += not ended.is_set()

        context.add_done_callback(cast("Any", over))  # its type stubs take no function
        try:
            yield
            ended.set()
        finally:
            self.present -= 1


@pytest.fixture
async def peer() -> AsyncGenerator[Peer]:
    async with Peer().served() as peer:
        yield peer


async def once(url: str, values: dict[str, Any], *, within: float = 5.0, **more: Any) -> Any:
    async with GrpcTransport(url, **more) as transport:
        return await transport.call(method("Once"), values, within=within, stage=Stage.FIRST_BYTE)


async def failure_of(url: str, values: dict[str, Any], **more: Any) -> Failure:
    with pytest.raises(ServiceFaultError) as caught:
        await once(url, values, **more)
    return caught.value.failure


@asynccontextmanager
async def streaming(
    transport: GrpcTransport, values: dict[str, Any], *, within: float = 5.0, **limits: Any
) -> AsyncGenerator[AsyncGenerator[Any]]:
    async with (
        transport.stream(method("Stream"), values, within=within, limits=Limits(**limits)) as stream,
        aclosing(stream.messages()) as messages,
    ):
        yield messages


@pytest.mark.row("001:200", "002:231")
async def test_the_server_is_told_the_deadline_of_every_call(peer: Peer) -> None:
    async with GrpcTransport(peer.url) as transport:
        await transport.call(method("Once"), {}, within=7.0)
        async with streaming(transport, {"count": 1}, within=70.0) as messages:
            assert [message["number"] async for message in messages] == [0]
    assert [round(left or 0) for left in peer.deadlines] == [7, 70]


@pytest.mark.row("001:200", "002:231")
async def test_a_deadline_ends_the_call_here_and_in_the_server(peer: Peer) -> None:
    failure = await failure_of(peer.url, {"hang": True}, within=0.2)
    assert (failure.class_, failure.stage) == (C.TIMEOUT, Stage.FIRST_BYTE)
    await eventually(lambda: peer.cancelled == 1)
    async with GrpcTransport(peer.url) as transport, streaming(transport, {"hang": True}, within=0.2) as messages:
        with pytest.raises(ServiceFaultError) as caught:
            await anext(messages)
    assert (caught.value.failure.class_, caught.value.failure.stage) == (C.TIMEOUT, Stage.RUN)
    await eventually(lambda: peer.cancelled == 2)


async def test_no_time_left_is_a_timeout_and_asks_nobody(peer: Peer) -> None:
    assert (await failure_of(peer.url, {}, within=0.0)).class_ is C.TIMEOUT
    assert peer.deadlines == []


@pytest.mark.row("001:200")
async def test_a_call_that_is_given_up_is_cancelled_in_the_server(peer: Peer) -> None:
    async with GrpcTransport(peer.url) as transport:
        asking = asyncio.create_task(transport.call(method("Once"), {"hang": True}, within=60.0))
        await eventually(lambda: peer.present == 1)
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()
        await eventually(lambda: peer.cancelled == 1)
        async with transport.stream(method("Stream"), {"count": 2, "hang": True}, within=60.0) as stream:
            messages = stream.messages()
            await anext(messages)
            assert peer.present == 1
        await eventually(lambda: peer.cancelled == 2)  # while whoever read it still holds it
        await messages.aclose()


async def test_a_call_under_which_the_transport_closes_is_a_failure_and_no_cancelled_task(peer: Peer) -> None:
    async with GrpcTransport(peer.url) as transport:
        asking = asyncio.create_task(transport.call(method("Once"), {"hang": True}, within=60.0))
        await eventually(lambda: peer.present == 1)
    with pytest.raises(ServiceFaultError) as caught:
        await asking
    assert caught.value.failure.class_ is C.TRANSIENT


async def test_a_head_that_does_not_come_and_silence_have_stages_of_their_own(peer: Peer) -> None:
    async with GrpcTransport(peer.url) as transport:
        for values, limits, stage in (
            ({"late": True}, {"opening": 0.2}, Stage.FIRST_BYTE),
            ({"count": 1, "hang": True}, {"silence": 0.2}, Stage.IDLE),
        ):
            async with streaming(transport, values, **limits) as messages:
                with pytest.raises(ServiceFaultError) as caught:
                    [message async for message in messages]
            assert (caught.value.failure.class_, caught.value.failure.stage) == (C.TIMEOUT, stage)


async def test_a_message_over_our_limit_is_off_the_protocol_and_a_request_over_it_bad_input(peer: Peer) -> None:
    fits, large = 90_000, 110_000
    assert len((await once(peer.url, {"size": fits}, limit=100_000))["text"]) == fits
    assert await once(peer.url, {"text": "x" * fits}, limit=100_000)
    failure = await failure_of(peer.url, {"size": large}, limit=100_000)
    assert (failure.class_, failure.details["protocol"]) == (C.TRANSIENT, True)
    failure = await failure_of(peer.url, {"text": "x" * large}, limit=100_000)
    assert failure.class_ is C.INVALID_INPUT


async def test_a_request_over_the_limit_of_the_server_is_for_another_endpoint(peer: Peer) -> None:
    assert await once(peer.url, {"text": "x" * 4_000_000})
    failure = await failure_of(peer.url, {"text": "x" * 4_300_000})
    assert failure.class_ is C.CAPABILITY_MISMATCH


async def test_a_stream_that_never_ends_does_end(peer: Peer) -> None:
    async with GrpcTransport(peer.url) as transport:
        async with streaming(transport, {"count": 10_000_000, "size": 10_000}, total=1_000_000) as messages:
            with pytest.raises(ServiceFaultError, match="more than 1000000 bytes"):
                [message async for message in messages]
        await eventually(lambda: peer.present == 0)


@pytest.mark.parametrize("status", [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
async def test_every_status_of_a_server_is_a_failure_with_its_words(peer: Peer, status: grpc.StatusCode) -> None:
    failure = await failure_of(peer.url, {"status": status.name, "message": "because ü"})
    assert failure.details["status"] == status.name
    assert failure.class_ is not C.INTERNAL
    assert failure.class_ is C.TIMEOUT or failure.message == "because ü"


@pytest.mark.parametrize(
    "parts",
    [(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",), (b"SSH-2.0-x\r\n",), ()],
    ids=["http1", "ssh", "nothing"],
)
async def test_a_server_of_another_protocol_is_transient_in_time(serve: Any, answer: Any, parts: Any) -> None:
    url = (await serve(answer(*parts))).replace("http", "grpc")
    failure = await failure_of(url, {}, within=2.0)
    assert failure.class_ in {C.TRANSIENT, C.TIMEOUT}


async def test_a_server_that_comes_back_is_found_within_seconds() -> None:
    async with Peer().served() as first:
        url, port = first.url, int(first.url.rpartition(":")[2])
        transport = await GrpcTransport(url).__aenter__()
        await transport.call(method("Once"), {}, within=5.0)
    for _ in range(5):
        with pytest.raises(ServiceFaultError):
            await transport.call(method("Once"), {}, within=1.0)
    async with Peer().served(port=port):

        async def answers() -> bool:
            try:
                return bool(await transport.call(method("Once"), {}, within=1.0))
            except ServiceFaultError:
                return False

        assert await eventually(answers)
    await transport.__aexit__(None, None, None)


@pytest.mark.row("001:200")
async def test_the_credential_is_sent_as_bearer_and_comes_back_nowhere(peer: Peer) -> None:
    assert (await once(peer.url, {}, api_key=SECRET))["shown"] == f"Bearer {'*' * len(SECRET)}"
    assert peer.metadata[0]["authorization"] == f"Bearer {SECRET}"
    assert str(peer.metadata[0]["user-agent"]).startswith("hostler/")
    failure = await failure_of(peer.url, {"status": "UNAUTHENTICATED", "message": f"no {SECRET}"}, api_key=SECRET)
    assert (failure.class_, failure.message) == (C.AUTH, "no ***")
    assert SECRET not in f"{failure}"


async def test_grpcs_speaks_tls_and_believes_no_stranger(peer: Peer, monkeypatch: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    tls = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    async with Peer().served(tls) as secure:
        stranger = await failure_of(secure.url, {}, within=3.0)
        plain = await failure_of(secure.url.replace("grpcs", "grpc"), {}, within=3.0)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(tmp_path / "ca.pem"))
        assert await once(secure.url, {}) == {"text": "", "shown": ""}
    assert stranger.class_ is C.AUTH
    assert plain.class_ is C.TRANSIENT
    assert len(secure.deadlines) == 1


async def test_proxies_of_the_environment_are_not_used(peer: Peer, monkeypatch: Any) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await once(peer.url, {})


@pytest.mark.parametrize(
    "url",
    ["ftp://h:1", "grpc://h", "grpc://:1", "grpc://u:p@h:1", "grpc://h:1/path", "grpc://h:1?q=1", "h:1", "grpc://h:x"],
)
def test_a_url_that_cannot_work_is_refused_and_a_credential_not_repeated(url: str) -> None:
    with pytest.raises(InvalidError) as caught:
        GrpcTransport(url)
    assert "u:p" not in str(caught.value)


def test_a_url_names_host_port_and_whether_it_is_secure() -> None:
    assert parse_target("grpc://localhost:8499/") == ("localhost:8499", False)
    assert parse_target("grpcs://[::1]:443") == ("[::1]:443", True)
    assert parse_target("http://127.0.0.1:8499") == ("127.0.0.1:8499", False)
    assert parse_target("https://127.0.0.1:8499") == ("127.0.0.1:8499", True)


async def test_closing_leaves_nothing_open_and_twice_is_safe(peer: Peer) -> None:
    async def cycle() -> None:
        transport = GrpcTransport(peer.url)
        async with transport:
            await transport.call(method("Once"), {}, within=5.0)
            async with streaming(transport, {"count": 2, "hang": True}) as messages:
                await anext(messages)
        await transport.__aexit__(None, None, None)

    await cycle()
    tasks, files = len(asyncio.all_tasks()), open_files()
    for _ in range(50):
        await cycle()
    await eventually(lambda: peer.present == 0)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    await eventually(lambda: open_files() <= files + 2)


async def test_a_transport_that_is_not_open_says_so() -> None:
    with pytest.raises(ServiceFaultError, match="not open"):
        await GrpcTransport("grpc://127.0.0.1:9").call(method("Once"), {}, within=1.0)


def test_without_its_extra_the_connector_says_which_line_to_run_and_only_when_it_is_chosen() -> None:
    program = (
        "import sys\n"
        "sys.modules['grpc'] = sys.modules['google.protobuf'] = None\n"
        "from hostler.connectors.catalogue import broken_connectors, build, connector_names\n"
        "from hostler.kernel.errors import MissingExtraError\n"
        "assert 'simulation-grpc' in connector_names() and not broken_connectors()\n"
        "build('simulation-http', url='http://127.0.0.1:9')\n"
        "try: build('simulation-grpc', url='grpc://127.0.0.1:9')\n"
        "except MissingExtraError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=False)
    assert "pip install 'hostler[grpc]'" in ran.stdout, ran.stderr


@pytest.mark.row("002:231")
def test_every_call_over_grpc_names_its_limit() -> None:
    silent: list[str] = []
    calls = 0
    for path in Path(hostler.connectors.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Call):
                text, names = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
                asks = text.endswith(("_grpc.call", "_grpc.stream"))
                begins = "unary_unary(" in text or "unary_stream(" in text
                if asks or begins:
                    calls += 1
                    if not names & {"within", "timeout"}:
                        silent.append(f"{path.name}:{node.lineno}")
    assert calls > 5
    assert silent == []

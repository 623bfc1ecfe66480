"""What only gRPC has of the Open Inference Protocol, on a real MLServer, and the ways of servers that do not run here.

Neither Triton nor KServe runs here; what they say is taken from their documents and sources.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from hostler.connectors.catalogue import build
from hostler.connectors.services.inference.rpc import MESSAGES
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.service import EndpointState, Finished
from hostler.contracts.timeouts import Timeouts
from hostler.testing.connectors import Work, call_of, failure_of, steps_of, submitted
from hostler.testing.eventually import eventually
from hostler.testing.mlserver import Mlserver

C = FailureClass
Context = grpc.aio.ServicerContext[bytes, bytes]
INPUT = {"name": "x", "datatype": "FP32", "shape": [2], "data": [0.5, 1.5]}
BYTES = {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["søk 🗼", {"b64": "AP8="}]}
HALF = {"name": "h", "datatype": "FP16", "shape": [1], "data": [1.5]}
OUTPUT = {"name": "y", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [0.25]}}
KSERVE = {"name": "kserve", "version": "0.15.0", "extensions": ["model_repository_extension"]}


def work(kind: str = "infer", *, model: str = "m", inputs: Any = (INPUT,), **more: Any) -> Work:
    return Work(kind=f"inference.{kind}", payload={"model": model, "inputs": list(inputs), **more})


@pytest.mark.parametrize("options", [{"raw": True}, {"raw": False}], ids=str)
async def test_tensors_go_raw_or_in_their_fields_to_a_real_server(mlserver: Mlserver, options: dict[str, Any]) -> None:
    async with build("inference-grpc", url=f"grpc://{mlserver.target}", options=options) as connector:
        for job, inputs in (("t.1", [INPUT, BYTES]), ("t.2", [INPUT, HALF])):
            end = (await steps_of(connector, call_of(work(model="echo", inputs=inputs), job=job)))[-1]
            assert isinstance(end, Finished), end
            found = json.loads(bytes(end.result))["outputs"]
            assert [tensor["data"] for tensor in found] == [tensor["data"] for tensor in inputs]


@pytest.mark.row("001:290")
@pytest.mark.parametrize("limits", [None, Timeouts(connect=5.0, first_byte=0.3)])
async def test_a_real_server_stops_what_is_cancelled_or_over_its_time(
    mlserver: Mlserver, limits: Timeouts | None
) -> None:
    await mlserver.counts(mood="well")
    asked = work(model="slow", parameters={"seconds": "30"})
    call = call_of(asked) if limits is None else call_of(asked, timeouts=limits)

    async def busy(count: int) -> bool:
        return (await mlserver.counts())["busy"] == count

    async with build("inference-grpc", url=f"grpc://{mlserver.target}") as connector:
        ref = await submitted(connector, call)
        await eventually(lambda: busy(1))
        if limits is None:
            assert await connector.cancel(ref)
        await eventually(lambda: busy(0))


class Server:
    """Answers by a table of methods: the fields of a message, or a status and words."""

    def __init__(self, **table: Any) -> None:
        known: dict[str, Any] = {"ServerLive": {"live": True}, "ServerReady": {"ready": True}}
        self.table = {**known, "ServerMetadata": KSERVE, "ModelReady": {"ready": True}, **table}
        self.asked: list[str] = []

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[str]:
        methods = ("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer")
        methods += ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(self._handler(name)) for name in methods if name in self.table
        }
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            await server.stop(None)

    def _handler(self, name: str) -> Any:
        async def answer(_: bytes, context: Context) -> bytes:
            self.asked.append(name)
            said = self.table[name]
            if isinstance(said, tuple):
                code, words = cast("tuple[grpc.StatusCode, str]", said)
                await context.abort(code, words)
            return MESSAGES.encode(f"{name}Response", said)

        return answer


async def failed(server: Server, asked: Work | None = None) -> Failure:
    async with server.served() as url, build("inference-grpc", url=url) as connector:
        return await failure_of(connector, call_of(asked or work()))


async def test_a_server_without_a_repository_offers_inference_of_models_that_nobody_lists() -> None:
    server = Server()
    async with server.served() as url, build("inference-grpc", url=url, slots=3) as connector:
        found = await connector.capabilities()
        probe = await connector.probe()
    assert (found.kinds, found.models, found.models_known) == (("inference.infer",), (), False)
    assert (found.versions, found.pools["slots"].total) == ({"kserve": "0.15.0"}, 3)
    assert (probe.state, probe.loaded, probe.version) == (EndpointState.READY, None, "0.15.0")


async def test_a_repository_says_which_models_are_ready_and_the_server_whether_it_is() -> None:
    rows = [
        {"name": "a", "version": "1", "state": "READY"},
        {"name": "b", "state": "State.READY"},
        {"name": "c", "state": "UNAVAILABLE", "reason": "no weights"},
    ]
    server = Server(RepositoryIndex={"models": rows}, ServerReady={"ready": False})
    async with server.served() as url, build("inference-grpc", url=url) as connector:
        assert (await connector.capabilities()).models == ("a", "a:1", "b")
        assert (await connector.probe()).state is EndpointState.DEGRADED
        server.table["RepositoryIndex"] = {"models": []}
        assert (await connector.probe()).state is EndpointState.LOADING
        server.table["ServerLive"] = {"live": False}
        assert (await connector.probe()).state is EndpointState.UNHEALTHY


@pytest.mark.parametrize(
    ("said", "class_", "code"),
    [
        ({"ModelReady": (grpc.StatusCode.NOT_FOUND, "no"), "RepositoryIndex": {}}, C.CAPABILITY_MISMATCH, "absent"),
        ({"ModelReady": (grpc.StatusCode.UNKNOWN, "no"), "RepositoryIndex": {}}, C.CAPABILITY_MISMATCH, "absent"),
        ({"ModelReady": {"ready": False}, "ModelMetadata": {"name": "m"}}, C.OVERLOADED, "loading"),
        (
            {
                "ModelReady": {"ready": False},
                "ModelMetadata": (grpc.StatusCode.NOT_FOUND, "no"),
                "RepositoryIndex": {"models": [{"name": "m", "state": "UNAVAILABLE"}]},
            },
            C.CAPABILITY_MISMATCH,
            "unavailable",
        ),
    ],
)
@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE", "INTERNAL"])
async def test_what_a_refusal_means_is_asked_of_the_server_whatever_its_status(
    said: dict[str, Any], class_: C, code: str, status: str
) -> None:
    absent = (grpc.StatusCode.NOT_FOUND, "no such model")
    table = {"ModelInfer": (grpc.StatusCode[status], "words"), "ModelMetadata": absent, **said}
    failure = await failed(Server(**table))
    assert (failure.class_, failure.details["code"]) == (class_, f"model_{code}")
    assert "words" in failure.message


async def test_a_refusal_by_a_model_that_is_ready_is_believed_the_second_time() -> None:
    server = Server(ModelInfer=(grpc.StatusCode.INVALID_ARGUMENT, "expected 3 inputs"))
    failure = await failed(server)
    assert (failure.class_, failure.message) == (C.INVALID_INPUT, "expected 3 inputs")
    assert server.asked.count("ModelInfer") == 2


async def test_an_answer_to_another_request_or_without_the_tensor_that_was_asked_for_is_no_success() -> None:
    other = {"id": "other/1", "outputs": [OUTPUT]}
    for answer, asked in ((other, work()), ({"outputs": [OUTPUT]}, work(outputs=["z"]))):
        failure = await failed(Server(ModelInfer=answer), asked)
        assert (failure.class_, failure.details["protocol"]) == (C.TRANSIENT, True)


async def test_a_load_that_fails_says_why_and_one_that_is_refused_is_for_another_server() -> None:
    load = Work(kind="inference.load", payload={"model": "m"})
    rows = [{"name": "m", "state": "UNAVAILABLE", "reason": "no weights"}]
    unready = {"ModelReady": {"ready": False}, "ModelMetadata": (grpc.StatusCode.NOT_FOUND, "no")}
    broken = await failed(Server(RepositoryModelLoad={}, RepositoryIndex={"models": rows}, **unready), load)
    assert (broken.class_, "no weights" in broken.message) == (C.CAPABILITY_MISMATCH, True)
    refused = await failed(Server(RepositoryIndex={}, **unready), load)
    assert (refused.class_, refused.details["code"]) == (C.CAPABILITY_MISMATCH, "model_absent")

"""A real MLServer over both protocols: tensors of every type, streams, models that come and go, errors."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import EndpointState, Finished, Step
from hostler.contracts.timeouts import Timeouts
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, failure_of, steps_of, submitted
from hostler.testing.eventually import eventually
from hostler.testing.mlserver import Mlserver

C = FailureClass
DEFECT = (500, "INTERNAL")
"""How it says that a model has a defect, over HTTP and over gRPC."""
TEXT = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a lighthouse"]}
EVERY = [
    {"name": "bool", "datatype": "BOOL", "shape": [2], "data": [True, False]},
    {"name": "u8", "datatype": "UINT8", "shape": [2], "data": [0, 255]},
    {"name": "u64", "datatype": "UINT64", "shape": [2, 1], "data": [0, 2**64 - 1]},
    {"name": "i64", "datatype": "INT64", "shape": [3], "data": [-(2**63), 2**53 + 1, 2**63 - 1]},
    {"name": "fp16", "datatype": "FP16", "shape": [2], "data": [1.5, -65504.0]},
    {"name": "fp32", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 3.4028234663852886e38]},
    {"name": "fp64", "datatype": "FP64", "shape": [1], "data": [0.1]},
    {"name": "none", "datatype": "FP32", "shape": [0, 4], "data": []},
    {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["søk 🗼", ""]},
    {"name": "bytes", "datatype": "BYTES", "shape": [2], "data": [{"b64": "AP8="}, "text"]},
]


def infer(model: str, *tensors: dict[str, Any], kind: str = "infer", **more: Any) -> Work:
    return Work(kind=f"inference.{kind}", payload={"model": model, "inputs": list(tensors or (TEXT,)), **more})


def turned(verb: str, model: str) -> Work:
    return Work(kind=f"inference.{verb}", payload={"model": model})


def result_of(steps: list[Step]) -> dict[str, Any]:
    end = steps[-1]
    assert isinstance(end, Finished), end
    return json.loads(bytes(end.result))


class Caller:
    """Gives every call a job of its own."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.calls = 0

    async def result(self, work: Work) -> dict[str, Any]:
        self.calls += 1
        return result_of(await steps_of(self.connector, call_of(work, job=f"c.{self.calls}")))

    async def failure(self, work: Work) -> Failure:
        self.calls += 1
        return await failure_of(self.connector, call_of(work, job=f"c.{self.calls}"))


@pytest.fixture(params=["inference-http", "inference-grpc"])
async def caller(mlserver: Mlserver, request: pytest.FixtureRequest) -> AsyncGenerator[Caller]:
    await mlserver.counts(mood="well")
    url = f"{mlserver.url}/v2" if request.param == "inference-http" else f"grpc://{mlserver.target}"
    async with build(request.param, url=url, options={"poll": 0.02}) as connector:
        yield Caller(connector)
        await mlserver.counts(mood="well")


async def test_tensors_of_every_type_come_back_as_they_went(caller: Caller) -> None:
    result = await caller.result(infer("echo", *EVERY))
    found = {tensor["name"]: (tensor["shape"], tensor["data"]) for tensor in result["outputs"]}
    assert found == {str(tensor["name"]): (tensor["shape"], tensor["data"]) for tensor in EVERY}
    assert result["model"] == "echo"


async def test_a_model_computes_with_nested_tensors_and_says_its_version(caller: Caller) -> None:
    a = {"name": "a", "datatype": "FP32", "shape": [2, 2], "data": [[1.0, 2.0], [3.0, 4.0]]}
    result = await caller.result(infer("add", a, {**a, "name": "b"}, version="v1", outputs=["sum"]))
    assert result["version"] == "v1"
    assert [tensor["data"] for tensor in result["outputs"]] == [[2.0, 4.0, 6.0, 8.0]]


async def test_only_the_tensors_that_were_asked_for_are_in_the_result_and_a_lack_is_no_success(caller: Caller) -> None:
    one, other = (infer("echo", *EVERY, outputs=names) for names in (["u8"], ["u8", "u9"]))
    assert [tensor["name"] for tensor in (await caller.result(one))["outputs"]] == ["u8"]
    failure = await caller.failure(other)
    assert (failure.class_, "u9" in failure.message) == (C.TRANSIENT, True)


async def test_bad_tensors_unknown_models_and_models_that_are_not_ready_have_classes_of_their_own(
    caller: Caller, mlserver: Mlserver
) -> None:
    bad = await caller.failure(infer("add"))
    unknown = await caller.failure(infer("nope"))
    version = await caller.failure(infer("add", version="v9"))
    absent = await caller.failure(infer("broken"))
    await mlserver.counts(mood="sick")
    waiting = await caller.failure(infer("slow"))
    assert (bad.class_, bad.message) == (C.INVALID_INPUT, "add takes two tensors of one shape, a and b")
    assert (unknown.class_, unknown.details["code"]) == (C.CAPABILITY_MISMATCH, "model_absent")
    assert (version.class_, version.details["code"]) == (C.CAPABILITY_MISMATCH, "model_absent")
    assert (absent.class_, absent.details["code"]) == (C.CAPABILITY_MISMATCH, "model_unavailable")
    assert (waiting.class_, waiting.details["code"]) == (C.OVERLOADED, "model_loading")


async def test_a_stream_that_says_nothing_under_200_fails_by_what_is_true_of_its_model(
    caller: Caller, mlserver: Mlserver
) -> None:
    unknown = await caller.failure(infer("nope", kind="stream"))
    defect = await caller.failure(infer("failing", kind="stream"))
    await mlserver.counts(mood="sick")
    waiting = await caller.failure(infer("slow", kind="stream"))
    assert [failure.class_ for failure in (unknown, defect, waiting)] == [
        C.CAPABILITY_MISMATCH,
        C.TRANSIENT,
        C.OVERLOADED,
    ]


async def test_a_defect_of_a_model_passes_and_harms_no_request_after_it(caller: Caller) -> None:
    for _ in range(10):
        failure = await caller.failure(infer("failing"))
        assert (failure.class_, failure.details["status"] in DEFECT) == (C.TRANSIENT, True)
        assert (await caller.result(infer("echo")))["outputs"][0]["data"] == ["a lighthouse"]


@pytest.mark.row("001:209")
async def test_a_stream_gives_its_texts_as_they_come_and_every_answer_at_the_end(caller: Caller) -> None:
    words = {**TEXT, "shape": [3], "data": ["a ", "light", "house ß"]}
    steps = await steps_of(caller.connector, call_of(infer("echo", words, kind="stream")))
    result = result_of(steps)
    assert "".join(step.text or "" for step in steps if isinstance(step, Progress)) == result["text"]
    assert result["text"] == "a lighthouse ß"
    assert [answer[0]["data"] for answer in result["answers"]] == [["a "], ["light"], ["house ß"]]


async def test_only_models_that_are_ready_are_offered_and_a_load_makes_one_so(
    caller: Caller, mlserver: Mlserver
) -> None:
    async def offered() -> set[str]:
        return set((await caller.connector.capabilities()).models)

    await caller.result(turned("unload", "late"))
    found = await caller.connector.capabilities()
    assert set(found.models) == {"add", "add:v1", "counts", "echo", "failing", "slow"}
    assert set(found.kinds) == {spec.name for spec in caller.connector.kinds()}
    assert (found.models_known, found.versions) == (True, {"mlserver": "1.7.1"})
    assert await caller.result(turned("load", "late")) == {"model": "late", "ready": True}
    assert "late" in await offered()
    assert "late" in ((await caller.connector.probe()).loaded or ())
    await mlserver.counts(mood="sick")
    assert "slow" not in await offered()
    assert (await caller.connector.probe()).state is EndpointState.DEGRADED
    await mlserver.counts(mood="well")
    assert (await caller.connector.probe()).version == "1.7.1"
    assert await caller.result(turned("unload", "late")) == {"model": "late", "ready": False}
    assert "late" not in await offered()
    assert await caller.result(turned("unload", "late")) == {"model": "late", "ready": False}


@pytest.mark.row("002:231")
async def test_a_load_is_a_stage_of_its_own_and_a_model_that_loads_is_waited_for(
    caller: Caller, mlserver: Mlserver
) -> None:
    await caller.result(turned("unload", "late"))
    await mlserver.counts(mood="loading")
    limits = Timeouts(connect=5.0, load=0.4, first_byte=0.1, idle=0.1, run=20.0)
    steps = await steps_of(caller.connector, call_of(turned("load", "late"), job="l.1", timeouts=limits))
    failure = await caller.failure(infer("late"))
    assert isinstance(steps[0], Progress)
    assert steps[0].stage == "load"
    ended = await failure_of(caller.connector, call_of(turned("load", "late"), job="l.2", timeouts=limits))
    assert (ended.class_, ended.stage) == (C.TIMEOUT, Stage.LOAD)
    assert failure.class_ is C.OVERLOADED
    ref = await submitted(caller.connector, call_of(turned("load", "late"), job="l.3"))
    await mlserver.counts(mood="well")
    assert isinstance(await eventually_fetched(caller, ref), Finished)
    assert (await caller.result(infer("late")))["model"] == "late"
    await caller.result(turned("unload", "late"))


async def eventually_fetched(caller: Caller, ref: Any) -> Step:
    async def ended() -> Step | None:
        step = await caller.connector.fetch(ref)
        return step if isinstance(step, Finished) else None

    found = await eventually(ended)
    assert found is not None
    return found


async def test_a_model_that_cannot_be_loaded_or_is_unknown_is_no_success(caller: Caller) -> None:
    broken = await caller.failure(turned("load", "broken"))
    unknown = await caller.failure(turned("load", "nope"))
    strange = await caller.failure(turned("unload", "nope"))
    assert (broken.class_, broken.details["status"] in DEFECT) == (C.TRANSIENT, True)
    for failure in (unknown, strange):
        assert (failure.class_, failure.details["code"]) == (C.CAPABILITY_MISMATCH, "model_absent")


async def test_inference_has_limits_for_the_first_byte_and_the_whole_run(caller: Caller) -> None:
    work = infer("slow", parameters={"seconds": 1.0})
    for limits, stage in (
        (Timeouts(connect=5.0, first_byte=0.2, idle=5.0, run=5.0), Stage.FIRST_BYTE),
        (Timeouts(connect=5.0, first_byte=5.0, idle=5.0, run=0.2), Stage.RUN),
    ):
        failure = await failure_of(caller.connector, call_of(work, job=f"t.{stage}", timeouts=limits))
        assert (failure.class_, failure.stage) == (C.TIMEOUT, stage)
    assert (await caller.result(work))["model"] == "slow"

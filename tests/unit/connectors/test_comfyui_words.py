"""What ComfyUI's words mean, of every age: refusals, ends, progress, lists of models. Decided without a server."""

import json
from typing import Any

import msgspec
import pytest

from hostler.connectors.services.comfyui.assets import labels_of, models_of, versions_of
from hostler.connectors.services.comfyui.judge import ended_badly, raised, refused, state_of
from hostler.connectors.services.comfyui.messages import HistoryEntry, NodeInfo, StatsAnswer
from hostler.connectors.services.comfyui.story import Story
from hostler.contracts.failure import FailureClass
from hostler.contracts.service import RemoteState

ME = "11111111-1111-5111-8111-111111111111"
GRAPH: dict[str, Any] = {str(number): {"class_type": "Node", "inputs": {}} for number in range(1, 5)}

ENDS: list[tuple[dict[str, Any], RemoteState]] = [
    ({"status": {"status_str": "success", "completed": True, "messages": []}}, RemoteState.SUCCEEDED),
    ({"status": {"status_str": "error", "messages": [["execution_error", {}]]}}, RemoteState.FAILED),
    ({"status": {"status_str": "error", "messages": [["execution_interrupted", {}]]}}, RemoteState.CANCELLED),
    ({"outputs": {"9": {"images": [{"filename": "a.png"}]}}}, RemoteState.SUCCEEDED),
    ({"outputs": {}}, RemoteState.FAILED),
    ({"outputs": {"9": None}}, RemoteState.FAILED),
]


def entry(**fields: Any) -> HistoryEntry:
    return msgspec.convert({"prompt": [], **fields}, HistoryEntry)


def story() -> Story:
    found = Story(ME)
    found.learn({**GRAPH, "4": {"class_type": "CheckpointLoaderSimple", "inputs": {}}})
    return found


@pytest.mark.parametrize(
    ("body", "class_"),
    [
        ({"error": "no prompt", "node_errors": []}, FailureClass.INVALID_INPUT),
        ({"error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs"}}, FailureClass.INVALID_INPUT),
        ({"error": {"type": "missing_node_type", "message": "m"}, "node_errors": {}}, FailureClass.CAPABILITY_MISMATCH),
        ({"error": {"type": "invalid_prompt", "message": "m"}, "node_errors": []}, FailureClass.CAPABILITY_MISMATCH),
        ({"error": {"type": "something_new", "message": "m"}, "node_errors": {}}, FailureClass.INVALID_INPUT),
    ],
)
def test_a_refusal_has_a_class_by_its_type(body: dict[str, Any], class_: FailureClass) -> None:
    found = refused(json.dumps(body).encode())
    assert found is not None
    assert found.class_ is class_
    assert found.message


def test_a_400_of_somebody_else_is_none_of_comfyuis() -> None:
    assert refused(b"<html>bad request</html>") is None
    assert refused(b'{"detail": "nope"}') is None


def test_one_wrong_value_beside_a_model_that_lacks_makes_it_bad_input() -> None:
    lacks = {"type": "value_not_in_list", "extra_info": {"received_value": "flux.safetensors"}}
    wrong = {"type": "value_not_in_list", "extra_info": {"received_value": "nobody"}}
    body: dict[str, Any] = {"error": {"type": "prompt_outputs_failed_validation"}, "node_errors": {}}
    classes: list[FailureClass] = []
    for errors in ([lacks], [lacks, wrong]):
        body["node_errors"]["4"] = {"class_type": "Loader", "errors": errors, "dependent_outputs": ["9"]}
        found = refused(json.dumps(body).encode())
        assert found is not None
        classes.append(found.class_)
    assert classes == [FailureClass.CAPABILITY_MISMATCH, FailureClass.INVALID_INPUT]


@pytest.mark.parametrize(
    ("kind", "words", "class_"),
    [
        ("torch.OutOfMemoryError", "Allocation on device", FailureClass.OUT_OF_MEMORY),
        ("torch.cuda.OutOfMemoryError", "", FailureClass.OUT_OF_MEMORY),
        ("MemoryError", "", FailureClass.OUT_OF_MEMORY),
        ("RuntimeError", "CUDA error: out of memory", FailureClass.OUT_OF_MEMORY),
        ("RuntimeError", "shapes cannot be multiplied", FailureClass.TRANSIENT),
    ],
)
def test_memory_that_is_full_is_known_by_the_type_and_else_by_the_text(
    kind: str, words: str, class_: FailureClass
) -> None:
    data = {"exception_type": kind, "exception_message": words, "node_id": "3", "node_type": "KSampler"}
    found = raised(data)
    assert found.class_ is class_
    assert "node 3 (KSampler)" in found.message


@pytest.mark.parametrize(("fields", "state"), ENDS)
def test_the_state_of_an_ended_prompt_follows_from_its_status_and_without_one_from_its_outputs(
    fields: dict[str, Any], state: RemoteState
) -> None:
    assert state_of(entry(**fields)) is state


def test_an_interrupted_prompt_is_cancelled_and_not_failed() -> None:
    messages: list[Any] = [["execution_start", {}], ["execution_interrupted", {"node_id": "3"}]]
    assert ended_badly(entry(status={"status_str": "error", "messages": messages})).class_ is FailureClass.CANCELLED


def test_each_node_counts_the_same_and_its_steps_count_within_it() -> None:
    told = story()
    assert told.progress().stage == "queued"
    told.hear("execution_start", {"prompt_id": ME})
    told.hear("execution_cached", {"prompt_id": ME, "nodes": ["1"]})
    told.hear("executing", {"prompt_id": ME, "node": "4"})
    assert (told.progress().fraction, told.progress().stage) == (0.25, "loading")
    told.hear("executing", {"prompt_id": ME, "node": "2"})
    told.hear("progress", {"prompt_id": ME, "node": "2", "value": 5, "max": 10})
    assert (told.progress().fraction, told.progress().stage) == (0.625, "running")
    assert told.progress().message == "Node 2, step 5 of 10"
    told.hear("executed", {"prompt_id": ME, "node": "2"})
    told.hear("executing", {"prompt_id": ME, "node": "3"})
    assert told.progress().fraction == 0.75


def test_the_states_of_all_nodes_at_once_say_the_same() -> None:
    told = story()
    states = {"1": {"state": "finished"}, "4": {"state": "finished"}, "2": {"state": "running", "value": 1, "max": 4}}
    told.hear("progress_state", {"prompt_id": ME, "nodes": states})
    assert told.progress().fraction == 0.5625


@pytest.mark.parametrize("event", ["execution_success", "execution_error", "execution_interrupted"])
def test_an_end_is_one_in_either_dialect_and_only_for_its_own_prompt(event: str) -> None:
    told = story()
    assert told.hear(event, {"prompt_id": ME})
    assert told.hear("executing", {"prompt_id": ME, "node": None})
    assert not told.hear(event, {"prompt_id": "another"})
    assert not told.hear("executing", {"node": None})


def test_models_are_found_in_lists_old_and_new_and_nothing_else_is_one() -> None:
    nodes = {
        "Old": NodeInfo(input={"required": {"ckpt_name": [["a.safetensors", "b.ckpt"], {}], "mode": [["fast"], {}]}}),
        "New": NodeInfo(input={"optional": {"lora": ["COMBO", {"options": ["c.safetensors", "x" * 200 + ".ckpt"]}]}}),
        "Odd": NodeInfo(input={"required": {"text": ["STRING"], "none": [], "flag": 3}, "hidden": None}),
    }
    assert models_of(nodes) == ("a.safetensors", "b.ckpt", "c.safetensors")


def test_packs_of_nodes_the_gpu_and_versions_that_are_versions_are_told() -> None:
    nodes = {"A": NodeInfo(python_module="custom_nodes.impact.sub"), "B": NodeInfo(python_module="comfy_extras.nodes")}
    stats = msgspec.convert(
        {
            "system": {"comfyui_version": "v0.2.3-12-g1a2b3c4", "pytorch_version": "unknown"},
            "devices": [{"name": "cuda:0 Card", "vram_total": 5}],
        },
        StatsAnswer,
    )
    assert labels_of(nodes, stats) == {"nodes.impact": "installed", "gpu": "cuda:0 Card"}
    assert versions_of(stats) == {"comfyui": "0.2.3"}

"""What the simulated ComfyUI accepts as a prompt: the checks and the words of the real one."""

from collections.abc import Mapping
from typing import Any, Final, cast

from msgspec import Struct

from hostler.testing.sims.comfyui_nodes import NodeClass, is_link

LISTED: Final = 20
"""Choices that an error names; more are counted."""


class Verdict(Struct, frozen=True, kw_only=True):
    """What is wrong with a prompt, and which of its outputs can run."""

    error: dict[str, Any] | None
    node_errors: dict[str, Any]
    outputs: tuple[str, ...]


def problem(kind: str, message: str, details: str = "", **extra: Any) -> dict[str, Any]:
    """Return an error in ComfyUI's shape."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def judge(prompt: Mapping[str, Any], classes: Mapping[str, NodeClass], *, modern: bool) -> Verdict:
    """Check a prompt as ComfyUI does: classes, then every input of everything that an output needs."""
    for node_id, node in prompt.items():
        class_type = node.get("class_type")
        if class_type is None:
            words = "Cannot execute because a node is missing the class_type property."
            return _refused(problem("invalid_prompt", words, f"Node ID '#{node_id}'"))
        if class_type not in classes:
            if modern:
                words = f"Node '{class_type}' not found. The custom node may not be installed."
                details = f"Node ID '#{node_id}'"
                return _refused(problem("missing_node_type", words, details, node_id=node_id, class_type=class_type))
            words = f"Cannot execute because node {class_type} does not exist."
            return _refused(problem("invalid_prompt", words, f"Node ID '#{node_id}'"))
    wanted = [node_id for node_id, node in prompt.items() if classes[node["class_type"]].output_node]
    if not wanted:
        return _refused(problem("prompt_no_outputs", "Prompt has no outputs"))
    errors: dict[str, list[dict[str, Any]]] = {}
    good: list[str] = []
    blamed: dict[str, list[str]] = {}
    for output in wanted:
        bad = [node_id for node_id in needed(prompt, output) if _judge_node(prompt, node_id, classes, errors)]
        for node_id in bad:
            blamed.setdefault(node_id, []).append(output)
        if not bad:
            good.append(output)
    node_errors = {
        node_id: {
            "errors": errors[node_id],
            "dependent_outputs": outputs,
            "class_type": prompt[node_id]["class_type"],
        }
        for node_id, outputs in blamed.items()
    }
    error = None if good else problem("prompt_outputs_failed_validation", "Prompt outputs failed validation")
    return Verdict(error=error, node_errors=node_errors, outputs=tuple(good))


def needed(prompt: Mapping[str, Any], output: str) -> list[str]:
    """Return the nodes that an output needs, each after those that it needs itself."""
    order: list[str] = []

    def visit(node_id: str, path: tuple[str, ...]) -> None:
        if node_id in order or node_id in path or node_id not in prompt:
            return
        for value in prompt[node_id].get("inputs", {}).values():
            if is_link(value):
                visit(value[0], (*path, node_id))
        order.append(node_id)

    visit(output, ())
    return order


def _refused(error: dict[str, Any]) -> Verdict:
    return Verdict(error=error, node_errors={}, outputs=())


def _judge_node(
    prompt: Mapping[str, Any],
    node_id: str,
    classes: Mapping[str, NodeClass],
    errors: dict[str, list[dict[str, Any]]],
) -> bool:
    """Find what is wrong with a node's inputs; True when something is."""
    if node_id not in errors:
        node = prompt[node_id]
        inputs = node.get("inputs", {})
        found = [
            wrong
            for name, row in classes[node["class_type"]].required.items()
            if (wrong := _judge_input(prompt, name, row, inputs, classes)) is not None
        ]
        errors[node_id] = found
    return bool(errors[node_id])


def _judge_input(
    prompt: Mapping[str, Any], name: str, row: list[Any], inputs: Mapping[str, Any], classes: Mapping[str, NodeClass]
) -> dict[str, Any] | None:
    if name not in inputs:
        return problem("required_input_missing", "Required input is missing", name, input_name=name)
    value = inputs[name]
    if is_link(value):
        return _judge_link(prompt, name, row[0], value, classes)
    facts = {"input_name": name, "input_config": row, "received_value": value}
    if isinstance(row[0], list):
        return _judge_choice(name, cast("list[Any]", row[0]), row[1], facts)
    return _judge_number(name, row[0], row[1], facts) if row[0] in {"INT", "FLOAT"} else None


def _judge_choice(
    name: str, choices: list[Any], options: Mapping[str, Any], facts: dict[str, Any]
) -> dict[str, Any] | None:
    value = facts["received_value"]
    if value in choices:
        return None
    if options.get("image_upload"):
        words = f"{name} - Invalid image file: {value}"
        return problem("custom_validation_failed", "Custom validation failed for node", words)
    listed = str(choices) if len(choices) <= LISTED else f"(list of length {len(choices)})"
    return problem("value_not_in_list", "Value not in list", f"{name}: '{value}' not in {listed}", **facts)


def _judge_number(name: str, kind: str, options: Mapping[str, Any], facts: dict[str, Any]) -> dict[str, Any] | None:
    value = facts["received_value"]
    try:
        number = int(value) if kind == "INT" else float(value)
    except (TypeError, ValueError) as error:
        words = f"Failed to convert an input value to a {kind} value"
        return problem("invalid_input_type", words, f"{name}, {value}, {error}", **facts)
    if number < options.get("min", number):
        words = f"Value {number} smaller than min of {options['min']}"
        return problem("value_smaller_than_min", words, name, **facts)
    if number > options.get("max", number):
        words = f"Value {number} bigger than max of {options['max']}"
        return problem("value_bigger_than_max", words, name, **facts)
    return None


def _judge_link(
    prompt: Mapping[str, Any], name: str, kind: Any, value: list[Any], classes: Mapping[str, NodeClass]
) -> dict[str, Any] | None:
    source = prompt.get(value[0])
    outputs = classes[source["class_type"]].outputs if source is not None else ()
    if not isinstance(value[1], int) or not 0 <= value[1] < len(outputs):
        words = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
        return problem("bad_linked_input", words, name, input_name=name, received_value=value)
    given = outputs[value[1]]
    if kind not in {given, "*"}:
        words = "Return type mismatch between linked nodes"
        return problem("return_type_mismatch", words, f"{name}, received_type({given}) mismatch input_type({kind})")
    return None

"""What ComfyUI's refusals and errors mean: by their types first, by text only where it has no type."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hostler.connectors.faults import failure
from hostler.connectors.services.comfyui.messages import HistoryEntry, NodeError, NodeErrors, RefusedAnswer
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.service import RemoteState

C = FailureClass
MODEL_ENDINGS: Final = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl")
"""File names that end so are models: a server that lacks one is not the only server."""
_LACKS: Final = frozenset({"missing_node_type", "invalid_prompt"})
"""Error types of a node class that is not installed. Old servers say `invalid_prompt` for that and for a node without
a class; a payload without one never gets so far."""
_MEMORY_TYPES: Final = ("OutOfMemoryError", "MemoryError")
_MEMORY_WORDS: Final = ("out of memory", "allocation on device")
NAMED: Final = 5
"""Nodes that a message names; details have them all."""
DETAILED: Final = 50


def refused(body: bytes) -> Failure | None:
    """Return what the body of a refused prompt means, or None when it is not ComfyUI's."""
    try:
        answer = msgspec.json.decode(body, type=RefusedAnswer)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    nodes = answer.node_errors if isinstance(answer.node_errors, dict) else {}
    if isinstance(answer.error, str):
        return failure(C.INVALID_INPUT, f"ComfyUI refuses the workflow: {answer.error}")
    if nodes:
        return invalid_nodes(nodes, code=answer.error.type)
    error = answer.error
    class_ = C.CAPABILITY_MISMATCH if error.type in _LACKS else C.INVALID_INPUT
    words = ": ".join(part for part in (error.message, error.details) if part)
    return failure(class_, f"ComfyUI refuses the workflow: {words}", code=error.type or None)


def invalid_nodes(nodes: Mapping[str, NodeErrors], *, code: str | None = None) -> Failure:
    """Return the failure of nodes with wrong inputs; where nothing but models lacks, another server may have them."""
    lacks = all(
        error.type == "value_not_in_list" and _received(error).endswith(MODEL_ENDINGS)
        for found in nodes.values()
        for error in found.errors
    )
    said = [f"node {node_id} ({found.class_type}): {_words(found)}" for node_id, found in nodes.items()]
    more = f" and {len(said) - NAMED} more" if len(said) > NAMED else ""
    details = {
        node_id: {
            "class_type": found.class_type,
            "errors": [{"type": error.type, "details": error.details[:200]} for error in found.errors[:NAMED]],
        }
        for node_id, found in list(nodes.items())[:DETAILED]
    }
    class_ = C.CAPABILITY_MISMATCH if lacks else C.INVALID_INPUT
    return failure(class_, f"{'; '.join(said[:NAMED])}{more}", code=code, nodes=details)


def _received(error: NodeError) -> str:
    return str((error.extra_info or {}).get("received_value", ""))


def _words(found: NodeErrors) -> str:
    said = [": ".join(part for part in (error.message, error.details[:200]) if part) for error in found.errors[:NAMED]]
    return ", ".join(said) or "refused without a reason"


def state_of(entry: HistoryEntry) -> RemoteState:
    """Return how a prompt of the history ended; one that says neither status nor outputs did not end well."""
    if entry.status is None:
        return RemoteState.SUCCEEDED if any(entry.outputs.values()) else RemoteState.FAILED
    if entry.status.status_str == "success":
        return RemoteState.SUCCEEDED
    events = {event for event, _ in entry.status.messages}
    return RemoteState.CANCELLED if "execution_interrupted" in events else RemoteState.FAILED


def ended_badly(entry: HistoryEntry) -> Failure:
    """Return the failure of a prompt that did not end well."""
    messages = entry.status.messages if entry.status is not None else []
    for event, data in messages:
        if event == "execution_interrupted":
            return failure(C.CANCELLED, "ComfyUI says that it was interrupted", node=_text(data, "node_id"))
        if event == "execution_error":
            return raised(data)
    if entry.status is None:
        return failure(C.TRANSIENT, "the history has neither outputs nor a status for this prompt", protocol=True)
    return failure(C.TRANSIENT, f"ComfyUI says {entry.status.status_str} and not why", protocol=True)


def raised(data: Mapping[str, Any]) -> Failure:
    """Return the failure of a node that raised."""
    kind, words = _text(data, "exception_type"), _text(data, "exception_message").strip()
    node_id, node_type = _text(data, "node_id"), _text(data, "node_type")
    full = kind.endswith(_MEMORY_TYPES) or any(word in words.lower() for word in _MEMORY_WORDS)
    return failure(
        C.OUT_OF_MEMORY if full else C.TRANSIENT,
        f"node {node_id} ({node_type}) raised {kind}: {words}",
        exception=kind or None,
        node=node_id or None,
        class_type=node_type or None,
    )


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return "" if value is None else str(value)[:2_000]

"""What goes to and comes from a ComfyUI server."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from hostler.contracts.job import BlobRef
from hostler.kernel.units import Bytes, Json, Seconds

NodeId = Annotated[str, Meta(min_length=1, max_length=256)]


class Node(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node of a workflow, as ComfyUI's "Export (API)" writes it."""

    class_type: Annotated[str, Meta(min_length=1, max_length=256)]
    inputs: dict[str, Json] = {}
    """Values and links `[node id, output number]`. `{"$blob": {...}}` stands for a file in the blob store: it is
    uploaded, and the node is given its name."""
    meta: Json | UnsetType = field(name="_meta", default=UNSET)


class WorkflowPayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Payload of `comfyui.workflow`."""

    workflow: Annotated[dict[NodeId, Node], Meta(min_length=1, max_length=5_000)]
    """The graph in the API format (not the format that the editor saves)."""
    partial: bool = False
    """Whether the job may go on when the server refuses some of the graph's outputs."""


class Artifact(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file that a node made."""

    node: str
    output: str
    """What the node calls it: `images`, `gifs`, `audio`, ..."""
    name: str
    media_type: str
    size: Bytes
    folder: str = "output"
    """`output`, or `temp` for what only previews."""
    blob: BlobRef | None = None
    """Where it lies; None when the worker has no blob store."""
    data: bytes | None = None
    """The file itself (base64 in JSON) when there is no blob store."""


class WorkflowResult(Struct, frozen=True, kw_only=True):
    """Result of `comfyui.workflow`."""

    prompt_id: str
    artifacts: tuple[Artifact, ...]
    texts: dict[str, tuple[str, ...]]
    """Text that nodes showed, by node."""
    cached: tuple[str, ...]
    """Nodes that were not run, since the server had their output from before."""
    execution_s: Seconds | None
    """From start to end by the server's clock; None when it does not say."""


class PromptAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `POST /prompt`."""

    prompt_id: str
    node_errors: dict[str, "NodeErrors"] | list[Json] = {}


class NodeError(Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a node's inputs."""

    type: str = ""
    message: str = ""
    details: str = ""
    extra_info: dict[str, Json] | None = None


class NodeErrors(Struct, frozen=True, kw_only=True):
    """Everything that is wrong with a node."""

    errors: tuple[NodeError, ...] = ()
    class_type: str = ""


class RefusedAnswer(Struct, frozen=True, kw_only=True):
    """Answer of a refused `POST /prompt`; old servers give `error` as text and `node_errors` as a list."""

    error: NodeError | str
    node_errors: dict[str, NodeErrors] | list[Json] = {}


QueueItem = tuple[float, str, dict[str, Any], dict[str, Any]]
"""How a prompt in queue and history begins: number, id, graph, extra data."""


class QueueAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `GET /queue`."""

    queue_running: list[list[Any]]
    queue_pending: list[list[Any]]


class StatusView(Struct, frozen=True, kw_only=True):
    """How a prompt in the history ended."""

    status_str: str
    completed: bool = False
    messages: list[tuple[str, dict[str, Any]]] = []


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """One prompt of the history; very old servers say nothing of its status."""

    prompt: list[Any]
    outputs: dict[str, dict[str, Any] | None] = {}
    status: StatusView | None = None


class ExecInfo(Struct, frozen=True, kw_only=True):
    """How much there is to do."""

    queue_remaining: int


class DepthAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `GET /prompt`."""

    exec_info: ExecInfo


class DeviceView(Struct, frozen=True, kw_only=True):
    """One GPU (or what takes its place)."""

    name: str = ""
    type: str = ""
    index: int | None = None
    vram_total: int | None = None
    vram_free: int | None = None


class SystemView(Struct, frozen=True, kw_only=True):
    """The machine and the software on it."""

    comfyui_version: str | None = None
    python_version: str | None = None
    pytorch_version: str | None = None
    ram_total: int | None = None


class StatsAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `/system_stats`."""

    system: SystemView
    devices: tuple[DeviceView, ...]


class NodeInfo(Struct, frozen=True, kw_only=True):
    """What `/object_info` says of a node class."""

    input: dict[str, dict[str, Any] | None] = {}
    python_module: str = "nodes"


class UploadAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `/upload/image`: the name is not always the one that was asked for."""

    name: str
    subfolder: str = ""
    type: str = "input"


class CancelledAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `/api/jobs/{id}/cancel`."""

    cancelled: bool


class SocketMessage(Struct, frozen=True, kw_only=True):
    """One text message of the socket."""

    type: str
    data: dict[str, Any] = {}

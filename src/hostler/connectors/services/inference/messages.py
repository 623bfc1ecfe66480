"""What goes to and comes from a server that speaks the Open Inference Protocol, whatever the transport."""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from hostler.connectors.services.inference.tensors import TENSORS_MAX, Scalar, Shape, TensorData, TensorName
from hostler.kernel.units import Json

INFER: Final = "inference.infer"
STREAM: Final = "inference.stream"
LOAD: Final = "inference.load"
UNLOAD: Final = "inference.unload"
GENERATE: Final = "inference.generate"

ModelName = Annotated[str, Meta(min_length=1, max_length=256)]
Version = Annotated[str, Meta(min_length=1, max_length=64)]


class InferPayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of `inference.infer` and `inference.stream`."""

    model: ModelName
    inputs: Annotated[tuple[TensorData, ...], Meta(min_length=1, max_length=TENSORS_MAX)]
    version: Version | None = None
    """The server's own choice unless set."""
    outputs: Annotated[tuple[TensorName, ...], Meta(max_length=TENSORS_MAX)] = ()
    """Tensors that the answer is to have; all of the model's unless set."""
    parameters: dict[str, Scalar] = {}


class InferResult(Struct, frozen=True, kw_only=True):
    """Result of `inference.infer`."""

    model: str
    version: str | None
    outputs: tuple[TensorData, ...]
    parameters: dict[str, Json] = {}


class StreamResult(Struct, frozen=True, kw_only=True):
    """Result of `inference.stream`: every answer of the stream, in order."""

    model: str
    version: str | None
    answers: tuple[tuple[TensorData, ...], ...]
    text: str
    """The texts of the first tensor of each answer, one after the other."""


class LoadPayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of `inference.load`."""

    model: ModelName
    parameters: dict[str, Scalar] = {}
    """As the server knows them: Triton takes `config`."""


class UnloadPayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of `inference.unload`."""

    model: ModelName
    parameters: dict[str, Scalar] = {}
    """As the server knows them: Triton takes `unload_dependents`."""


class ModelResult(Struct, frozen=True, kw_only=True):
    """Result of `inference.load` and `inference.unload`, asked of the server afterwards."""

    model: str
    ready: bool


class ModelState(StrEnum):
    """How a model is on one server."""

    READY = "ready"
    LOADING = "loading"
    """The server has it, and it does not answer yet."""
    UNAVAILABLE = "unavailable"
    """It is in the server's repository and not loaded."""
    ABSENT = "absent"
    """The server knows nothing of it, or of this version."""


class WireTensor(Struct, frozen=True, kw_only=True):
    """A tensor of an answer; without `data` it is raw behind the JSON, `binary_data_size` bytes long."""

    name: TensorName
    datatype: str
    shape: Shape
    data: Raw | UnsetType = UNSET
    parameters: dict[str, Json] | None = None


class WireAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `infer`, or one event of a stream of them; with `error` it is none, whatever its status."""

    model_name: str | None = None
    model_version: str | None = None
    id: str | None = None
    parameters: dict[str, Json] | None = None
    outputs: Annotated[tuple[WireTensor, ...], Meta(max_length=TENSORS_MAX)] | None = None
    error: Raw | UnsetType = UNSET


class ServerView(Struct, frozen=True, kw_only=True):
    """Answer of `/v2`."""

    name: str
    version: str = ""
    extensions: tuple[str, ...] = ()


class IndexRow(Struct, frozen=True, kw_only=True):
    """One model, or one version of it, in the answer of `/v2/repository/index`."""

    name: str
    version: str | None = None
    state: str | None = None
    reason: str | None = None


class ModelView(Struct, frozen=True, kw_only=True):
    """Answer of `/v2/models/{m}`."""

    name: str
    versions: tuple[str, ...] | None = None
    platform: str | None = None


class ModelNames(Struct, frozen=True, kw_only=True):
    """Answer of `/v2/models`, which KServe has in place of an index."""

    models: tuple[str, ...]


class Yes(Struct, frozen=True, kw_only=True):
    """A body that may take back what the status said."""

    ready: bool = True
    live: bool = True
    load: bool = True
    unload: bool = True

"""What goes to and comes from a server that speaks the OpenAI API."""

from typing import Final

from msgspec import UNSET, Raw, Struct, UnsetType

from hostler.connectors.chat import FinishReason, Usage


class ToolDelta(Struct, frozen=True, kw_only=True):
    """A piece of a tool call."""

    index: int = 0
    id: str | None = None
    type: str | None = None
    function: "FunctionDelta | None" = None


class FunctionDelta(Struct, frozen=True, kw_only=True):
    """A piece of a function's name and arguments."""

    name: str | None = None
    arguments: str | None = None


class Delta(Struct, frozen=True, kw_only=True):
    """A piece of a message, or a whole one: the API names them alike."""

    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    """What some servers (Ollama) call the model's thoughts; others say `reasoning_content`."""
    reasoning_content: str | None = None
    tool_calls: tuple[ToolDelta, ...] | None = None


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """One choice in a chunk (`delta`) or in a whole answer (`message`)."""

    index: int = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: FinishReason | None = None


class Chunk(Struct, frozen=True, kw_only=True):
    """A chunk of a stream, or a whole answer."""

    choices: tuple[ChunkChoice, ...] | None = None
    id: str | None = None
    model: str | None = None
    usage: Usage | None = None
    error: Raw | UnsetType = UNSET
    """A failure in mid-stream."""


class EmbedRow(Struct, frozen=True, kw_only=True):
    """One vector."""

    embedding: tuple[float, ...]
    index: int = 0


class EmbedAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `/v1/embeddings`."""

    data: tuple[EmbedRow, ...]
    model: str | None = None
    usage: Usage | None = None


LOADED: Final = "loaded"


class ModelStatus(Struct, frozen=True, kw_only=True):
    """How a model is: `loaded`, `loading`, `unloaded` and others."""

    value: str


class ModelRow(Struct, frozen=True, kw_only=True):
    """One model."""

    id: str
    status: ModelStatus | None = None
    """Only llama.cpp's router (`llama-server` without a model) says."""


class ModelList(Struct, frozen=True, kw_only=True):
    """Answer of `/v1/models`."""

    data: tuple[ModelRow, ...]

    @property
    def loaded(self) -> tuple[str, ...] | None:
        """Return the models in memory; None when the server does not say."""
        if all(row.status is None for row in self.data):
            return None
        return tuple(row.id for row in self.data if row.status is not None and row.status.value == LOADED)

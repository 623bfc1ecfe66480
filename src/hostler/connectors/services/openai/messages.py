"""What goes to and comes from a server that speaks the OpenAI API."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from hostler.kernel.units import Json

FinishReason = str
"""`stop`, `length`, `tool_calls`, `content_filter`, or another word of the server."""


class ChatPayload(Struct, frozen=True, kw_only=True):
    """Payload of `chat.complete`; any other field of the OpenAI API passes through as it is."""

    messages: Annotated[tuple[dict[str, Json], ...], Meta(min_length=1)]
    model: str | None = None
    """The connector's option `model`, else the server's own choice, unless set."""
    stream: bool = True
    """Tokens come as progress; False asks for the whole answer at once."""
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None


class EmbedPayload(Struct, frozen=True, kw_only=True):
    """Payload of `embed.create`; any other field of the OpenAI API passes through as it is."""

    input: str | Annotated[tuple[str | int | tuple[int, ...], ...], Meta(min_length=1)]
    """A text, texts, or what stands for them as token numbers."""
    model: str | None = None
    encoding_format: Literal["float"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens that were counted by the server."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class ToolFunction(Struct, frozen=True, kw_only=True):
    """The function that the model wants called; `arguments` is JSON as the model wrote it."""

    name: str = ""
    arguments: str = ""


class ToolCall(Struct, frozen=True, kw_only=True):
    """One call that the model asks for."""

    id: str = ""
    type: str = "function"
    function: ToolFunction = field(default_factory=ToolFunction)


class ChatChoice(Struct, frozen=True, kw_only=True):
    """One answer of the model."""

    text: str
    finish_reason: FinishReason
    tool_calls: tuple[ToolCall, ...] = ()


class ChatResult(Struct, frozen=True, kw_only=True):
    """Result of `chat.complete`."""

    id: str | None
    model: str | None
    text: str
    """Text of the first choice."""
    finish_reason: FinishReason
    tool_calls: tuple[ToolCall, ...]
    usage: Usage | None
    alternatives: tuple[ChatChoice, ...] = ()
    """The other choices, when more than one was asked for."""


class EmbedResult(Struct, frozen=True, kw_only=True):
    """Result of `embed.create`: one vector for each input, in order."""

    model: str | None
    vectors: tuple[tuple[float, ...], ...]
    usage: Usage | None


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


class ModelRow(Struct, frozen=True, kw_only=True):
    """One model."""

    id: str


class ModelList(Struct, frozen=True, kw_only=True):
    """Answer of `/v1/models`."""

    data: tuple[ModelRow, ...]

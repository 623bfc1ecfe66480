"""What `chat.complete` and `embed.create` take and give, whichever service answers."""

from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from hostler.kernel.units import Json, Seconds

CHAT: Final = "chat.complete"
EMBED: Final = "embed.create"
CONVERSATION: Final = ("/messages",)
"""What one conversation's jobs share: a server computes only what is new where the turns before it ran."""

FinishReason = str
"""`stop`, `length`, `tool_calls`, `content_filter`, or another word of the server."""


class ChatPayload(Struct, frozen=True, kw_only=True):
    """Payload of `chat.complete`, as the OpenAI API says it; any other field passes through to the service."""

    messages: Annotated[tuple[dict[str, Json], ...], Meta(min_length=1)]
    model: str | None = None
    """The connector's option `model`, else the server's own choice, unless set."""
    stream: bool = True
    """Tokens come as progress; False asks for the whole answer at once."""
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None


class EmbedPayload(Struct, frozen=True, kw_only=True):
    """Payload of `embed.create`, as the OpenAI API says it; any other field passes through to the service."""

    input: str | Annotated[tuple[str | int | tuple[int, ...], ...], Meta(min_length=1)]
    """A text, texts, or what stands for them as token numbers."""
    model: str | None = None
    encoding_format: Literal["float"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class PromptTokens(Struct, frozen=True, kw_only=True):
    """What the server says about the tokens of a prompt."""

    cached_tokens: int | None = None
    """Those at its beginning that were known from earlier calls, and not computed again."""


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens that were counted by the server."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptTokens | UnsetType | None = UNSET


class Timings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How long the server says that each part took."""

    load: Seconds | None = None
    """Until the model was in memory: the stage `load`."""
    prompt: Seconds | None = None
    generate: Seconds | None = None


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
    reasoning: str | None = None
    """What the model thought before it answered, where the server tells."""
    timings: Timings | None = None


class EmbedResult(Struct, frozen=True, kw_only=True):
    """Result of `embed.create`: one vector for each input, in order."""

    model: str | None
    vectors: tuple[tuple[float, ...], ...]
    usage: Usage | None
    timings: Timings | None = None

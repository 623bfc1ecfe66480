"""What goes to and comes from Ollama, and the kinds that only it has."""

from typing import Annotated, Final

from msgspec import Meta, Raw, Struct

from hostler.connectors.chat import FinishReason, Timings, Usage
from hostler.kernel.units import Bytes

GENERATE: Final = "text.generate"
PULL: Final = "model.pull"


class GeneratePayload(Struct, frozen=True, kw_only=True):
    """Payload of `text.generate`: a prompt without a conversation; any other field passes through to the service."""

    prompt: Annotated[str, Meta(min_length=1)]
    model: str | None = None
    """The connector's option `model` unless set."""
    stream: bool = True
    """Tokens come as progress; False asks for the whole answer at once."""
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None


class GenerateResult(Struct, frozen=True, kw_only=True):
    """Result of `text.generate`."""

    model: str | None
    text: str
    finish_reason: FinishReason
    usage: Usage | None
    reasoning: str | None = None
    timings: Timings | None = None


class PullPayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of `model.pull`."""

    model: Annotated[str, Meta(min_length=1, max_length=500)]
    """As Ollama names it, `name:tag`; without a tag it is `latest`."""


class PullResult(Struct, frozen=True, kw_only=True):
    """Result of `model.pull`: the model as the service lists it now."""

    model: str
    digest: str | None
    size: Bytes | None


class ToolUse(Struct, frozen=True, kw_only=True):
    """A function that the model wants called; `arguments` is a JSON object."""

    name: str = ""
    arguments: Raw = Raw(b"{}")


class ToolLine(Struct, frozen=True, kw_only=True):
    """One call that the model asks for; always whole."""

    function: ToolUse
    id: str = ""


class MessageLine(Struct, frozen=True, kw_only=True):
    """A piece of the model's message."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: tuple[ToolLine, ...] | None = None


class Line(Struct, frozen=True, kw_only=True):
    """One line of `/api/chat` or `/api/generate`; durations are nanoseconds."""

    done: bool
    model: str | None = None
    message: MessageLine | None = None
    response: str | None = None
    thinking: str | None = None
    done_reason: str | None = None
    load_duration: Annotated[int, Meta(ge=0)] | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: Annotated[int, Meta(ge=0)] | None = None
    eval_count: int | None = None
    eval_duration: Annotated[int, Meta(ge=0)] | None = None


class PullLine(Struct, frozen=True, kw_only=True):
    """One line of `/api/pull`; `total` and `completed` are bytes of the layer `digest`."""

    status: str
    digest: str | None = None
    total: Bytes | None = None
    completed: Bytes | None = None


class EmbedAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `/api/embed`."""

    embeddings: tuple[tuple[float, ...], ...]
    model: str | None = None
    load_duration: Annotated[int, Meta(ge=0)] | None = None
    prompt_eval_count: int | None = None


class ModelRow(Struct, frozen=True, kw_only=True):
    """A model that is installed, or loaded."""

    name: str
    size: Bytes | None = None
    size_vram: Bytes | None = None
    digest: str | None = None


class ModelList(Struct, frozen=True, kw_only=True):
    """Answer of `/api/tags` and of `/api/ps`."""

    models: tuple[ModelRow, ...] | None


class VersionAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `/api/version`."""

    version: str


def full_name(model: str) -> str:
    """Return a model's name with its tag: what has none is `latest`."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def all_names(model: str) -> tuple[str, ...]:
    """Return each way to write a model's name: `latest` need not be said."""
    short = model.removesuffix(":latest")
    return (model,) if short == model else (model, short)

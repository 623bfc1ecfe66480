"""The Responses API: from events, or from one object, to a result or to the failure that they spell."""

from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from hostler.connectors.chat import FinishReason, ToolCall, ToolFunction, Usage
from hostler.connectors.faults import ServiceFaultError, failure, fault, off_protocol
from hostler.connectors.services.openai.assemble import DONE, spoken_error
from hostler.connectors.transports.streams import SseEvent
from hostler.contracts.failure import FailureClass
from hostler.kernel.units import Json

RESPOND: Final = "openai.response"
_ENDS: Final = frozenset({"response.completed", "response.failed", "response.incomplete", "response.cancelled"})
T = TypeVar("T", bound=Struct)


class ResponsePayload(Struct, frozen=True, kw_only=True):
    """Payload of `openai.response`; any other field of the Responses API passes through as it is."""

    input: str | Annotated[tuple[dict[str, Json], ...], Meta(min_length=1)]
    model: str | None = None
    """The connector's option `model`, else the server's own choice, unless set."""
    stream: bool = True
    """Tokens come as progress; False asks for the whole answer at once."""
    background: bool = False
    """Only False: a job is in the background already."""
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None


class ResponseResult(Struct, frozen=True, kw_only=True):
    """Result of `openai.response`."""

    id: str | None
    model: str | None
    text: str
    """All text of all messages."""
    finish_reason: FinishReason
    """`stop`, `length`, or `tool_calls`."""
    tool_calls: tuple[ToolCall, ...]
    """Calls of functions; those of the server's own tools stand in `output`."""
    usage: Usage | None
    reasoning: str | None = None
    output: tuple[Raw, ...] = ()
    """Every item as the server wrote it."""


class Part(Struct, frozen=True, kw_only=True):
    """A part of a message, or of a reasoning."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None


class Item(Struct, frozen=True, kw_only=True):
    """One item of the output."""

    type: str
    content: tuple[Part, ...] | None = None
    summary: tuple[Part, ...] | None = None
    call_id: str | None = None
    id: str | None = None
    name: str | None = None
    arguments: str | None = None


class Details(Struct, frozen=True, kw_only=True):
    """Why an answer is incomplete."""

    reason: str | None = None


class Counted(Struct, frozen=True, kw_only=True):
    """Tokens that were counted by the server."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0


class Response(Struct, frozen=True, kw_only=True):
    """The object that a whole answer is, and that the last event carries."""

    status: str = ""
    id: str | None = None
    model: str | None = None
    output: tuple[Raw, ...] = ()
    usage: Counted | None = None
    error: Any = None
    incomplete_details: Details | None = None


class Event(Struct, frozen=True, kw_only=True):
    """One event of a stream; those of other types are passed over."""

    type: str
    delta: Any = None
    response: Raw = Raw(b"null")


class ResponseReader:
    """Follows the events of a response; the object at the end is what counts."""

    def __init__(self) -> None:
        self._end: Response | None = None

    def event(self, event: SseEvent) -> str | None:
        """Take an event and return its new text, None when it was the last; raises the failure that it spells."""
        if event.data == DONE:
            return None
        found = _decode(event.data, Event)
        if found.type == "error":
            raise spoken_error(event.data.encode())
        if found.type in _ENDS:
            self.whole(bytes(found.response))
            return None
        return found.delta if found.type == "response.output_text.delta" and isinstance(found.delta, str) else ""

    def whole(self, body: bytes) -> None:
        """Take the whole response."""
        self._end = _decode(body, Response)

    def result(self) -> ResponseResult:
        """Return the result; raises the fault of a response that failed, refuses, is cut off or is none."""
        end = self._end
        if end is None:
            raise off_protocol("the service ended its events without saying how the response ended")
        finish = _finish(end)
        items = [_decode(bytes(item), Item) for item in end.output]
        parts = [part for item in items if item.type == "message" for part in item.content or ()]
        refusal = "".join(part.refusal or "" for part in parts)
        if refusal:
            raise fault(FailureClass.REFUSED, refusal, code="refusal")
        if not items:
            raise off_protocol("the service says that the response is complete, and there is nothing in it")
        calls = tuple(_tool_call(item) for item in items if item.type == "function_call")
        thoughts = [
            part.text or "" for item in items if item.type == "reasoning" for part in item.content or item.summary or ()
        ]
        return ResponseResult(
            id=end.id,
            model=end.model,
            text="".join(part.text or "" for part in parts if part.type == "output_text"),
            finish_reason="tool_calls" if calls and finish == "stop" else finish,
            tool_calls=calls,
            usage=_usage(end.usage),
            reasoning="".join(thoughts) or None,
            output=end.output,
        )


def _finish(end: Response) -> FinishReason:
    match end.status:
        case "completed":
            return "stop"
        case "incomplete":
            reason = end.incomplete_details.reason if end.incomplete_details else None
            if reason == "content_filter":
                raise fault(
                    FailureClass.REFUSED, "the service's content filter stopped the answer", code="content_filter"
                )
            if reason in {"max_output_tokens", "max_tokens"}:
                return "length"
            raise off_protocol(f"the service gave an incomplete response, for the reason {reason}")
        case "failed" | "" if end.error is not None:
            raise spoken_error(msgspec.json.encode(end.error))
        case "cancelled":
            raise ServiceFaultError(failure(FailureClass.TRANSIENT, "the service cancelled the response"))
        case other:
            raise off_protocol(f"the service ended its answer with a response that is {other}")


def _tool_call(item: Item) -> ToolCall:
    function = ToolFunction(name=item.name or "", arguments=item.arguments or "")
    return ToolCall(id=item.call_id or item.id or "", function=function)


def _usage(counted: Counted | None) -> Usage | None:
    if counted is None:
        return None
    return Usage(
        prompt_tokens=counted.input_tokens,
        completion_tokens=counted.output_tokens,
        total_tokens=counted.total_tokens or counted.input_tokens + counted.output_tokens,
    )


def _decode(data: str | bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service sent what is not its protocol: {error}") from None

"""From the chunks of an answer to one result, or to the failure that they spell."""

from typing import Final

import msgspec
from msgspec import UNSET

from hostler.connectors.chat import ChatChoice, ChatResult, ToolCall, ToolFunction, Usage
from hostler.connectors.faults import ServiceFaultError, failure, fault, off_protocol
from hostler.connectors.services.openai.messages import Chunk, Delta
from hostler.connectors.transports.http import Codes
from hostler.connectors.transports.http_faults import words_of
from hostler.connectors.transports.streams import SseEvent
from hostler.contracts.failure import FailureClass

DONE: Final = "[DONE]"
_NOTHING: Final = Delta()
_CHUNKS: Final = msgspec.json.Decoder(Chunk)
CODES: Final[Codes] = {
    "context_length_exceeded": FailureClass.CAPABILITY_MISMATCH,
    "exceed_context_size_error": FailureClass.CAPABILITY_MISMATCH,
    "model_not_found": FailureClass.CAPABILITY_MISMATCH,
    "insufficient_quota": FailureClass.QUOTA,
    "billing_hard_limit_reached": FailureClass.QUOTA,
    "rate_limit_exceeded": FailureClass.OVERLOADED,
    "unavailable_error": FailureClass.OVERLOADED,
    "overloaded_error": FailureClass.OVERLOADED,
    "authentication_error": FailureClass.AUTH,
    "invalid_api_key": FailureClass.AUTH,
    "permission_error": FailureClass.AUTH,
    "content_filter": FailureClass.REFUSED,
    "content_policy_violation": FailureClass.REFUSED,
    "moderation_blocked": FailureClass.REFUSED,
    "image_generation_user_error": FailureClass.INVALID_INPUT,
    "not_supported_error": FailureClass.CAPABILITY_MISMATCH,
}
"""What servers write as `code` or `type`; everything else is judged by the status."""


class Assembler:
    """Puts the pieces of a chat answer together."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._id: str | None = None
        self._model: str | None = None
        self._usage: Usage | None = None

    def event(self, event: SseEvent) -> str | None:
        """Take an event and return its new text, None when it was the last; raises the failure that it spells."""
        if event.data == DONE:
            return None
        if event.event == "error":
            raise spoken_error(event.data.encode())
        return self.add(read_chunk(event.data))

    def whole(self, body: bytes) -> None:
        """Take an answer that came at once."""
        self.add(read_chunk(body))

    def add(self, chunk: Chunk) -> str:
        """Take a chunk (or a whole answer) and return the new text of the first choice.

        Raises the failure that a chunk with an error object spells.
        """
        if chunk.error is not UNSET and bytes(chunk.error) != b"null":
            raise spoken_error(bytes(chunk.error))
        if chunk.choices is None and chunk.usage is None:
            raise off_protocol("the service sent an answer without choices")
        self._id = self._id or chunk.id
        self._model = self._model or chunk.model
        self._usage = chunk.usage or self._usage
        text = ""
        for piece in chunk.choices or ():
            choice = self._choices.get(piece.index)
            if choice is None:
                choice = self._choices[piece.index] = _Choice()
            new = choice.add(piece.delta or piece.message or _NOTHING)
            choice.finish_reason = piece.finish_reason or choice.finish_reason
            if piece.index == 0:
                text += new
        return text

    @property
    def complete(self) -> bool:
        """Tell whether every choice said why it ended."""
        return bool(self._choices) and all(choice.finish_reason for choice in self._choices.values())

    def result(self) -> ChatResult:
        """Return the whole answer; raises the fault of one that is cut off, or that says no."""
        if not self.complete:
            raise off_protocol("the service ended its answer without a finish_reason")
        ordered = [choice for _, choice in sorted(self._choices.items())]
        choices = [choice.whole() for choice in ordered]
        first = choices[0]
        return ChatResult(
            id=self._id,
            model=self._model,
            text=first.text,
            finish_reason=first.finish_reason,
            tool_calls=first.tool_calls,
            usage=self._usage,
            alternatives=tuple(choices[1:]),
            reasoning=ordered[0].reasoning or None,
        )


class _Choice:
    def __init__(self) -> None:
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._thoughts: list[str] = []
        self._tools: dict[int, list[str]] = {}
        self.finish_reason: str | None = None

    def add(self, delta: Delta) -> str:
        if delta.content:
            self._text.append(delta.content)
        if delta.refusal:
            self._refusal.append(delta.refusal)
        if thought := delta.reasoning or delta.reasoning_content:
            self._thoughts.append(thought)
        for position, piece in enumerate(delta.tool_calls or ()):
            # Pieces of a stream are numbered; the calls of a whole answer are not, and stand in order.
            parts = self._tools.setdefault(piece.index or position, ["", "function", "", ""])
            parts[0] = piece.id or parts[0]
            parts[1] = piece.type or parts[1]
            if piece.function is not None:
                parts[2] = piece.function.name or parts[2]
                parts[3] += piece.function.arguments or ""
        return delta.content or ""

    @property
    def reasoning(self) -> str:
        return "".join(self._thoughts)

    def whole(self) -> ChatChoice:
        refusal = "".join(self._refusal)
        if refusal:
            raise fault(FailureClass.REFUSED, refusal, code="refusal")
        if self.finish_reason == "content_filter":
            raise fault(FailureClass.REFUSED, "the service's content filter stopped the answer", code="content_filter")
        tools = tuple(
            ToolCall(id=id_, type=type_, function=ToolFunction(name=name, arguments=arguments))
            for _, (id_, type_, name, arguments) in sorted(self._tools.items())
        )
        return ChatChoice(text="".join(self._text), finish_reason=self.finish_reason or "", tool_calls=tools)


def spoken_error(error: bytes) -> ServiceFaultError:
    """Return the fault of an error object that came under status 200; unknown codes may pass."""
    words = words_of(error)
    class_ = next((CODES[word] for word in (words.code, words.type) if word in CODES), FailureClass.TRANSIENT)
    return ServiceFaultError(
        failure(class_, words.message or "the service sent an error", code=words.code or words.type, midstream=True)
    )


def read_chunk(data: str | bytes) -> Chunk:
    """Decode one chunk."""
    try:
        return _CHUNKS.decode(data)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service sent a chunk that is not its protocol: {error}") from None

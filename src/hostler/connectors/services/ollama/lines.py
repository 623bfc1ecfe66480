"""From the lines of an answer to one result, or to the failure that they spell."""

from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct, structs

from hostler.connectors.chat import ChatResult, Timings, ToolCall, ToolFunction, Usage
from hostler.connectors.faults import ServiceFaultError, failure, fault, off_protocol
from hostler.connectors.services.ollama.messages import GenerateResult, Line, PullLine, full_name
from hostler.contracts.failure import Failure, FailureClass
from hostler.kernel.units import Seconds

T = TypeVar("T", bound=Struct)

_WORDS: Final[tuple[tuple[str, FailureClass], ...]] = (
    ("requires more system memory", FailureClass.OUT_OF_MEMORY),
    ("out of memory", FailureClass.OUT_OF_MEMORY),
    ("server busy", FailureClass.OVERLOADED),
    ("file does not exist", FailureClass.INVALID_INPUT),
    ("not found", FailureClass.CAPABILITY_MISMATCH),
    ("does not support", FailureClass.CAPABILITY_MISMATCH),
)
"""Ollama's errors have a text and no code: where the status does not decide (5xx, a line under 200), these do."""


class ErrorLine(Struct, frozen=True, kw_only=True):
    """A failure under status 200."""

    error: Any = None


def refined(known: Failure) -> Failure:
    """Return a failure with the class that its words have, where its status says nothing."""
    if known.class_ is not FailureClass.TRANSIENT or "status" not in known.details:
        return known
    return structs.replace(known, class_=_class_of(known.message))


def read_line(line: bytes, shape: type[T]) -> T:
    """Decode one line; raises the failure that it spells, or that it is not the protocol's."""
    try:
        spoken = msgspec.json.decode(line, type=ErrorLine).error
        if spoken is not None:
            words = spoken if isinstance(spoken, str) else msgspec.json.encode(spoken).decode()
            raise ServiceFaultError(failure(_class_of(words), words or "the service sent an error", midstream=True))
        return msgspec.json.decode(line, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service sent a line that is not its protocol: {error}") from None


def _class_of(words: str) -> FailureClass:
    low = words.lower()
    return next((class_ for piece, class_ in _WORDS if piece in low), FailureClass.TRANSIENT)


def judge_model(asked: str, answered: str | None) -> None:
    """Raise the fault of an answer that another model wrote; Ollama names the model as it was asked for."""
    if answered is not None and full_name(answered).lower() != full_name(asked).lower():
        raise fault(
            FailureClass.CAPABILITY_MISMATCH,
            f"the service was asked for {asked} and answered with {answered}",
            answered=answered,
        )


class Assembler:
    """Puts the lines of a chat or of a generated text together."""

    def __init__(self, model: str) -> None:
        self._asked = model
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._tools: list[ToolCall] = []
        self._last: Line | None = None

    def add(self, line: Line) -> str:
        """Take a line and return its new text; raises the fault of one that another model wrote."""
        judge_model(self._asked, line.model)
        message = line.message
        text = (message.content if message else line.response) or ""
        self._text.append(text)
        self._thoughts.append((message.thinking if message else line.thinking) or "")
        for call in (message.tool_calls if message else None) or ():
            function = ToolFunction(name=call.function.name, arguments=bytes(call.function.arguments).decode())
            self._tools.append(ToolCall(id=call.id, function=function))
        if line.done:
            self._last = line
        return text

    def chat(self, *, load: Seconds | None = None) -> ChatResult:
        """Return the whole answer; raises the fault of one that is cut off, or that is none.

        `load` is how long a load took that went before the request; else it is the service's own word.
        """
        last = self._end()
        return ChatResult(
            id=None,
            model=last.model,
            text="".join(self._text),
            finish_reason="tool_calls" if self._tools else last.done_reason or "stop",
            tool_calls=tuple(self._tools),
            usage=usage_of(last.prompt_eval_count, last.eval_count),
            reasoning="".join(self._thoughts) or None,
            timings=_timings(last, load),
        )

    def generated(self, *, load: Seconds | None = None) -> GenerateResult:
        """Return the whole text; raises as `chat`."""
        last = self._end()
        return GenerateResult(
            model=last.model,
            text="".join(self._text),
            finish_reason=last.done_reason or "stop",
            usage=usage_of(last.prompt_eval_count, last.eval_count),
            reasoning="".join(self._thoughts) or None,
            timings=_timings(last, load),
        )

    def _end(self) -> Line:
        last = self._last
        if last is None:
            raise off_protocol("the service ended its answer without a line that says that it is done")
        if last.done_reason in {"load", "unload"}:
            raise off_protocol(f"the service was asked for an answer and says that it did a {last.done_reason}")
        said = any(self._text) or any(self._thoughts) or self._tools
        if not said and not last.eval_count:
            raise off_protocol("the service says that it is done, and neither answered nor counted a token")
        return last


class PullMeter:
    """How much of a model has arrived: layers come one after the other, each with its own size."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}
        self._fraction = 0.0

    def add(self, line: PullLine) -> float | None:
        """Take a line and return the fraction, which never falls; None until a size is known."""
        if line.digest is not None and line.total:
            self._layers[line.digest] = (min(line.completed or 0, line.total), line.total)
        total = sum(whole for _, whole in self._layers.values())
        if not total:
            return None
        self._fraction = max(self._fraction, sum(done for done, _ in self._layers.values()) / total)
        return self._fraction


def seconds(nanoseconds: int | None) -> Seconds | None:
    """Return a duration as it is said here."""
    return None if nanoseconds is None else nanoseconds / 1e9


def usage_of(prompt: int | None, generated: int | None) -> Usage | None:
    """Return the counted tokens, None where nothing was counted."""
    if prompt is None and generated is None:
        return None
    return Usage(
        prompt_tokens=prompt or 0, completion_tokens=generated or 0, total_tokens=(prompt or 0) + (generated or 0)
    )


def _timings(last: Line, load: Seconds | None) -> Timings:
    return Timings(
        load=seconds(last.load_duration) if load is None else load,
        prompt=seconds(last.prompt_eval_duration),
        generate=seconds(last.eval_duration),
    )

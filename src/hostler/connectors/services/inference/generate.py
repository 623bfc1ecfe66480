"""Triton's generate extension: a text and named values in, text out, at once or piece by piece."""

import time
from collections.abc import Awaitable
from contextlib import aclosing
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from hostler.connectors.direct import Report
from hostler.connectors.faults import fault, off_protocol
from hostler.connectors.services.inference.directory import ModelDirectory, model_path
from hostler.connectors.services.inference.exchanges import AMBIGUOUS, ANSWERS_MAX, OWN_CONNECTION, REFUSED
from hostler.connectors.services.inference.messages import ModelName, Version
from hostler.connectors.services.inference.tensors import Scalar
from hostler.connectors.services.inference.work import understood
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import HttpStream, HttpTransport
from hostler.connectors.transports.http_faults import words_of
from hostler.contracts.failure import FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import Finished
from hostler.kernel.units import Bytes, Json

_KNOWN: Final = frozenset({"id", "model_name", "model_version", "text_output", "error"})


class GeneratePayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of `inference.generate`."""

    model: ModelName
    text_input: str
    version: Version | None = None
    stream: bool = True
    """Text comes as progress; False asks for one whole answer, which a model that answers in pieces refuses."""
    parameters: dict[str, Scalar] = {}
    """What the model knows: `max_tokens`, `temperature` and so on."""
    inputs: dict[Annotated[str, Meta(min_length=1, max_length=256)], Json] = {}
    """Further tensors and parameters of the model by name, beside `text_input`."""


class GenerateResult(Struct, frozen=True, kw_only=True):
    """Result of `inference.generate`."""

    model: str
    version: str | None
    text: str
    """`text_output` of every answer, one after the other."""
    outputs: dict[str, Json]
    """Everything else of the last answer."""


class Generation:
    """One request of `inference.generate`."""

    def __init__(
        self,
        http: HttpTransport,
        directory: ModelDirectory,
        stages: Stages,
        payload: GeneratePayload,
        *,
        answer_limit: Bytes,
    ) -> None:
        self._http = http
        self._directory = directory
        self._stages = stages
        self._payload = payload
        self._limit = answer_limit
        self._path = f"{model_path(payload.model, payload.version)}/generate"

    async def run(self, report: Report) -> Finished:
        """Do it; every piece of text is reported."""

        def send() -> Awaitable[list[dict[str, Json]]]:
            return self._streamed(report) if self._payload.stream else self._whole()

        async with self._stages.within(Stage.RUN):
            pieces = await understood(send, self._directory, self._payload, ambiguous=AMBIGUOUS, refused=REFUSED)
        last = pieces[-1]
        found = GenerateResult(
            model=_text(last.get("model_name")) or self._payload.model,
            version=_text(last.get("model_version")) or None,
            text="".join(_text(piece.get("text_output")) for piece in pieces),
            outputs={name: value for name, value in last.items() if name not in _KNOWN},
        )
        return Finished(result=Raw(msgspec.json.encode(found)))

    async def _whole(self) -> list[dict[str, Json]]:
        first_byte, _, _ = self._stages.left(Stage.FIRST_BYTE)
        idle, _, _ = self._stages.left(Stage.IDLE)
        async with self._http.stream(
            "POST",
            self._path,
            body=self._body(),
            headers=OWN_CONNECTION,
            first_byte=first_byte,
            silence=idle,
            limit=self._limit,
        ) as stream:
            await stream.expect("application/json")
            return [_piece(await stream.read())]

    async def _streamed(self, report: Report) -> list[dict[str, Json]]:
        since = time.monotonic()
        first_byte, _, _ = self._stages.left(Stage.FIRST_BYTE)
        async with self._http.stream(
            "POST",
            f"{self._path}_stream",
            body=self._body(),
            headers={**OWN_CONNECTION, "Accept": "text/event-stream"},
            first_byte=first_byte,
            silence=None,
            limit=self._limit,
        ) as stream:
            await stream.expect("text/event-stream")
            return await self._read(stream, report, since=since)

    async def _read(self, stream: HttpStream, report: Report, *, since: float) -> list[dict[str, Json]]:
        """Read pieces until the proper end of the body, the only end there is."""
        clock = self._stages.clock(Stage.FIRST_BYTE, since=since)
        pieces: list[dict[str, Json]] = []
        async with aclosing(stream.sse(limit=self._limit)) as events, clock:
            async for event in events:
                if len(pieces) == ANSWERS_MAX:
                    raise off_protocol(f"the service sent more than {ANSWERS_MAX} answers")
                pieces.append(_piece(event.data.encode()))
                clock.begin(Stage.IDLE)
                report(Progress(stage="generating", text=_text(pieces[-1].get("text_output")) or None))
        if not pieces:
            raise off_protocol("the service ended its stream without an answer")
        return pieces

    def _body(self) -> bytes:
        payload = self._payload
        parameters = {"parameters": payload.parameters} if payload.parameters else {}
        return msgspec.json.encode({**payload.inputs, **parameters, "text_input": payload.text_input})


def _piece(body: bytes) -> dict[str, Json]:
    """Read one answer; raises the fault of an error, which comes under status 200 once a stream has begun."""
    try:
        piece = msgspec.json.decode(body, type=dict[str, Json])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service sent an answer that is not its protocol: {error}") from None
    if piece.get("error") is not None:
        raise fault(FailureClass.TRANSIENT, words_of(body).message or "the service sent an error")
    if piece.keys() <= _KNOWN - {"text_output"}:
        raise off_protocol("the service sent an answer without outputs")
    return piece


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""

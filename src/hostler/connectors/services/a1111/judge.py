"""What the answers of a server with the API of A1111 mean: a result, or a failure with a class."""

import base64
import binascii
from typing import Final, Literal, TypeVar

import msgspec

from hostler.connectors.faults import ServiceFaultError, failure, off_protocol
from hostler.connectors.services.a1111.messages import (
    ErrorView,
    ImagesAnswer,
    ImagesResult,
    InfoView,
    MadeImage,
    ModelRow,
    UpscaleAnswer,
    UpscaleResult,
)
from hostler.connectors.transports.http import NO_CODES, Answer
from hostler.connectors.transports.http_faults import failure_of_answer
from hostler.contracts.failure import FailureClass
from hostler.contracts.preview import PREVIEW_LIMIT, Preview, preview_of

T = TypeVar("T")

UNPROCESSABLE: Final = 422
SERVER_ERROR: Final = 500

_SIGNATURES: Final[tuple[tuple[bytes, Literal["image/png", "image/jpeg", "image/webp"]], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"RIFF", "image/webp"),
)


def preview_in(url: str) -> Preview | None:
    """Return the picture in a `data:` URL; None when it is too large, or no picture."""
    text = url.rpartition(";base64,")[2]
    if len(text) > PREVIEW_LIMIT * 2:
        return None
    try:
        return preview_of(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return None


def expect(answer: Answer) -> Answer:
    """Return a 2xx answer, or raise the fault that it means."""
    if not answer.ok:
        raise fault_of(answer)
    return answer


def fault_of(answer: Answer) -> ServiceFaultError:
    """Return the fault of an answer: the exception that it names first, then its status.

    A 422 whose `detail` is a list is the schema's refusal; a 422 in words is about a script that is not
    installed here. A 500 that is an `HTTPException` (A1111's way to refuse an input) will not go away.
    """
    try:
        view = msgspec.json.decode(answer.body, type=ErrorView)
    except (msgspec.MsgspecError, UnicodeError):
        return ServiceFaultError(failure_of_answer(answer.status, answer.headers, answer.body, codes=NO_CODES))
    said = view.detail if isinstance(view.detail, str) else ""
    listed = "" if isinstance(view.detail, str) or not view.detail else msgspec.json.encode(view.detail).decode()
    words = said or view.errors or view.message or listed or view.error
    class_: FailureClass | None = None
    if view.error == "OutOfMemoryError" or (
        answer.status == SERVER_ERROR and "out of memory" in f"{view.errors} {view.message}".lower()
    ):
        class_ = FailureClass.OUT_OF_MEMORY
    elif answer.status == UNPROCESSABLE and said:
        class_ = FailureClass.CAPABILITY_MISMATCH
    elif answer.status == SERVER_ERROR and said and view.error in {"", "HTTPException"}:
        class_ = FailureClass.INVALID_INPUT
    if class_ is None:
        class_ = failure_of_answer(answer.status, answer.headers, b"", codes=NO_CODES).class_
    return ServiceFaultError(
        failure(
            class_,
            words or f"the service answered {answer.status}",
            status=answer.status,
            code=view.error or None,
        )
    )


def images_of(body: bytes, *, count: int, model: ModelRow | None) -> ImagesResult:
    """Return the result of a generation that must have made at least `count` pictures, with this checkpoint."""
    answer = _decoded(body, ImagesAnswer)
    try:
        info = msgspec.json.decode(answer.info, type=InfoView)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service's info is not its protocol: {error}") from None
    _same_model(info, model)
    first = info.index_of_first_image
    made = [_image(text) for text in answer.images]
    if len(made) - first < count:
        raise off_protocol(f"the service answered with {max(0, len(made) - first)} pictures where {count} were asked")
    images = [
        msgspec.structs.replace(
            image,
            seed=info.all_seeds[index] if index < len(info.all_seeds) else None,
            infotext=info.infotexts[index + first] if index + first < len(info.infotexts) else None,
        )
        for index, image in enumerate(made[first:])
    ]
    return ImagesResult(images=tuple(images), grid=made[0] if first else None, model=info.sd_model_name)


def upscaled(body: bytes) -> UpscaleResult:
    """Return the result of an upscaling."""
    return UpscaleResult(image=_image(_decoded(body, UpscaleAnswer).image))


def _same_model(info: InfoView, model: ModelRow | None) -> None:
    """Refuse pictures of another checkpoint: a server that lacks the one it is asked for uses what it has."""
    if model is None or info.sd_model_name is None:
        return
    if info.sd_model_name == model.model_name or (info.sd_model_hash and info.sd_model_hash == model.hash):
        return
    raise ServiceFaultError(
        failure(
            FailureClass.CAPABILITY_MISMATCH,
            f"the service made it with {info.sd_model_name} where {model.model_name} was asked for",
            made_with=info.sd_model_name,
        )
    )


def _image(text: str) -> MadeImage:
    try:
        data = base64.b64decode(text.rpartition("base64,")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise off_protocol(f"the service sent a picture that is not base64: {error}") from None
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return MadeImage(data=data, media_type=media_type)
    raise off_protocol("the service sent a picture that is neither PNG, JPEG nor WebP")


def _decoded(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise off_protocol(f"the service's answer is not its protocol: {error}") from None

"""What is a picture of our work, and what is not: decided by the bytes alone."""

import base64
import json
import struct

import pytest

from hostler.connectors.services.a1111 import judge
from hostler.connectors.services.comfyui.previews import preview_in
from hostler.contracts.preview import PREVIEW_LIMIT, preview_of

ME = "11111111-1111-5111-8111-111111111111"
PNG = b"\x89PNG\r\n\x1a\n some light"
JPEG = b"\xff\xd8\xff some light"
WEBP = b"RIFF\x0c\0\0\0WEBPVP8 "


def named(picture: bytes, metadata: object = None, *, length: int | None = None) -> bytes:
    sealed = json.dumps({"prompt_id": ME, "image_type": "image/png"} if metadata is None else metadata).encode()
    return struct.pack(">II", 4, len(sealed) if length is None else length) + sealed + picture


def plain(picture: bytes) -> bytes:
    return struct.pack(">II", 1, 2) + picture


@pytest.mark.parametrize(("data", "kind"), [(PNG, "png"), (JPEG, "jpeg"), (WEBP, "webp")])
def test_a_picture_is_what_its_own_first_bytes_say(data: bytes, kind: str) -> None:
    found = preview_of(data)
    assert found is not None
    assert (found.media_type, found.data) == (f"image/{kind}", data)


@pytest.mark.parametrize(
    "data", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>", b"GIF89a", b"RIFF\x0c\0\0\0WAVE", PNG[:7]]
)
def test_what_is_no_picture_is_not_shown(data: bytes) -> None:
    assert preview_of(data) is None


def test_a_picture_over_the_limit_is_not_shown() -> None:
    assert preview_of(PNG.ljust(PREVIEW_LIMIT, b"\0")) is not None
    assert preview_of(PNG.ljust(PREVIEW_LIMIT + 1, b"\0")) is None


def test_comfyuis_pictures_are_ours_when_they_name_our_prompt_or_none_while_it_runs() -> None:
    assert preview_in(named(PNG), ME, running=True) == preview_of(PNG)
    assert preview_in(named(JPEG), ME, running=False) == preview_of(JPEG)
    assert preview_in(plain(PNG), ME, running=True) == preview_of(PNG)


@pytest.mark.parametrize(
    "message",
    [
        named(PNG, {"prompt_id": "22222222-1111-5111-8111-111111111111"}),
        named(PNG, {}),
        named(PNG, [ME]),
        named(PNG, length=2**32 - 1),
        named(PNG, length=3),
        named(b"<html>"),
        named(PNG.ljust(PREVIEW_LIMIT + 1, b"\0")),
        plain(b"<html>"),
        struct.pack(">II", 3, 1) + b"9text",
        struct.pack(">II", 2, 2) + PNG,
        b"\0\0\0\1",
        b"",
    ],
)
def test_other_messages_of_comfyui_are_no_pictures_of_ours(message: bytes) -> None:
    assert preview_in(message, ME, running=True) is None


def test_a_picture_without_a_name_is_not_ours_before_we_run() -> None:
    assert preview_in(plain(PNG), ME, running=False) is None


def test_the_web_uis_pictures_are_data_urls() -> None:
    sealed = base64.b64encode(PNG).decode()
    assert judge.preview_in(f"data:image/png;base64,{sealed}") == preview_of(PNG)
    assert judge.preview_in(f"data:text/html;base64,{sealed}") == preview_of(PNG)  # its bytes say what it is
    for wrong in (
        "",
        "http://127.0.0.1/a.png",
        "data:image/png;base64,???",
        f"data:image/png;base64,{base64.b64encode(b'<html>').decode()}",
        f"data:image/png;base64,{'A' * 1_000_000}",
    ):
        assert judge.preview_in(wrong) is None

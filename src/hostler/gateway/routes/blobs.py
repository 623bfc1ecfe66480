"""Blobs: large inputs and results by the SHA-256 of their content."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from hostler.contracts.job import BlobRef, MediaType
from hostler.gateway.bodies import body_of
from hostler.gateway.operation import BINARY, Answer, Call, Nothing, Operation, Reply
from hostler.gateway.rooms import Rooms
from hostler.kernel.errors import InvalidError, MediaTypeError, NotFoundError, TooLargeError
from hostler.ports.blobs import Blobs


class BlobRoutes:
    """The handlers of `/v1/blobs`."""

    def __init__(self, rooms: Rooms) -> None:
        self._blobs = rooms.blobs
        self._limit = rooms.settings.blobs.limit

    async def put_blob(self, call: Call, _query: Nothing, _body: None) -> Answer:
        """Store a blob under the SHA-256 of its content; storing it again changes nothing."""
        sha256 = call.path["sha256"]
        media_type = _media_type(call)
        known = await self._blobs.size(sha256)
        size = await self._blobs.put(sha256, body_of(call.request, limit=self._limit), limit=self._limit)
        ref = BlobRef(sha256=sha256, size=size, media_type=media_type)
        return Answer(body=ref, status=201 if known is None else 200, headers={"Location": f"/v1/blobs/{sha256}"})

    async def get_blob(self, call: Call, _query: Nothing, _body: None) -> Answer:
        """Read a blob."""
        return await content_of(self._blobs, call.path["sha256"], media_type=BINARY)

    async def head_blob(self, call: Call, _query: Nothing, _body: None) -> Answer:
        """Ask whether a blob is there, and how large it is."""
        size = await _size(self._blobs, call.path["sha256"])
        return Answer(body=b"", media_type=BINARY, headers=_headers(call.path["sha256"], size))

    def operations(self) -> tuple[Operation[Any, Any], ...]:
        """Return the routes."""
        path, tag = "/v1/blobs/{sha256:str}", "blobs"
        return (
            Operation(
                method="PUT",
                path=path,
                handler=self.put_blob,
                body=bytes,
                replies={
                    201: Reply(about="It is stored.", type=BlobRef, headers=("Location",)),
                    200: Reply(about="It was there already.", type=BlobRef, headers=("Location",)),
                },
                errors=(InvalidError, TooLargeError),
                tag=tag,
            ),
            Operation(
                method="GET",
                path=path,
                handler=self.get_blob,
                replies={200: Reply(about="Its content.", media_type=BINARY, headers=("Content-Length", "ETag"))},
                errors=(NotFoundError,),
                tag=tag,
            ),
            Operation(
                method="HEAD",
                path=path,
                handler=self.head_blob,
                replies={200: Reply(about="It is there.", media_type=None, headers=("Content-Length", "ETag"))},
                errors=(NotFoundError,),
                tag=tag,
            ),
        )


def _media_type(call: Call) -> str:
    given = call.request.headers.get("content-type", BINARY)
    try:
        return msgspec.convert(given, MediaType)
    except msgspec.ValidationError as error:
        raise MediaTypeError(
            "Content-Type: expected a media type as application/json.", field="header.Content-Type"
        ) from error


async def content_of(blobs: Blobs, sha256: str, *, media_type: str) -> Answer:
    """Return the answer that streams a blob; `NotFoundError` when it is not there."""
    size = await _size(blobs, sha256)
    content: AsyncIterator[bytes] = blobs.get(sha256)
    return Answer(stream=content, media_type=media_type, headers=_headers(sha256, size))


async def _size(blobs: Blobs, sha256: str) -> int:
    size = await blobs.size(sha256)
    if size is None:
        raise NotFoundError(f"The blob {sha256} is not in the store.", sha256=sha256)
    return size


def _headers(sha256: str, size: int) -> dict[str, str]:
    return {
        "Content-Length": str(size),
        "ETag": f'"{sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": "attachment",
        "Content-Security-Policy": "sandbox",
    }

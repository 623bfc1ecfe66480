"""Pictures in and out: by reference to the blob store where there is one."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from msgspec import structs

from hostler.connectors.faults import fault
from hostler.connectors.services.a1111.messages import ImagesResult, MadeImage, Picture, UpscaleResult
from hostler.contracts.failure import FailureClass
from hostler.contracts.job import BlobRef
from hostler.kernel.errors import HostlerError, NotFoundError
from hostler.kernel.units import Bytes, Json
from hostler.ports.blobs import Blobs

PICTURE_LIMIT: Final[Bytes] = 67_108_864
"""Largest picture that is taken out of the blob store."""


class PictureStore:
    """Moves pictures between the blob store and requests."""

    def __init__(self, blobs: Blobs | None) -> None:
        self._blobs = blobs

    async def inline(self, fields: dict[str, Picture | tuple[Picture, ...] | None]) -> dict[str, Json]:
        """Return fields of a request as the server takes them, without those that are not given."""
        found: dict[str, Json] = {}
        for name, value in fields.items():
            if isinstance(value, tuple):
                found[name] = [await self._text(picture) for picture in value]
            elif value is not None:
                found[name] = await self._text(value)
        return found

    async def _text(self, picture: Picture) -> str:
        if isinstance(picture, str):
            return picture
        ref = picture.blob
        if ref.size > PICTURE_LIMIT:
            words = f"picture {ref.sha256} has {ref.size} bytes, at most {PICTURE_LIMIT} are taken"
            raise fault(FailureClass.INVALID_INPUT, words)
        if self._blobs is None:
            raise fault(FailureClass.INTERNAL, f"the payload names blob {ref.sha256}, and there is no blob store here")
        try:
            body = b"".join([part async for part in self._blobs.get(ref.sha256)])
        except NotFoundError:
            raise fault(FailureClass.INVALID_INPUT, f"picture {ref.sha256} is not in the blob store") from None
        except (HostlerError, OSError) as error:
            raise fault(FailureClass.TRANSIENT, f"the blob store fails: {error}") from error
        return base64.b64encode(body).decode()

    async def sealed(self, made: ImagesResult | UpscaleResult) -> msgspec.Raw:
        """Return a result as JSON, its pictures in the blob store if there is one."""
        match made:
            case ImagesResult():
                images = tuple([await self._kept(image) for image in made.images])
                grid = None if made.grid is None else await self._kept(made.grid)
                made = structs.replace(made, images=images, grid=grid)
            case UpscaleResult():
                made = structs.replace(made, image=await self._kept(made.image))
        return msgspec.Raw(msgspec.json.encode(made))

    async def _kept(self, image: MadeImage) -> MadeImage:
        body = image.data
        if self._blobs is None or body is None:
            return image
        name = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
        try:
            await self._blobs.put(name, _whole(body), limit=len(body))
        except (HostlerError, OSError) as error:
            raise fault(FailureClass.TRANSIENT, f"the blob store fails: {error}") from error
        blob = BlobRef(sha256=name, size=len(body), media_type=image.media_type)
        return structs.replace(image, data=None, blob=blob)


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body

"""Pictures in and out: by reference to the blob store where there is one."""

import base64
from typing import Final

import msgspec
from msgspec import structs

from hostler.connectors.services.a1111.messages import ImagesResult, MadeImage, Picture, UpscaleResult
from hostler.connectors.stored import kept, taken
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
        body = await taken(self._blobs, picture.blob, what="picture", limit=PICTURE_LIMIT)
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
        if self._blobs is None or image.data is None:
            return image
        return structs.replace(image, data=None, blob=await kept(self._blobs, image.data, image.media_type))

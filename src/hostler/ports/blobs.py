"""Where large things lie: the promises of the blob store."""

from collections.abc import AsyncIterator
from typing import Protocol

from hostler.kernel.units import Bytes


class Blobs(Protocol):
    """Content-addressed bytes: the name of a blob is the SHA-256 of its content, in lower-case hex."""

    async def put(self, sha256: str, body: AsyncIterator[bytes], *, limit: Bytes) -> Bytes:
        """Store a blob and return its size; it is there whole or not at all.

        Storing what is there already changes nothing. `InvalidError` when the content is not what the name
        says, `TooLargeError` beyond `limit`; neither leaves a trace.
        """
        ...

    def get(self, sha256: str) -> AsyncIterator[bytes]:
        """Stream a blob; `NotFoundError` before the first byte when it is not there."""
        ...

    async def size(self, sha256: str) -> Bytes | None:
        """Return its size, or None when it is not there."""
        ...

    async def delete(self, sha256: str) -> None:
        """Remove it; idempotent."""
        ...

"""Judges content while it passes by."""

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Final

from hostler.kernel.errors import InvalidError, TooLargeError
from hostler.kernel.units import Bytes

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def judged_name(sha256: str) -> str:
    """Return the name of a blob; `InvalidError` when it cannot be one, so that none ever becomes a path."""
    if not _SHA256.fullmatch(sha256):
        raise InvalidError("A blob's name is its SHA-256: 64 lower-case hex digits.", field="sha256")
    return sha256


class Weighed:
    """A stream of bytes with its size and digest so far."""

    def __init__(self, sha256: str, body: AsyncIterator[bytes], *, limit: Bytes) -> None:
        self._sha256 = sha256
        self._body = body
        self._limit = limit
        self._digest = hashlib.sha256()
        self.size: Bytes = 0

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the content; `TooLargeError` at the first byte over the limit, `InvalidError` at a wrong end."""
        async for part in self._body:
            self.size += len(part)
            if self.size > self._limit:
                raise TooLargeError(f"The blob is over {self._limit} bytes.", limit=self._limit)
            self._digest.update(part)
            yield part
        found = self._digest.hexdigest()
        if found != self._sha256:
            raise InvalidError(
                f"The content is not what its name says: its SHA-256 is {found}.", field="sha256", found=found
            )

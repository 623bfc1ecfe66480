"""The promises of the blob store as tests: subclass `BlobsConformance` and give it a `blobs` fixture."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from hostler.kernel.errors import InvalidError, NotFoundError, TooLargeError
from hostler.ports.blobs import Blobs

LIMIT = 64 * 1024 * 1024


def name_of(content: bytes) -> str:
    """Return the name under which a content is stored."""
    return hashlib.sha256(content).hexdigest()


async def in_pieces(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    """Yield a content piece by piece, as it comes from a socket."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def cut_off(content: bytes) -> AsyncIterator[bytes]:
    """Yield half of a content, then fail as a broken connection does."""
    yield content[: len(content) // 2]
    raise ConnectionResetError


async def whole(blobs: Blobs, name: str) -> bytes:
    """Return the content of a blob."""
    return b"".join([part async for part in blobs.get(name)])


class BlobsConformance:
    """Every store of blobs passes these; content of 20 MB makes an upload in several parts."""

    @pytest.mark.parametrize("size", [0, 1, 262_145, 8_388_608, 20_000_000])
    async def test_what_was_stored_comes_back_byte_for_byte(self, blobs: Blobs, size: int) -> None:
        """A blob of any size is what it was."""
        content = (bytes(range(256)) * (size // 256 + 1))[:size]
        assert await blobs.put(name_of(content), in_pieces(content), limit=LIMIT) == size
        assert await blobs.size(name_of(content)) == size
        assert await whole(blobs, name_of(content)) == content

    async def test_storing_again_changes_nothing(self, blobs: Blobs) -> None:
        """Put is idempotent."""
        for _ in range(2):
            assert await blobs.put(name_of(b"twice"), in_pieces(b"twice"), limit=LIMIT) == 5
        assert await whole(blobs, name_of(b"twice")) == b"twice"

    async def test_content_that_is_not_what_its_name_says_leaves_no_trace(self, blobs: Blobs) -> None:
        """A wrong digest is refused, also when a blob of that name is there."""
        name = name_of(b"truth")
        with pytest.raises(InvalidError):
            await blobs.put(name, in_pieces(b"a lie"), limit=LIMIT)
        assert await blobs.size(name) is None
        await blobs.put(name, in_pieces(b"truth"), limit=LIMIT)
        with pytest.raises(InvalidError):
            await blobs.put(name, in_pieces(b"a lie"), limit=LIMIT)
        assert await whole(blobs, name) == b"truth"

    @pytest.mark.parametrize("size", [11, 9_000_000])
    async def test_content_over_the_limit_leaves_no_trace(self, blobs: Blobs, size: int) -> None:
        """One byte too many is refused; exactly the limit is not."""
        content = b"x" * size
        with pytest.raises(TooLargeError):
            await blobs.put(name_of(content), in_pieces(content), limit=size - 1)
        assert await blobs.size(name_of(content)) is None
        assert await blobs.put(name_of(content), in_pieces(content), limit=size) == size

    @pytest.mark.parametrize("size", [11, 20_000_000])
    async def test_an_upload_that_is_cut_off_leaves_no_trace(self, blobs: Blobs, size: int) -> None:
        """A blob is there whole or not at all."""
        content = b"y" * size
        with pytest.raises(ConnectionResetError):
            await blobs.put(name_of(content), cut_off(content), limit=LIMIT)
        assert await blobs.size(name_of(content)) is None

    async def test_a_blob_that_is_not_there_is_not_found_before_its_first_byte(self, blobs: Blobs) -> None:
        """Nothing is invented for an unknown name."""
        assert await blobs.size(name_of(b"nobody")) is None
        with pytest.raises(NotFoundError):
            await anext(blobs.get(name_of(b"nobody")))

    async def test_deleting_is_idempotent(self, blobs: Blobs) -> None:
        """What is deleted is gone; deleting it again is no error."""
        await blobs.put(name_of(b"gone"), in_pieces(b"gone"), limit=LIMIT)
        for _ in range(2):
            await blobs.delete(name_of(b"gone"))
        assert await blobs.size(name_of(b"gone")) is None

    async def test_many_may_store_the_same_at_the_same_time(self, blobs: Blobs) -> None:
        """Racing uploads of one content all succeed and leave one blob."""
        content = b"race" * 50_000
        stored = await asyncio.gather(*(blobs.put(name_of(content), in_pieces(content), limit=LIMIT) for _ in range(8)))
        assert set(stored) == {len(content)}
        assert await whole(blobs, name_of(content)) == content

    @pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
    async def test_a_name_that_is_no_digest_is_refused(self, blobs: Blobs, name: str) -> None:
        """No name ever becomes a path of its own."""
        with pytest.raises(InvalidError):
            await blobs.put(name, in_pieces(b""), limit=LIMIT)
        with pytest.raises(InvalidError):
            await blobs.size(name)

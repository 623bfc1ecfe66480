"""Blobs in a bucket of S3, or of anything that speaks its protocol."""

import contextlib
import importlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from hostler.blobs.digest import Weighed, judged_name
from hostler.kernel.errors import MissingExtraError, NotFoundError, ServiceUnavailableError, SettingsError
from hostler.kernel.units import Bytes, Seconds

PART: Final[Bytes] = 8_388_608
"""Size of one part of an upload; a smaller blob is sent whole."""
CHUNK: Final[Bytes] = 262_144
CONNECT: Final[Seconds] = 5.0
READ: Final[Seconds] = 60.0
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})


class Bucket(NamedTuple):
    """Where the blobs are."""

    name: str
    prefix: str
    endpoint: str | None
    region: str | None


def bucket_of(url: str) -> Bucket:
    """Return the bucket of `s3://bucket/prefix?endpoint=http://host:port&region=name`; `SettingsError`."""
    parts = urlsplit(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(set(query) - {"endpoint", "region"})
    if parts.scheme != "s3" or not parts.netloc or unknown or parts.username is not None:
        raise SettingsError(
            "blobs.url: expected s3://bucket/prefix?endpoint=URL&region=NAME; credentials come from the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), not from the URL.",
            field="blobs.url",
            problems=tuple(unknown),
        )
    prefix = unquote(parts.path).strip("/")
    return Bucket(
        name=parts.netloc,
        prefix=f"{prefix}/" if prefix else "",
        endpoint=query.get("endpoint", [None])[0],
        region=query.get("region", [None])[0],
    )


class S3Blobs:
    """Implements `ports.blobs.Blobs` in one bucket. `S3Blobs.open` makes it."""

    def __init__(self, client: Any, bucket: Bucket) -> None:
        self._client = client
        self._bucket = bucket

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncGenerator["S3Blobs"]:
        """Connect to the bucket of an `s3://` URL; `SettingsError`, `MissingExtraError`, `ServiceUnavailableError`."""
        bucket = bucket_of(url)
        try:
            session: Any = importlib.import_module("aiobotocore.session")
            config: Any = importlib.import_module("aiobotocore.config")
        except ImportError as error:
            raise MissingExtraError("Blobs on S3 need an extra; run: pip install 'hostler[s3]'.", extra="s3") from error
        limits = config.AioConfig(connect_timeout=CONNECT, read_timeout=READ, retries={"max_attempts": 3})
        making = session.get_session().create_client(
            "s3", endpoint_url=bucket.endpoint, region_name=bucket.region, config=limits
        )
        async with contextlib.AsyncExitStack() as stack:
            with _mapped():
                client = await stack.enter_async_context(making)
                await client.head_bucket(Bucket=bucket.name)
            yield cls(client, bucket)

    async def put(self, sha256: str, body: AsyncIterator[bytes], *, limit: Bytes) -> Bytes:
        """Store a blob and return its size."""
        key = self._key(sha256)
        known = await self.size(sha256)
        weighed = Weighed(sha256, body, limit=limit)
        if known is not None:
            async for _ in weighed.parts():
                pass
            return weighed.size
        parts = _in_parts(weighed.parts())
        first = await anext(parts, b"")
        second = await anext(parts, None) if len(first) == PART else None
        with _mapped():
            if second is None:
                await self._client.put_object(Bucket=self._bucket.name, Key=key, Body=first)
            else:
                await self._put_parts(key, _chained(first, second, parts))
        return weighed.size

    async def _put_parts(self, key: str, parts: AsyncIterator[bytes]) -> None:
        place: dict[str, Any] = {"Bucket": self._bucket.name, "Key": key}
        begun = await self._client.create_multipart_upload(**place)
        place["UploadId"] = begun["UploadId"]
        done: list[dict[str, Any]] = []
        try:
            async for part in parts:
                number = len(done) + 1
                answer = await self._client.upload_part(**place, PartNumber=number, Body=part)
                done.append({"PartNumber": number, "ETag": answer["ETag"]})
            await self._client.complete_multipart_upload(**place, MultipartUpload={"Parts": done})
        except BaseException:  # whatever went wrong, what was sent must not stay
            await self._client.abort_multipart_upload(**place)
            raise

    async def get(self, sha256: str) -> AsyncIterator[bytes]:
        """Stream a blob."""
        with _mapped(sha256):
            answer = await self._client.get_object(Bucket=self._bucket.name, Key=self._key(sha256))
            async with answer["Body"] as content:
                while part := await content.read(CHUNK):
                    yield part

    async def size(self, sha256: str) -> Bytes | None:
        """Return its size, or None when it is not there."""
        try:
            with _mapped(sha256):
                found = await self._client.head_object(Bucket=self._bucket.name, Key=self._key(sha256))
        except NotFoundError:
            return None
        return int(found["ContentLength"])

    async def delete(self, sha256: str) -> None:
        """Remove it."""
        with _mapped():
            await self._client.delete_object(Bucket=self._bucket.name, Key=self._key(sha256))

    def _key(self, sha256: str) -> str:
        return self._bucket.prefix + judged_name(sha256)


async def _in_parts(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the content in parts of exactly `PART` bytes, the last one shorter."""
    held = bytearray()
    async for piece in body:
        held += piece
        while len(held) >= PART:
            yield bytes(held[:PART])
            del held[:PART]
    if held:
        yield bytes(held)


async def _chained(first: bytes, second: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    yield second
    async for part in rest:
        yield part


@contextlib.contextmanager
def _mapped(sha256: str | None = None) -> Generator[None]:
    """Turn the library's exceptions into ours."""
    errors: Any = importlib.import_module("botocore.exceptions")
    try:
        yield
    except errors.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if sha256 is not None and code in _MISSING:
            raise NotFoundError(f"The blob {sha256} is not in the store.", sha256=sha256) from error
        raise ServiceUnavailableError(f"The blob store refused: {error}.", cause=code) from error
    except (errors.BotoCoreError, errors.HTTPClientError, OSError) as error:
        raise ServiceUnavailableError(f"The blob store does not answer: {error}.") from error

"""Files of jobs in the blob store: taken out for a service, kept by their content when a service made them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from hostler.connectors.faults import fault
from hostler.contracts.failure import FailureClass
from hostler.contracts.job import BlobRef
from hostler.kernel.errors import HostlerError, NotFoundError
from hostler.kernel.units import Bytes
from hostler.ports.blobs import Blobs


async def taken(blobs: Blobs | None, ref: BlobRef, *, what: str, limit: Bytes) -> bytes:
    """Return the content of a blob that a payload names; `what` is how failures call it.

    `ServiceFaultError`: `invalid_input` for one that is too large or not there, `transient` for a store that fails,
    `internal` where there is no store.
    """
    if ref.size > limit:
        words = f"{what} {ref.sha256} has {ref.size} bytes, at most {limit} are taken"
        raise fault(FailureClass.INVALID_INPUT, words)
    if blobs is None:
        raise fault(FailureClass.INTERNAL, f"the payload names blob {ref.sha256}, and there is no blob store here")
    try:
        return b"".join([part async for part in blobs.get(ref.sha256)])
    except NotFoundError:
        raise fault(FailureClass.INVALID_INPUT, f"{what} {ref.sha256} is not in the blob store") from None
    except (HostlerError, OSError) as error:
        raise fault(FailureClass.TRANSIENT, f"the blob store fails: {error}") from error


async def kept(blobs: Blobs, body: bytes, media_type: str) -> BlobRef:
    """Keep what a service made and return its reference; `transient` when the store fails."""
    name = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
    try:
        await blobs.put(name, _whole(body), limit=len(body))
    except (HostlerError, OSError) as error:
        raise fault(FailureClass.TRANSIENT, f"the blob store fails: {error}") from error
    return BlobRef(sha256=name, size=len(body), media_type=media_type)


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body

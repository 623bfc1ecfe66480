"""Reading what never changes of a job, also when it cannot be read."""

from typing import Final

import msgspec

from hostler.broker.records import Envelope, unpack_envelope
from hostler.contracts.failure import Failure, FailureClass

UNREADABLE: Final = "(unreadable)"
"""Kind under which a job is shown whose envelope cannot be read; nothing can be submitted under it, for it is no
name."""
FAILURE: Final = Failure(
    class_=FailureClass.INTERNAL,
    message="what the engine keeps of this job cannot be read; its payload shows the stored bytes as they are",
)


def read_envelope(sealed: bytes) -> Envelope:
    """Decode an envelope; the bytes of one that cannot be read are its payload, verbatim, as a Latin-1 JSON string."""
    try:
        return unpack_envelope(sealed)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Envelope(UNREADABLE, msgspec.json.encode(sealed.decode("latin-1")))

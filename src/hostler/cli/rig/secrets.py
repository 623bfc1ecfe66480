"""Secrets that a rig's processes work with, and the search for them in all that those leave behind."""

import contextlib
import hashlib
import itertools
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from hostler.chaos.record import Text
from hostler.client.wire import Wire
from hostler.kernel.errors import GatewayUnavailableError
from hostler.kernel.units import Bytes

KEY_VARIABLE: Final = "CHAOS_SERVICE_KEY"
"""Where workers and gateways find the credential of the simulated services."""
USER: Final = "rig"
"""As whom they speak to the engine."""
CHUNK: Final[Bytes] = 1_048_576
SEARCHED_MOST: Final[Bytes] = 1_073_741_824
"""Of one file."""
ROUNDS: Final = 10
"""How often all gateways are asked what they show; each is tried several times in one."""
AROUND: Final[Bytes] = 200
"""Shown before and behind a secret that was found."""
BYTES: Final = 18
"""Of chance in one."""


class Canaries(Struct, frozen=True, kw_only=True):
    """One run's secrets: they must stand nowhere but in the header of its history."""

    service_key: str
    engine_password: str

    @classmethod
    def drawn(cls) -> "Canaries":
        """Draw new ones."""
        return cls(service_key=secrets.token_urlsafe(BYTES), engine_password=secrets.token_urlsafe(BYTES))

    def all(self) -> tuple[str, ...]:
        """Return all of them."""
        return (self.service_key, self.engine_password)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process that calls services has to know."""
        return {KEY_VARIABLE: self.service_key}

    @property
    def login(self) -> str:
        """User and password in a URL of the engine for a process of the rig."""
        return f"{USER}:{self.engine_password}"

    @property
    def engine_user(self) -> tuple[str, ...]:
        """The words of the engine's setting `user` that lets those in; whoever looks on needs none.

        The password stands in them as its hash: they are written into the engine's own files.
        """
        return (USER, "on", f"#{hashlib.sha256(self.engine_password.encode()).hexdigest()}", "~*", "&*", "+@all")


SHOWN: Final = (
    "metrics",
    "readyz",
    "v1/jobs",
    "v1/limits",
    "v1/openapi.json",
    "v1/queues",
    "v1/services",
    "v1/workers",
)
"""What a gateway shows to whoever asks."""


async def shown(urls: Sequence[str]) -> tuple[Text, ...]:
    """Return what a gateway shows, page by page: the first that answers, for one may still be on its way back.

    `GatewayUnavailableError` when none does for a while.
    """
    for url in itertools.chain.from_iterable(itertools.repeat(urls, ROUNDS - 1)):
        with contextlib.suppress(GatewayUnavailableError):
            return await _shown(url)
    return await _shown(urls[0])


async def _shown(url: str) -> tuple[Text, ...]:
    async with Wire.open(url, None) as wire:
        return tuple([Text(source=path, text=(await wire.read_bytes(path)).decode()) for path in SHOWN])


def searched(files: Iterable[Path], canaries: Canaries) -> Iterator[Text]:
    """Yield for each file where a secret stands in it, or that none does; files that are gone are left out."""
    needles = [secret.encode() for secret in canaries.all()]
    overlap = max(map(len, needles)) - 1
    for file in files:
        size, tail, found = 0, b"", False
        try:
            with file.open("rb") as stream:
                while size < SEARCHED_MOST and (chunk := stream.read(CHUNK)):
                    size += len(chunk)
                    text = tail + chunk
                    for needle in needles:
                        if (at := text.find(needle)) >= 0:
                            found = True
                            shown = text[max(0, at - AROUND) : at + len(needle) + AROUND]
                            yield Text(source=file.name, text=shown.decode(errors="replace"))
                    tail = text[-overlap:]
        except FileNotFoundError:
            continue
        if not found:
            yield Text(source=file.name, text=f"{size} bytes were searched for secrets")

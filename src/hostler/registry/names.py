"""Where a name leads: service records, or addresses; by the machine's resolver, or by servers that are named."""

import asyncio
import importlib
import socket
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from hostler.kernel.errors import MissingExtraError, ServiceUnavailableError
from hostler.kernel.units import Seconds

LIMIT: Final[Seconds] = 3.0
"""Longest wait for an answer."""


class Target(NamedTuple):
    """One place."""

    host: str
    port: int | None
    """None where the name gives addresses only."""


class Names:
    """Asks for names; `nameservers` are `HOST:PORT`, none for the machine's own resolver."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        self._nameservers = tuple(nameservers)

    async def targets(self, name: str) -> tuple[Target, ...]:
        """Return every place of a name, sorted: of a name that begins with `_` its service records, else addresses.

        Empty when the name is there and leads nowhere; `ServiceUnavailableError` when nobody can say.
        """
        service = name.startswith("_")
        if not service and not self._nameservers:
            return await _by_the_machine(name)
        resolver = self._resolver()
        if service:
            records = await _ask(resolver, name, "SRV")
            return tuple(sorted({Target(str(one.target).rstrip("."), int(one.port)) for one in records}))
        found = [*await _ask(resolver, name, "A"), *await _ask(resolver, name, "AAAA")]
        return tuple(sorted({Target(str(one.address), None) for one in found}))

    def _resolver(self) -> Any:
        dns = _dns()
        resolver = dns.asyncresolver.Resolver(configure=not self._nameservers)
        if self._nameservers:
            pairs = (one.rpartition(":") for one in self._nameservers)
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(host.strip("[]"), int(port)) for host, _, port in pairs
            ]
        resolver.lifetime = LIMIT
        return resolver


def _dns() -> Any:
    try:
        importlib.import_module("dns.asyncresolver")
        importlib.import_module("dns.nameserver")
        return importlib.import_module("dns")
    except ImportError as error:
        raise MissingExtraError("following a name needs the extra dns: pip install 'hostler[dns]'") from error


async def _by_the_machine(name: str) -> tuple[Target, ...]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LIMIT):
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        raise ServiceUnavailableError(f"the name {name} is not answered: {error}", name=name) from error
    return tuple(sorted({Target(str(address[0]), None) for *_, address in found}))


async def _ask(resolver: Any, name: str, kind: str) -> list[Any]:
    dns = _dns()
    try:
        return list(await resolver.resolve(name, kind))
    except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
        return []
    except (dns.exception.DNSException, OSError) as error:
        raise ServiceUnavailableError(f"the name {name} is not answered: {error}", name=name) from error

"""Sentinels: which server is the primary of a service, asked of all who watch it."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Final, cast

import msgspec
import structlog
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from hostler.kernel.errors import EngineDeniedError, EngineUnavailableError, HostlerError, SettingsError
from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds
from hostler.valkeyio.client import make_client, make_pool, send
from hostler.valkeyio.connections import Address
from hostler.valkeyio.faults import mapped
from hostler.valkeyio.safety import Watch
from hostler.valkeyio.urls import SentinelUrl, place_text

_ANSWER: Final[Seconds] = 1.0

_log = structlog.get_logger(__name__)


class Found(Struct, frozen=True, kw_only=True):
    """What one sentinel says of the primary."""

    asked: Address
    primary: Address
    epoch: int
    """Of the configuration: it rises with every fail-over."""
    down: bool
    watch: Watch


class Sentinels:
    """Asks the sentinels of one URL; each has one connection, and a second to answer."""

    def __init__(self, settings: EngineSettings, target: SentinelUrl) -> None:
        quick = msgspec.structs.replace(settings, connect_timeout=_ANSWER, command_timeout=_ANSWER)
        self.target = target
        self._clients: Mapping[Address, Redis] = {
            place: make_client(make_pool(quick, target.sentinel(place), name="hostler-sentinels", limit=1))
            for place in target.places
        }
        self._turn = 0
        self._epoch = -1
        self._told: Found | None = None
        """What `check` heard of another primary, until it was followed."""

    async def find(self, *, failed: Address | None = None) -> Found:
        """Return where the primary is by the latest configuration that any of them knows; rather not at `failed`.

        `SettingsError` when those that answer know no such service, `EngineUnavailableError` when none of them
        answers, `EngineDeniedError` when they want a password.
        """
        answers = await asyncio.gather(*(self._try(place) for place in self.target.places))
        found = [answer for answer in answers if isinstance(answer, Found)]
        if not found:
            raise self._none([answer for answer in answers if not isinstance(answer, Found)])
        told, self._told = [self._told] if self._told else [], None
        best = max(found + told, key=lambda one: (one.epoch, one.primary != failed, not one.down))
        self._epoch = max(self._epoch, best.epoch)
        watch = msgspec.structs.replace(
            best.watch, named=len(answers), answering=len(found), trouble=await self._trouble(best.asked)
        )
        return msgspec.structs.replace(best, watch=watch)

    async def find_instead(self, failed: Address, failure: HostlerError) -> Address:
        """Return where the primary is now that this one failed; an error of ours when they know no other yet."""
        found = await self.find(failed=failed)
        if not found.down:
            return found.primary
        where = place_text(found.primary)
        what = f"the primary {where} of {self.target.service} is down"
        if found.watch.trouble:
            raise EngineUnavailableError(
                f"{what}, and its sentinels can choose no other until more of them run: {found.watch.trouble} "
                f"({failure.message})",
                primary=where,
            )
        raise EngineUnavailableError(f"{what}; its sentinels are choosing another ({failure.message})", primary=where)

    async def check(self, primary: Address) -> None:
        """Ask one of them, in turn; `EngineUnavailableError` when it knows of a later primary than this one."""
        self._turn = (self._turn + 1) % len(self.target.places)
        found = await self._try(self.target.places[self._turn])
        if isinstance(found, Found) and found.epoch >= self._epoch and found.primary != primary:
            self._told = found
            raise EngineUnavailableError(
                f"{place_text(primary)} is no longer the primary of {self.target.service}: it is "
                f"{place_text(found.primary)}"
            )

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            with contextlib.suppress(OSError), mapped():
                await client.aclose()

    async def _try(self, place: Address) -> Found | HostlerError:
        try:
            return await self._ask(place)
        except HostlerError as error:
            return error

    async def _ask(self, place: Address) -> Found:
        client, service = self._clients[place], self.target.service
        with mapped():
            try:
                words = cast("Sequence[bytes]", await send(client, "SENTINEL", "MASTER", service))
            except ResponseError as error:
                if "no such master" not in str(error).lower():
                    raise
                raise await self._unknown(place) from error
            # Another command: it names the new primary as soon as it is chosen, `MASTER` only once all is done.
            host, port = cast("Sequence[bytes]", await send(client, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service))
        facts = {name.decode(): value.decode() for name, value in zip(words[::2], words[1::2], strict=True)}
        return Found(
            asked=place,
            primary=(host.decode(), int(port)),
            epoch=int(facts["config-epoch"]),
            down="_down" in facts["flags"] and facts["ip"] == host.decode() and facts["port"] == port.decode(),
            watch=Watch(
                service=service,
                primary=place_text((host.decode(), int(port))),
                sentinels=int(facts["num-other-sentinels"]) + 1,
                quorum=int(facts["quorum"]),
                down_after=int(facts["down-after-milliseconds"]) / 1000,
            ),
        )

    async def _trouble(self, place: Address) -> str:
        """Return why no fail-over is possible, in the words of one of them; empty when it is, or nobody says."""
        try:
            with mapped():
                await send(self._clients[place], "SENTINEL", "CKQUORUM", self.target.service)
        except HostlerError as error:
            said = str(error.__cause__)
            return said if said.startswith("NOQUORUM") else ""
        return ""

    async def _unknown(self, place: Address) -> SettingsError:
        masters = cast("Sequence[Sequence[bytes]]", await send(self._clients[place], "SENTINEL", "MASTERS"))
        names = ", ".join(sorted(words[1].decode() for words in masters)) or "none"
        message = (
            f"the sentinel {place_text(place)} watches no service {self.target.service!r}, but: {names}; put the name "
            "of one of them at the end of the engine's URL"
        )
        return SettingsError(message, field="engine.url", problems=(message,))

    def _none(self, failures: Sequence[HostlerError]) -> HostlerError:
        for kind in (SettingsError, EngineDeniedError):
            if of_kind := [failure for failure in failures if isinstance(failure, kind)]:
                return of_kind[0]
        places = ", ".join(map(place_text, self.target.places))
        return EngineUnavailableError(
            f"none of the sentinels {places} answers: start them, or correct their addresses ({failures[0].message})"
        )

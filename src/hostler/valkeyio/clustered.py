"""How the engine is reached where a cluster keeps it: pools to each primary, and a map of who has which slot."""

import asyncio
import random
import time
from collections.abc import Sequence
from itertools import chain
from typing import Final

import structlog

from hostler.kernel.errors import EngineDeniedError, EngineUnavailableError, HostlerError
from hostler.kernel.settings import EngineSettings
from hostler.kernel.units import Seconds
from hostler.valkeyio.client import PoolUsage
from hostler.valkeyio.connections import Address, Route
from hostler.valkeyio.safety import Facts, Verdict
from hostler.valkeyio.safety_cluster import Member, judge_cluster
from hostler.valkeyio.slots import NOTHING, SlotMap, merged, slot_of
from hostler.valkeyio.spread import Spread
from hostler.valkeyio.urls import ClusterUrl, place_text
from hostler.valkeyio.views import Views
from hostler.valkeyio.ways import Straight

_EVERY: Final[Seconds] = 15.0
"""How old the map may be, without any sign that it is wrong."""
_ASKED_MOST: Final = 16
"""So many nodes are asked for their map."""

_log = structlog.get_logger(__name__)


class Clustered:
    """Leads to all primaries of a cluster.

    A primary that does not answer counts as an engine that is down, until another has its slots; calls for the
    slots of the others go on meanwhile.
    """

    def __init__(self, settings: EngineSettings, target: ClusterUrl, role: str) -> None:
        self._settings = settings
        self._target = target
        self._role = role
        self._views = Views(settings, target)
        self._map: SlotMap = NOTHING
        self._owners: list[Address | None] = list(NOTHING.owners)
        self._straights: dict[Address, Straight] = {}
        self._retired: set[Straight] = set()
        self._away: dict[Address, HostlerError] = {}
        self._looked = 0.0
        self._doubted = True
        self._news: tuple[Address, ...] = ()
        """Primaries that nobody has judged yet."""
        self.client: Spread = Spread(self, lambda address: self._straight(address).client)
        self.blocking: Spread = Spread(self, lambda address: self._straight(address).blocking)

    def pools(self) -> dict[str, PoolUsage]:
        """Return the numbers of the pools, summed over all primaries."""
        each = [straight.pools() for straight in self._straights.values()]
        return {name: _sum([pools[name] for pools in each]) for name in ("calls", "client", "blocking")}

    def owner_of(self, key: str | bytes) -> Address:
        """Return which primary has a key's slot.

        One that is known not to answer is not asked: that would cost each call its whole time limit, and who goes
        from queue to queue all of them.
        """
        slot = slot_of(key)
        owner = self._owners[slot]
        if owner is None:
            self._doubted = True
            raise EngineUnavailableError(
                f"no node of the cluster has slot {slot}, so its queues stand still",
                executed=False,
                server=f"slot {slot}",
            )
        if owner in self._away:
            place = place_text(owner)
            raise EngineUnavailableError(
                f"{place} does not answer, so the queues of slot {slot} stand still", executed=False, server=place
            )
        return owner

    def moved(self, key: str | bytes, address: Address) -> None:
        """Take note of a node's word that another has this key's slot now."""
        self._owners[slot_of(key)] = address
        self._doubted = True

    def doubt(self) -> None:
        """Ask for the map with the next look."""
        self._doubted = True

    def primaries(self) -> Sequence[Address]:
        """Return all of them: those that answer, or all that are known when none does."""
        known = tuple(self._map.primaries)
        return tuple(address for address in known if address not in self._away) or known

    async def begin(self) -> None:
        """Ask the nodes of the URL for the map."""
        await self._refresh()
        self._news = ()

    async def ask(self) -> None:
        """Ask each primary for a word, and for the map when it is old or in doubt."""
        if self._doubted or time.monotonic() - self._looked > _EVERY:
            await self._refresh()
        await self._probe()
        if self._away:
            raise self._who_is_away()
        if self._news:
            raise EngineUnavailableError(f"{_list(self._news)} has taken over slots of the cluster")

    async def heal(self, failure: HostlerError) -> None:
        """Ask for the map; what waits on a primary that is none any more fails at once."""
        _log.debug("asking for the cluster's map", reason=failure.message)
        await self._refresh()
        self._news = ()

    async def judged(self) -> tuple[Verdict, str]:
        """Judge every primary by what it says of itself, and the cluster by what they have in common."""
        answers = await asyncio.gather(*(self._facts(address) for address in self._map.primaries))
        denied = [answer for answer in answers if isinstance(answer, EngineDeniedError)]
        failed = [answer for answer in answers if isinstance(answer, HostlerError)]
        if denied or len(failed) == len(answers):
            raise (denied or failed)[0]
        members = [
            Member(
                place=place_text(address),
                slots=self._map.slots_of(address),
                facts=answer if isinstance(answer, Facts) else None,
                replicas=len(primary.replicas),
            )
            for (address, primary), answer in zip(self._map.primaries.items(), answers, strict=True)
        ]
        products = sorted({member.facts.product for member in members if member.facts is not None})
        return judge_cluster(members, uncovered=self._map.uncovered), ", ".join(products)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._views.aclose()
        for straight in (*self._straights.values(), *self._retired):
            await straight.aclose()

    def _straight(self, address: Address) -> Straight:
        found = self._straights.get(address)
        if found is None:
            url = self._target.node(address)
            found = self._straights[address] = Straight(self._settings, url, self._role, Route(address))
        return found

    async def _refresh(self) -> None:
        """Learn who has which slot; connections to those that have none any more are broken."""
        self._doubted = False
        self._looked = time.monotonic()
        try:
            views = await self._views.look(self._places())
        except HostlerError:
            self._doubted = True
            raise
        found = merged(views)
        if not found.primaries:
            raise EngineUnavailableError("no node of the cluster has slots: form the cluster first")
        new = tuple(address for address in found.primaries if address not in self._map.primaries)
        if new and self._map is not NOTHING:
            _log.info("cluster has other primaries", new=_list(new))
        self._map, self._owners, self._news = found, list(found.owners), (*self._news, *new)
        for address in self._straights.keys() - found.primaries.keys():
            straight = self._straights.pop(address)
            straight.cut()
            self._retired.add(straight)
            self._away.pop(address, None)
        for straight in [straight for straight in self._retired if not straight.busy]:
            await straight.aclose()
            self._retired.discard(straight)

    def _places(self) -> tuple[Address, ...]:
        """Return who is asked for the map: primaries, nodes of the URL, replicas; not those that did not answer."""
        replicas = list(chain(*(primary.replicas for primary in self._map.primaries.values())))
        random.shuffle(replicas)
        known = dict.fromkeys((*self._map.primaries, *self._target.places, *replicas))
        return tuple(place for place in known if place not in self._away)[:_ASKED_MOST] or tuple(known)[:_ASKED_MOST]

    async def _probe(self) -> None:
        primaries = self._map.primaries
        answers = await asyncio.gather(*(self._answer(address) for address in primaries))
        cut_off = EngineUnavailableError("the other nodes of the cluster cannot reach it")
        self._away = {
            address: error or cut_off for address, error in answers if error is not None or primaries[address].failed
        }
        for address in self._away:
            self._doubted = True
            self._straight(address).wake()

    async def _answer(self, address: Address) -> tuple[Address, HostlerError | None]:
        try:
            await self._straight(address).ask()
        except HostlerError as error:
            return address, error
        return address, None

    async def _facts(self, address: Address) -> Facts | HostlerError:
        try:
            return await self._straight(address).facts()
        except HostlerError as error:
            return error

    def _who_is_away(self) -> HostlerError:
        error = next(iter(self._away.values()))
        who = "; ".join(f"{place_text(address)} (slots {self._map.slots_of(address)})" for address in self._away)
        replaced = all(
            self._map.primaries[address].replicas for address in self._away if address in self._map.primaries
        )
        until = "until a replica takes over" if replaced else "until it comes back, for no replica of it is up"
        return type(error)(
            f"of the cluster {who} does not answer: queues there stand still {until}, the others go on "
            f"({error.message})",
            **error.facts,
        )


def _sum(usages: Sequence[PoolUsage]) -> PoolUsage:
    return PoolUsage(
        limit=sum(usage.limit for usage in usages),
        in_use=sum(usage.in_use for usage in usages),
        idle=sum(usage.idle for usage in usages),
        waiting=sum(usage.waiting for usage in usages),
        waits=sum(usage.waits for usage in usages),
        waited=sum(usage.waited for usage in usages),
        refused=sum(usage.refused for usage in usages),
    )


def _list(addresses: Sequence[Address]) -> str:
    return ", ".join(map(place_text, addresses))

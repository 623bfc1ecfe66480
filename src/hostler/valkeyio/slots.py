"""Who has which slots of a cluster: what each of its nodes says, and what holds where they differ."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, cast

import msgspec
from msgspec import Struct
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from hostler.valkeyio.connections import Address

SLOTS: Final = REDIS_CLUSTER_HASH_SLOTS


class Primary(Struct, frozen=True, kw_only=True):
    """A node that has slots."""

    id: str
    address: Address
    epoch: int
    """Of its configuration: it rises whenever it takes slots over from another."""
    failed: bool
    """Its peers agreed that it is down."""
    ranges: tuple[tuple[int, int], ...]
    """First and last slot of each range."""
    replicas: tuple[Address, ...]
    """Those that are up."""


class View(Struct, frozen=True, kw_only=True):
    """What one node says of its cluster."""

    myself: str
    """Its own id."""
    primaries: tuple[Primary, ...]


class SlotMap(Struct, frozen=True, kw_only=True):
    """Who has which slot."""

    owners: tuple[Address | None, ...]
    """By slot; None for one that nobody has."""
    primaries: Mapping[Address, Primary]
    """Those that have any, as they or others told of them."""

    def slots_of(self, address: Address) -> str:
        """Return the slots of a primary for people, as `0-99, 200-299`."""
        found: list[str] = []
        for owner, run in groupby(enumerate(self.owners), key=lambda item: item[1]):
            slots = [slot for slot, _ in run]
            if owner == address:
                found.append(f"{slots[0]}-{slots[-1]}" if len(slots) > 1 else str(slots[0]))
        return ", ".join(found)

    @property
    def uncovered(self) -> int:
        """How many slots nobody has."""
        return self.owners.count(None)


NOTHING: Final = SlotMap(owners=(None,) * SLOTS, primaries={})


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key: that of its hash tag, where it has one."""
    return key_slot(key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key)


def read_view(asked: Address, slots: Sequence[Any], nodes: str) -> View:
    """Read what a node answered to `CLUSTER SLOTS` (addresses as clients should use them) and `CLUSTER NODES`."""
    lines = {words[0]: words for words in map(str.split, nodes.splitlines()) if len(words) > _EPOCH}
    ranges: dict[str, list[tuple[int, int]]] = {}
    places: dict[str, tuple[Address, tuple[Address, ...]]] = {}
    for first, last, *rows in slots:
        (address, id_), *others = (_place(asked, row) for row in rows)
        places[id_] = address, tuple(replica for replica, _ in others)
        ranges.setdefault(id_, []).append((int(first), int(last)))
    return View(
        myself=next((id_ for id_, words in lines.items() if "myself" in words[_FLAGS].split(",")), ""),
        primaries=tuple(
            Primary(
                id=id_,
                address=address,
                epoch=int(lines[id_][_EPOCH]) if id_ in lines else 0,
                failed=id_ in lines and "fail" in lines[id_][_FLAGS].split(","),
                ranges=tuple(ranges[id_]),
                replicas=replicas,
            )
            for id_, (address, replicas) in places.items()
        ),
    )


_FLAGS, _EPOCH = 2, 6
"""Places in a line of `CLUSTER NODES`."""


def _place(asked: Address, row: Sequence[Any]) -> tuple[Address, str]:
    host, port, id_ = row[:3]
    # Nothing, or a question mark, stands where a node does not know its own name: it is the one that was asked.
    name = cast("bytes | None", host) or b"?"
    return (asked[0] if name == b"?" else name.decode(), int(port)), cast("bytes", id_).decode()


def merged(views: Iterable[View]) -> SlotMap:
    """Return who has which slot by all that was said: a node knows best what it has, and the later epoch wins."""
    found = tuple(views)
    asked = {view.myself for view in found}
    claims = sorted(_claims(found, asked), key=lambda primary: primary.epoch)
    owners: list[Primary | None] = [None] * SLOTS
    for primary in claims:
        for first, last in primary.ranges:
            owners[first : last + 1] = [primary] * (last + 1 - first)
    down = {primary.id for view in found for primary in view.primaries if primary.failed}
    kept = {primary.address: primary for primary in owners if primary is not None}
    return SlotMap(
        owners=tuple(primary and primary.address for primary in owners),
        primaries={
            address: msgspec.structs.replace(primary, failed=primary.id in down) for address, primary in kept.items()
        },
    )


def _claims(views: Iterable[View], asked: set[str]) -> Iterator[Primary]:
    for view in views:
        for primary in view.primaries:
            if primary.id == view.myself or primary.id not in asked:
                yield primary

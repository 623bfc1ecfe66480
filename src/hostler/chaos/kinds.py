"""Every way in which a rig is broken: what it strikes, how long, and what it does."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from hostler.kernel.units import Seconds


class Part(StrEnum):
    """What can be struck."""

    WORKER = "worker"
    GATEWAY = "gateway"
    ENGINE = "engine"
    """A server that stands alone."""
    PRIMARY = "primary"
    """The server that sentinels have chosen of three."""
    SENTINEL = "sentinel"
    LINK = "link"
    """The way of one worker or gateway to the engine."""
    CLOCK = "clock"
    """The wall clock of one worker."""
    MACHINE = "machine"
    """A worker, a gateway and a service that stand and fall together."""
    SERVICE = "service"
    SERVICE_LINK = "service-link"
    """The way of all workers to one service."""


class Kind(StrEnum):
    """One way to break a part."""

    WORKER_KILL = "worker_kill"
    WORKER_STOP = "worker_stop"
    GATEWAY_KILL = "gateway_kill"
    GATEWAY_STOP = "gateway_stop"
    ENGINE_KILL = "engine_kill"
    ENGINE_STOP = "engine_stop"
    ENGINE_RESTART = "engine_restart"
    POWER_CUT = "power_cut"
    DISK_FULL = "disk_full"
    CLOCK_JUMP = "clock_jump"
    MACHINE_DEAD = "machine_dead"
    LINK_SLOW = "link_slow"
    LINK_NARROW = "link_narrow"
    LINK_LOST = "link_lost"
    LINK_ONE_WAY = "link_one_way"
    LINK_RESET = "link_reset"
    LINK_CUT = "link_cut"
    SERVICE_LINK_SLOW = "service_link_slow"
    SERVICE_LINK_LOST = "service_link_lost"
    SERVICE_LINK_RESET = "service_link_reset"
    SERVICE_SLOW = "service_slow"
    SERVICE_LIES = "service_lies"
    SERVICE_ERRORS = "service_errors"
    PRIMARY_KILL = "primary_kill"
    PRIMARY_STOP = "primary_stop"
    PRIMARY_PARTED = "primary_parted"
    PRIMARY_LOST = "primary_lost"
    SENTINEL_KILL = "sentinel_kill"


class Row(Struct, frozen=True, kw_only=True):
    """What there is to know about one kind."""

    part: Part
    least: Seconds
    most: Seconds
    """How long it lasts; both 0 for what is over at once."""
    about: str


KINDS: Final[Mapping[Kind, Row]] = MappingProxyType(
    {
        Kind.WORKER_KILL: Row(part=Part.WORKER, least=0, most=0, about="SIGKILL; started again as an operator would"),
        Kind.WORKER_STOP: Row(part=Part.WORKER, least=3, most=14, about="SIGSTOP, later SIGCONT"),
        Kind.GATEWAY_KILL: Row(part=Part.GATEWAY, least=0, most=0, about="SIGKILL; started again at its address"),
        Kind.GATEWAY_STOP: Row(part=Part.GATEWAY, least=2, most=8, about="SIGSTOP, later SIGCONT"),
        Kind.ENGINE_KILL: Row(part=Part.ENGINE, least=1, most=6, about="SIGKILL, started again after a while"),
        Kind.ENGINE_STOP: Row(part=Part.ENGINE, least=1, most=6, about="SIGSTOP, later SIGCONT"),
        Kind.ENGINE_RESTART: Row(part=Part.ENGINE, least=1, most=3, about="asked to end, started again"),
        Kind.POWER_CUT: Row(
            part=Part.ENGINE, least=1, most=4, about="SIGKILL, and of its files only what was synced is left"
        ),
        Kind.DISK_FULL: Row(part=Part.ENGINE, least=1, most=4, about="no room where its files lie"),
        Kind.CLOCK_JUMP: Row(part=Part.CLOCK, least=3, most=14, about="the wall clock is an hour off, and back"),
        Kind.MACHINE_DEAD: Row(
            part=Part.MACHINE, least=3, most=14, about="worker, gateway and service freeze together, die, start anew"
        ),
        Kind.LINK_SLOW: Row(part=Part.LINK, least=3, most=12, about="up to a second each way"),
        Kind.LINK_NARROW: Row(part=Part.LINK, least=3, most=12, about="a few KiB a second"),
        Kind.LINK_LOST: Row(part=Part.LINK, least=2, most=14, about="nothing comes through, then all of it late"),
        Kind.LINK_ONE_WAY: Row(part=Part.LINK, least=2, most=14, about="one direction is lost"),
        Kind.LINK_RESET: Row(part=Part.LINK, least=0, most=4, about="connections are reset, new ones too"),
        Kind.LINK_CUT: Row(part=Part.LINK, least=2, most=8, about="each connection is reset after a few KiB"),
        Kind.SERVICE_LINK_SLOW: Row(part=Part.SERVICE_LINK, least=3, most=12, about="up to a second each way"),
        Kind.SERVICE_LINK_LOST: Row(part=Part.SERVICE_LINK, least=2, most=14, about="nothing comes through"),
        Kind.SERVICE_LINK_RESET: Row(part=Part.SERVICE_LINK, least=0, most=4, about="connections are reset"),
        Kind.SERVICE_SLOW: Row(part=Part.SERVICE, least=3, most=12, about="runs take many times as long"),
        Kind.SERVICE_LIES: Row(
            part=Part.SERVICE, least=3, most=12, about="ends are not said, streams are cut, health is denied"
        ),
        Kind.SERVICE_ERRORS: Row(part=Part.SERVICE, least=3, most=12, about="bursts of 5xx, failed runs"),
        Kind.PRIMARY_KILL: Row(
            part=Part.PRIMARY, least=4, most=10, about="SIGKILL; it comes back when another may have taken over"
        ),
        Kind.PRIMARY_STOP: Row(part=Part.PRIMARY, least=4, most=10, about="SIGSTOP, later SIGCONT"),
        Kind.PRIMARY_PARTED: Row(
            part=Part.PRIMARY, least=1, most=4, about="it loses its replicas, and they stand still meanwhile"
        ),
        Kind.PRIMARY_LOST: Row(
            part=Part.PRIMARY,
            least=1,
            most=4,
            about="what it writes reaches no replica any more, and then it dies: what it alone knew is lost",
        ),
        Kind.SENTINEL_KILL: Row(part=Part.SENTINEL, least=1, most=6, about="SIGKILL, started again after a while"),
    }
)

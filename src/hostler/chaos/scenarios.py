"""Named runs: each failure that this system was built against, and what the run must show."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from msgspec import Struct

from hostler.chaos.kinds import Kind
from hostler.chaos.load import IMAGES, JOBS_A_SECOND, MIXED, QUEUE, Group
from hostler.chaos.record import Bounds
from hostler.chaos.shows import (
    Show,
    all_good_work_ends,
    another_took_over,
    crowds_are_answered,
    good_work_passes_the_unservable,
    innocents_live,
    nothing_done_is_missed,
    one_at_a_time,
    poison_dies,
    retries_are_few_and_apart,
    taken_back,
    the_full_queue_says_when,
    work_waits_for_a_pause,
)
from hostler.kernel.units import Seconds

_PLAIN: Final[Mapping[Group, float]] = MappingProxyType({Group.IMAGE: 0.6, Group.WORK: 0.4})
_IMAGES: Final[Mapping[Group, float]] = MappingProxyType({Group.IMAGE: 1.0})


OVERLAPPING: Final = Bounds(recovery_p99=45.0, recovery_most=45.0)
"""Of runs in which faults overlap, and those of the engine add one lease of grace."""
SINGLE: Final = Bounds()
"""What is promised of any single crash."""


class Scenario(Struct, frozen=True, kw_only=True):
    """What a run is made of."""

    name: str
    about: str
    shows: tuple[Show, ...] = ()
    """What must be seen in its history, beside that every invariant held."""
    seconds: Seconds = 60.0
    """Unless told."""
    kinds: tuple[Kind, ...] = tuple(Kind)
    """What may break."""
    mix: Mapping[Group, float] = MIXED
    rate: float = JOBS_A_SECOND
    """Jobs a second."""
    poison: int = 0
    head: int = 0
    waves: int | None = None
    duration: Seconds = 1.2
    """Longest run of a service."""
    slots: int = 6
    knobs: Mapping[str, Any] = MappingProxyType({})
    """Of the services, all the time."""
    spacing: Seconds | None = None
    """One fault in so many seconds; without it they come close, and overlap."""
    pauses: tuple[str, ...] = ()
    """Queues that an operator pauses and lets go on."""
    depth: int = 500
    """Of each queue: a submit beyond it is told to come back."""
    engine: Literal["alone", "sentinel"] = "alone"
    """One server, or a primary with two replicas and three sentinels."""
    bounds: Bounds = OVERLAPPING


_ALL: Final = (
    Scenario(
        name="mixed",
        about="work of every sort, and whatever can break here",
        shows=(work_waits_for_a_pause, all_good_work_ends),
        poison=1,
        pauses=(QUEUE, IMAGES),
    ),
    Scenario(
        name="stuck-flag",
        about="workers go while they hold jobs: nothing stays marked as taken",
        shows=(taken_back, work_waits_for_a_pause, all_good_work_ends),
        kinds=(Kind.WORKER_KILL, Kind.WORKER_STOP, Kind.LINK_LOST),
        pauses=(QUEUE, IMAGES),
        mix=_PLAIN,
        duration=5.0,
    ),
    Scenario(
        name="missed-completion",
        about="services end runs without a word: what was done is recorded all the same",
        shows=(nothing_done_is_missed, all_good_work_ends),
        kinds=(Kind.SERVICE_LIES, Kind.SERVICE_LINK_LOST, Kind.SERVICE_LINK_RESET),
        mix=_IMAGES,
        knobs=MappingProxyType({"missed_rate": 0.15, "drop_rate": 0.1}),
    ),
    Scenario(
        name="instant-result",
        about="runs are over before anybody looks, often without a word: each is recorded, and only once",
        shows=(nothing_done_is_missed, all_good_work_ends),
        kinds=(Kind.SERVICE_LIES, Kind.SERVICE_LINK_RESET, Kind.GATEWAY_KILL),
        mix=MappingProxyType({Group.INSTANT: 1.0}),
        knobs=MappingProxyType({"missed_rate": 0.3}),
    ),
    Scenario(
        name="three-jobs",
        about="workers have one slot and the line is long: none ever holds two jobs",
        shows=(one_at_a_time, work_waits_for_a_pause, all_good_work_ends),
        pauses=(QUEUE,),
        kinds=(Kind.WORKER_STOP, Kind.ENGINE_RESTART, Kind.LINK_SLOW),
        mix=MappingProxyType({Group.WORK: 1.0}),
        rate=4.0,
        slots=1,
    ),
    Scenario(
        name="dead-machine",
        about="worker, gateway and service of one machine go together: the others take over",
        shows=(taken_back, all_good_work_ends),
        kinds=(Kind.MACHINE_DEAD, Kind.LINK_ONE_WAY, Kind.WORKER_KILL),
        mix=_PLAIN,
        duration=5.0,
    ),
    Scenario(
        name="single-crash",
        about="one thing crashes at a time, and the next long after: what it held goes on within 15 s, all within 30 s",
        shows=(all_good_work_ends,),
        seconds=240.0,
        kinds=(Kind.WORKER_KILL, Kind.GATEWAY_KILL, Kind.ENGINE_KILL, Kind.MACHINE_DEAD),
        mix=_PLAIN,
        rate=4.0,
        duration=5.0,
        spacing=60.0,
        bounds=SINGLE,
    ),
    Scenario(
        name="fail-over",
        about="the primary dies, hangs, loses its replicas or what they did not get: another takes over within 10 s",
        shows=(another_took_over, all_good_work_ends),
        kinds=(
            Kind.PRIMARY_KILL,
            Kind.PRIMARY_STOP,
            Kind.PRIMARY_LOST,
            Kind.PRIMARY_PARTED,
            Kind.SENTINEL_KILL,
        ),
        seconds=150.0,
        mix=_PLAIN,
        rate=4.0,
        spacing=30.0,
        engine="sentinel",
        bounds=SINGLE,
    ),
    Scenario(
        name="thundering-herd",
        about="crowds come at once, and everybody comes back at once when the engine does",
        shows=(crowds_are_answered, the_full_queue_says_when, all_good_work_ends),
        kinds=(Kind.ENGINE_KILL, Kind.ENGINE_RESTART, Kind.GATEWAY_KILL),
        mix=_PLAIN,
        waves=3,
        depth=12,
    ),
    Scenario(
        name="poison",
        about="jobs kill the worker that runs them: they die of it, and the rest goes on",
        shows=(poison_dies, innocents_live, all_good_work_ends),
        kinds=(Kind.SERVICE_SLOW, Kind.LINK_SLOW, Kind.GATEWAY_STOP),
        mix=_PLAIN,
        rate=4.0,
        poison=2,
    ),
    Scenario(
        name="retry-storm",
        about="services fail much of what they get: retries are bounded, apart, and end",
        shows=(retries_are_few_and_apart,),
        kinds=(Kind.SERVICE_ERRORS, Kind.SERVICE_LINK_RESET, Kind.SERVICE_SLOW),
        mix=_IMAGES,
        knobs=MappingProxyType({"burst_rate": 0.02, "failures": {"internal_error": 0.15}}),
    ),
    Scenario(
        name="unservable-head",
        about="jobs that nobody can run stand first in line: all others pass them",
        shows=(good_work_passes_the_unservable, all_good_work_ends),
        kinds=(Kind.WORKER_KILL, Kind.GATEWAY_KILL, Kind.ENGINE_RESTART),
        mix=_PLAIN,
        head=100,
    ),
)

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType({one.name: one for one in _ALL})
"""By name."""

"""A fact about a job or queue, with an offset that has no gaps."""

from msgspec import Struct

from hostler.contracts.job import JobState
from hostler.kernel.units import Instant, Json


class Event(Struct, frozen=True, kw_only=True):
    """One fact; `type` is a verb of the life table, or a queue's own (`pause`, `unworkable`, ...)."""

    offset: int
    """Its place in the stream: integers from 1 without gaps, within one epoch."""
    at: Instant
    type: str
    job: str | None
    """None for a fact about the queue."""
    state: JobState | None = None
    """Set on moves only."""
    attempt: int | None = None
    worker: str | None = None
    data: dict[str, Json] = {}


class Life(Struct, frozen=True, kw_only=True):
    """One epoch of a stream: it begins when another server takes over, or a backup is restored."""

    epoch: int
    after: int
    """The offset that it goes on behind: what an earlier epoch told beyond it is lost, and its offsets come again."""


class Timeline(Struct, frozen=True, kw_only=True):
    """What happened to one job, in order."""

    events: tuple[Event, ...]
    complete: bool
    """False when the engine no longer keeps the oldest of them."""
    epoch: int = 1
    """Of the stream that they are from."""
    lives: tuple[Life, ...] = ()
    """The last epochs of that stream, oldest first."""
    stream: str = ""
    """Whose offsets these are: the job's queue, or its shard of that."""

    def shared(self, epoch: int) -> int | None:
        """Return up to which offset an earlier epoch told what this one tells; None where all of it still stands."""
        if self.lives and epoch < self.lives[0].epoch:
            return 0  # so many have begun since that nobody knows
        return min((life.after for life in self.lives if life.epoch > epoch), default=None)


class Page(Struct, frozen=True, kw_only=True):
    """A stretch of one stream."""

    stream: str
    epoch: int
    events: tuple[Event, ...]
    next: int
    """Read on from this offset."""
    gap: bool = False
    """The offset asked for is no longer kept: what lies between is lost to this reader."""

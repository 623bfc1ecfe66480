"""Progress, previews, remote ids, checkpoints on their way to the broker: coalesced per job, batched per shard."""

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec
import structlog
from msgspec import UNSET, Raw

from hostler.contracts.job import Progress
from hostler.contracts.lease import LeaseRef, Update
from hostler.contracts.preview import PREVIEW_EVERY, Preview
from hostler.kernel.errors import HostlerError
from hostler.kernel.units import Seconds
from hostler.policy.sharding import shard_of
from hostler.ports.broker import Broker
from hostler.ports.clock import Clock, Dice
from hostler.worker.patience import passing, pause

_LOG = structlog.stdlib.get_logger("hostler.worker.reports")

BATCH = 256
"""Most updates of one call."""
PICTURES = 16
"""Most previews of one call."""
TEXT_LIMIT = 65_536
"""Characters of streamed text that wait for one report; what is over that loses its beginning."""


def merge(older: Progress | None, newer: Progress) -> Progress:
    """Return both as one: the newer wins field by field, text is appended, the fraction never falls."""
    if older is None:
        return newer
    text = newer.text if older.text is None else older.text + (newer.text or "")
    fractions = [each for each in (older.fraction, newer.fraction) if each is not None]
    return Progress(
        fraction=max(fractions, default=None),
        stage=newer.stage if newer.stage is not None else older.stage,
        message=newer.message if newer.message is not None else older.message,
        eta_s=newer.eta_s if newer.eta_s is not None else older.eta_s,
        text=text if text is None else text[-TEXT_LIMIT:],
        preview=newer.preview if newer.preview is not None else older.preview,
    )


class _Track:
    """What waits to be said about one lease."""

    def __init__(self, ref: LeaseRef) -> None:
        self.ref = ref
        self.progress: Progress | None = None
        self.remote: tuple[str, str] | None = None
        self.checkpoint: Raw | None = None
        self.preview: Preview | None = None
        self.previews = 0
        self.preview_due = 0.0
        self.best = 0.0
        self.sent_at: float | None = None
        self.flying = False
        self.waiters: list[asyncio.Future[None]] = []

    @property
    def dirty(self) -> bool:
        """Tell whether anything waits that is worth waiting for: nobody waits for a picture."""
        return self.progress is not None or self.remote is not None or self.checkpoint is not None

    def take(self, *, picture: bool) -> Update:
        remote, endpoint = self.remote or (None, None)
        preview = None
        if picture:
            preview, self.preview = self.preview, None
            self.previews += 1
            self.progress = msgspec.structs.replace(self.progress or Progress(), preview=self.previews)
        update = Update(
            job_id=self.ref.job_id,
            fence=self.ref.fence,
            progress=self.progress,
            remote=remote,
            remote_endpoint=endpoint,
            checkpoint=UNSET if self.checkpoint is None else self.checkpoint,
            preview=preview,
        )
        self.progress = self.remote = self.checkpoint = None
        self.flying = True
        return update

    def wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()

    def put_back(self, update: Update) -> None:
        if update.progress is not None:
            self.progress = update.progress if self.progress is None else merge(update.progress, self.progress)
        if self.remote is None and update.remote is not None:
            self.remote = (update.remote, update.remote_endpoint or "")
        if self.checkpoint is None:
            self.checkpoint = update.checkpoint or None
        self.preview = self.preview or update.preview


class Reporters:
    """One `Reports` for each shard: those on one server of a cluster may have to wait, and no others with them."""

    def __init__(
        self,
        broker: Broker,
        worker: str,
        *,
        interval: Seconds,
        clock: Clock,
        dice: Dice,
        stale: Callable[[LeaseRef], None],
    ) -> None:
        self._make = partial(Reports, broker, worker, interval=interval, clock=clock, dice=dice, stale=stale)
        self._reports: dict[str, Reports] = {}
        self._new = asyncio.Event()

    def of(self, job_id: str) -> "Reports":
        """Return those of the shard that a job lies in."""
        shard = shard_of(job_id)
        found = self._reports.get(shard)
        if found is None:
            found = self._reports[shard] = self._make()
            self._new.set()
        return found

    async def run(self) -> None:
        """Send what is due, until cancelled; raises what broke one of them."""
        running: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                self._new.clear()
                for shard in sorted(self._reports.keys() - running.keys()):
                    running[shard] = asyncio.create_task(self._reports[shard].run(), name=f"reports of {shard}")
                more = asyncio.create_task(self._new.wait(), name="a shard more")
                try:
                    await asyncio.wait({more, *running.values()}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    more.cancel()
                for task in running.values():
                    if task.done():
                        task.result()
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)


class Reports:
    """Sends at most one progress report per lease and interval; `stale` is told of leases that are no longer ours."""

    def __init__(
        self,
        broker: Broker,
        worker: str,
        *,
        interval: Seconds,
        clock: Clock,
        dice: Dice,
        stale: Callable[[LeaseRef], None],
    ) -> None:
        self._broker = broker
        self._worker = worker
        self._interval = interval
        self._clock = clock
        self._dice = dice
        self._stale = stale
        self._tracks: dict[LeaseRef, _Track] = {}
        self._dirty: dict[LeaseRef, _Track] = {}
        self._wake = asyncio.Event()

    def open(self, ref: LeaseRef) -> None:
        """Begin to take reports under this lease."""
        self._tracks[ref] = _Track(ref)

    def close(self, ref: LeaseRef) -> None:
        """Forget this lease and what it had not said yet."""
        self._dirty.pop(ref, None)
        if (track := self._tracks.pop(ref, None)) is not None:
            track.wake()

    def progress(self, ref: LeaseRef, progress: Progress) -> None:
        """Note progress; never waits. After `close` it is ignored."""
        if (track := self._tracks.get(ref)) is None:
            return
        if progress.fraction is not None:
            track.best = max(track.best, progress.fraction)
            progress = msgspec.structs.replace(progress, fraction=track.best)
        track.progress = merge(track.progress, progress)
        self._mark(track)

    def preview(self, ref: LeaseRef, preview: Preview) -> None:
        """Note how the work looks; never waits. At most one a second is sent, the latest. Not after `close`."""
        if (track := self._tracks.get(ref)) is not None:
            track.preview = preview
            self._mark(track)

    def checkpoint(self, ref: LeaseRef, value: Raw) -> None:
        """Note a checkpoint; never waits. It is sent in order, at once."""
        if (track := self._tracks.get(ref)) is not None:
            track.checkpoint = value
            self._mark(track)

    async def remote(self, ref: LeaseRef, remote: str, endpoint: str) -> None:
        """Store the service's id of the work; returns when the broker has it, or the lease is closed."""
        if (track := self._tracks.get(ref)) is not None:
            track.remote = (remote, endpoint)
            self._mark(track)
            await self.flush(ref)

    async def flush(self, ref: LeaseRef) -> None:
        """Return when all that was said so far under this lease is with the broker."""
        track = self._tracks.get(ref)
        if track is None or not (track.dirty or track.flying):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        track.waiters.append(waiter)
        if track.dirty:
            self._mark(track)
        await waiter

    async def run(self) -> None:
        """Send what is due, until cancelled; waits out an engine that does not answer."""
        failures = 0
        while True:
            due = self._due()
            if not due:
                await self._rest()
                continue
            batch = [(track, track.take(picture=shows)) for track, shows in due]
            try:
                stale = await self._broker.progress(self._worker, [update for _, update in batch])
            except HostlerError as error:
                if passing(error):
                    self._put_back(batch)
                    await asyncio.sleep(pause(failures, self._dice))
                    failures += 1
                    continue
                stale = await self._each(batch)
            failures = 0
            now = self._clock.monotonic()
            for track, update in batch:
                track.sent_at, track.flying = now, False
                if update.preview is not None:
                    track.preview_due = now + PREVIEW_EVERY
                if not track.dirty:
                    track.wake()
            for ref in stale:
                self._stale(ref)

    async def _each(self, batch: list[tuple[_Track, Update]]) -> list[LeaseRef]:
        """Send one by one, since one of them spoilt the batch; only that one is dropped, and said to be."""
        stale: list[LeaseRef] = []
        for track, update in batch:
            try:
                stale.extend(await self._broker.progress(self._worker, [update]))
            except HostlerError as error:
                if passing(error):
                    self._put_back([(track, update)])
                else:
                    _LOG.error("a report was refused", job=track.ref.job_id, why=error.message)
        return stale

    def _put_back(self, batch: list[tuple[_Track, Update]]) -> None:
        for track, update in batch:
            track.flying = False
            track.put_back(update)
            if track.ref in self._tracks:
                self._dirty[track.ref] = track
            else:
                track.wake()

    def _mark(self, track: _Track) -> None:
        self._dirty[track.ref] = track
        self._wake.set()

    def _ready_at(self, track: _Track) -> float:
        if not track.dirty:
            return max(track.preview_due, (track.sent_at or 0.0) + self._interval)
        if track.sent_at is None or track.waiters or track.checkpoint is not None:
            return 0.0
        return track.sent_at + self._interval

    def _due(self) -> list[tuple[_Track, bool]]:
        """Return what is to be said now, and of which the picture is to be shown; the rest stays."""
        now, pictures = self._clock.monotonic(), 0
        due: list[tuple[_Track, bool]] = []
        for track in self._dirty.values():
            if len(due) == BATCH:
                break
            shows = track.preview is not None and track.preview_due <= now and pictures < PICTURES
            if self._ready_at(track) <= now and (track.dirty or shows):
                due.append((track, shows))
                pictures += shows
        for track, shows in due:
            if shows or track.preview is None:
                del self._dirty[track.ref]
        return due

    async def _rest(self) -> None:
        self._wake.clear()
        wait: float | None = None
        if self._dirty:
            now = self._clock.monotonic()
            wait = max(0.001, min(self._ready_at(track) for track in self._dirty.values()) - now)
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            return

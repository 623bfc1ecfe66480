"""What a submit is judged by before anything is stored: all that can be known without the queue's counters."""

from typing import Final

from hostler.broker.engine_submit import NamedLane, Prepared, named_lane, prepare
from hostler.broker.records import pack
from hostler.contracts.job import INLINE_LIMIT, JobRequest
from hostler.contracts.queue import KindSpec, QueueSpec
from hostler.kernel.errors import InvalidError, TooLargeError
from hostler.policy.matching import problems
from hostler.registry.kinds import Kinds
from hostler.valkeyio.instants import micros

_PRIORITY_MAX: Final = 100
_LANES_KEPT: Final = 4096
"""Ways to write needs whose lanes are remembered; then it begins anew."""


class Intake:
    """Judges requests one by one."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._lanes: dict[bytes, NamedLane] = {}

    async def admit(self, request: JobRequest, *, now: int | None) -> tuple[QueueSpec, Prepared]:
        """Return the queue's row and the encoded job; raises what the port promises, with the field.

        `now` is the engine's clock in microseconds, needed when a deadline is given.
        """
        rows = self._kinds.fresh()  # most submits need nothing else, and so wait for nothing
        kind = rows.kinds.get(request.kind) if rows else None
        if kind is None or kind.planned:
            kind = await self._kinds.kind(request.kind)
        queue = rows.queues.get(request.queue or kind.queue) if rows else None
        if queue is None:
            queue = await self._kinds.queue(request.queue or kind.queue)
        _judge_times(request, now)
        lane = self._lane(request)
        self._judge_payload(request, kind)
        return queue, prepare(request, kind, lane)

    def _lane(self, request: JobRequest) -> NamedLane:
        """Judge the needs and return the lane; what was written just so before was judged, and its lane is known."""
        written = pack((request.kind, request.needs, request.avoid))
        lane = self._lanes.get(written)
        if lane is None:
            _judge_needs(request)
            lane = named_lane(request)
            if len(self._lanes) >= _LANES_KEPT:
                self._lanes.clear()
            self._lanes[written] = lane
        return lane

    def _judge_payload(self, request: JobRequest, kind: KindSpec) -> None:
        size = len(bytes(request.payload))
        if size > INLINE_LIMIT:
            raise TooLargeError(
                f"the payload has {size} bytes, at most {INLINE_LIMIT} go inline: PUT it to /v1/blobs/<sha256> and "
                'submit {"$blob": {"sha256": ..., "size": ...}} in its place',
                field="payload",
                size=size,
                limit=INLINE_LIMIT,
            )
        self._kinds.schemas.judge(kind.payload, request.payload)


def _judge_times(request: JobRequest, now: int | None) -> None:
    if request.delay is not None and request.run_at is not None:
        raise InvalidError("give delay or run_at, not both", field="run_at")
    if request.delay is not None and request.delay < 0:
        raise InvalidError(f"a delay of {request.delay} s lies in the past", field="delay")
    if not 0 <= request.priority <= _PRIORITY_MAX:
        raise InvalidError(f"a priority is 0 to {_PRIORITY_MAX}, not {request.priority}", field="priority")
    if request.deadline is not None and now is not None and micros(request.deadline) <= now:
        raise InvalidError(f"the deadline {request.deadline.isoformat()} has passed", field="deadline")


def _judge_needs(request: JobRequest) -> None:
    wrong = problems(request.needs, request.avoid)
    wrong += tuple(
        (f"needs.amounts.{name}", f"{amount} is no amount: it must be above 0")
        for name, amount in request.needs.amounts.items()
        if not amount > 0
    )
    if wrong:
        raise InvalidError(f"{wrong[0][0]}: {wrong[0][1]}", field=wrong[0][0], problems=dict(wrong))

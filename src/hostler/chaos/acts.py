"""The client log as whole operations: each beginning with its end."""

import math
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from hostler.chaos.record import Op, OpType
from hostler.chaos.values import Value
from hostler.kernel.errors import InvalidError
from hostler.kernel.units import Instant, Seconds


class Act(Struct, frozen=True, kw_only=True):
    """One operation of a client."""

    process: str
    op: str
    type: OpType
    """How it ended; `info` also when its end is not in the record."""
    begin: Seconds
    end: Seconds
    """By `t_mono`; infinity when nobody knows whether or when it happened."""
    begun_at: Instant
    job: str | None = None
    queue: str | None = None
    operation: str | None = None
    asked: Value | None = None
    answered: Value | None = None


def acts_of(ops: Iterable[Op]) -> tuple[Act, ...]:
    """Return the operations in the order in which they began.

    `InvalidError` for a log that no clients can have written: an end without a beginning, two operations of one
    process at a time, a process that goes on after an answer that never came.
    """
    found: list[Act] = []
    open_: dict[str, Op] = {}
    retired: set[str] = set()
    for op in sorted(ops, key=lambda one: one.t_mono):
        if op.type == "invoke":
            if op.process in retired:
                raise InvalidError(f"process {op.process} goes on after an operation whose end nobody knows")
            if op.process in open_:
                raise InvalidError(f"process {op.process} begins {op.op} while its {open_[op.process].op} is under way")
            open_[op.process] = op
            continue
        begun = open_.pop(op.process, None)
        if begun is None or begun.op != op.op:
            raise InvalidError(f"process {op.process} ends a {op.op} that it never began")
        if op.type == "info":
            retired.add(op.process)
        found.append(_act(begun, op))
    found.extend(_act(begun, None) for begun in open_.values())
    return tuple(sorted(found, key=lambda act: act.begin))


def _act(begun: Op, ended: Op | None) -> Act:
    unknown = ended is None or ended.type == "info"
    return Act(
        process=begun.process,
        op=begun.op,
        type="info" if ended is None else ended.type,
        begin=begun.t_mono,
        begun_at=begun.t_wall,
        end=math.inf if unknown or ended is None else ended.t_mono,
        job=begun.job,
        queue=begun.queue,
        operation=begun.operation,
        asked=begun.value,
        answered=None if ended is None else ended.value,
    )


def merged(acts: Sequence[Act]) -> tuple[Act, ...]:
    """Return the acts with those that were sent again under one operation id made one.

    It may have happened from the first sending on; its answer is the first that came.
    """
    groups: dict[tuple[str, str], list[Act]] = {}
    found: list[Act] = []
    for act in acts:
        if act.operation is None:
            found.append(act)
        else:
            groups.setdefault((act.op, act.operation), []).append(act)
    for same in groups.values():
        answered = [act for act in same if act.type != "info"]
        first = min(answered, key=lambda act: act.end) if answered else same[0]
        found.append(msgspec.structs.replace(first, begin=min(act.begin for act in same)))
    return tuple(sorted(found, key=lambda act: act.begin))

"""Records written by hand: one queue `q`, one machine."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hostler.chaos.judge import Report, judge
from hostler.chaos.reading import Leak, Record
from hostler.chaos.record import (
    Events,
    Fault,
    Header,
    Heard,
    Line,
    Mark,
    Op,
    Push,
)
from hostler.chaos.values import (
    Answer,
    Answers,
    Ended,
    Endings,
    Leased,
    Leases,
    Refused,
    Requests,
    Seen,
    Value,
    Wanted,
    Word,
    Words,
)
from hostler.contracts.event import Event
from hostler.contracts.job import JobState
from hostler.testing.broker_house import request

START = datetime(2026, 1, 1, tzinfo=UTC)
J, K = "q.1", "q.2"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Story:
    """A record written by hand: one queue `q`, one machine, seconds from START."""

    def __init__(self, **header: Any) -> None:
        self.header = Header(began_at=START, **header)
        self.lines: list[Line] = []
        self.events: list[Event] = []
        self.leaks: tuple[Leak, ...] = ()
        self._clients = 0

    def event(self, seconds: float, job: str, type_: str, state: str | None = None, **more: Any) -> "Story":
        fence, worker = more.pop("fence", None), more.pop("worker", None)
        move = JobState(state) if state else None
        self.events.append(
            Event(
                offset=len(self.events) + 1,
                at=at(seconds),
                type=type_,
                job=job,
                state=move,
                attempt=fence,
                worker=worker,
                data=more,
            )
        )
        return self

    def life(self, job: str = J, *, begin: float = 0.0, end: float = 2.0, worker: str = "w") -> "Story":
        self.event(begin, job, "submit", "ready", fence=0)
        self.event(begin + 1, job, "claim", "running", fence=1, worker=worker)
        return self.event(end, job, "finish", "succeeded", fence=1, worker=worker)

    def op(
        self,
        verb: str,
        begin: float,
        end: float,
        *,
        type_: str = "ok",
        asked: Value | None = None,
        answered: Value | None = None,
        **more: Any,
    ) -> "Story":
        self._clients += 1
        about: dict[str, Any] = {"process": f"c{self._clients}", "op": verb, **more}
        self.lines.append(Op(type="invoke", t_mono=begin, t_wall=at(begin), value=asked, **about))
        ended: Any = type_
        self.lines.append(Op(type=ended, t_mono=end, t_wall=at(end), value=answered, **about))
        return self

    def submit(self, begin: float = 0.0, end: float = 0.1, *jobs: str, type_: str = "ok", **more: Any) -> "Story":
        ids = jobs or (J,)
        answers = Answers(answers=tuple(Answer(id=job) for job in ids)) if type_ == "ok" else None
        asked = Requests(requests=(request("k"),) * len(ids))
        return self.op("submit", begin, end, type_=type_, asked=asked, answered=answers, **more)

    def get(self, begin: float, state: str | None, *, job: str = J, **seen: Any) -> "Story":
        if state is None:
            return self.op("get", begin, begin + 0.1, type_="fail", answered=Refused(code="not-found"), job=job)
        return self.op("get", begin, begin + 0.1, answered=Seen(state=JobState(state), **seen), job=job)

    def claim(self, begin: float, fence: int, *, job: str = J, **more: Any) -> "Story":
        leases = Leases(leases=(Leased(job=job, fence=fence),))
        return self.op("claim", begin, begin + 0.1, asked=Wanted(worker="w"), answered=leases, **more)

    def settle(
        self, begin: float, fence: int, *, how: Any = "succeed", accepted: bool | None = True, state: str | None = None
    ) -> "Story":
        word = (
            None
            if accepted is None
            else Words(words=(Word(accepted=accepted, state=JobState(state) if state else None),))
        )
        endings = Endings(worker="w", endings=(Ended(job=J, fence=fence, how=how),))
        type_ = "info" if accepted is None else "ok"
        return self.op("settle", begin, begin + 0.1, type_=type_, asked=endings, answered=word)

    def fault(self, begin: float, end: float | None = None, **more: Any) -> "Story":
        over = begin if end is None else end
        facts: dict[str, Any] = {"kind": "kill", "target": "w", "workers": ("w",), **more}
        self.lines.append(Fault(begin=begin, end=over, began_at=at(begin), ended_at=at(over), **facts))
        return self

    def mark(self, seconds: float, *what: Any) -> "Story":
        self.lines.extend(Mark(what=one, t_mono=seconds, t_wall=at(seconds)) for one in what)
        return self

    def line(self, *lines: Line) -> "Story":
        self.lines.extend(lines)
        return self

    def heard(self, *offsets: int, after: int = 0, **more: Any) -> "Story":
        by = {event.offset: event for event in self.events}
        pushes = tuple(Push(offset=one, type=by[one].type, job=by[one].job, state=by[one].state) for one in offsets)
        return self.line(Heard(reader="r", queue="q", after=after, pushes=pushes, **more))

    def judge(self, **more: Any) -> Report:
        events = (Events(queue="q", events=tuple(self.events)),) if self.events else ()
        return judge(Record(header=self.header, lines=(*self.lines, *events), leaks=self.leaks), **more)


def lived(**header: Any) -> Story:
    return Story(**header).submit().life()

"""The judge of what a rig sees besides: readers in several lives, offers, full queues, breakers of who is gone."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hostler.chaos.record import (
    Books,
    Circuit,
    Effect,
    Heard,
    Push,
    Roster,
    Terms,
)
from hostler.chaos.values import (
    Answer,
    Answers,
    Refused,
    Requests,
)
from hostler.contracts.event import Life
from hostler.contracts.fence import CLAIMS
from hostler.contracts.job import JobRequest, JobState
from hostler.contracts.needs import Needs
from hostler.contracts.offer import Offer
from hostler.contracts.worker import WorkerState
from hostler.policy.breaker import Mode
from hostler.testing.broker_house import request

from .story import J, K, Story, at, lived


class Relived(Story):
    """One queue whose engine lost the end of a job's story in a fail-over, and told another one from there on."""

    def told(self, epoch: int, *offsets: int, lost: bool = False, after: int = 0, **more: Any) -> "Relived":
        """Hear these; with `lost` the third as the life told it that the engine lost."""
        by = {event.offset: event for event in self.events}
        pushes = [Push(offset=one, type=by[one].type, job=J, state=by[one].state) for one in offsets]
        if lost:
            pushes[-1] = Push(offset=3, type="retry", job=J, state=JobState.READY)
        self.line(Heard(reader="r", queue="q", job=J, epoch=epoch, after=after, pushes=tuple(pushes), **more))
        return self


def relived() -> Relived:
    story = Relived()
    story.submit().life().line(Books(queue="q", lives=(Life(epoch=7, after=0), Life(epoch=8, after=2))))
    return story


def offering(
    labels: dict[str, str], *, wanted: dict[str, str], later: tuple[float, dict[str, str]] | None = None
) -> Story:
    asked = Requests(requests=(JobRequest(kind="k", needs=Needs(labels=wanted)),))
    story = Story().op("submit", 0, 0.1, asked=asked, answered=Answers(answers=(Answer(id=J),))).life()
    seen = [(-30.0, labels)] if later is None else [(-30.0, labels), later]
    return story.line(*(roster(moment, said) for moment, said in seen))


def roster(moment: float, labels: dict[str, str]) -> Roster:
    offer = Offer(kinds=("k",), labels=labels, healthy=False)
    return Roster(worker="w", at=at(moment), state=WorkerState.BUSY, offers=(offer,))


def refused(after: float | None) -> Story:
    full = Refused(code="queue-full", retry_after=after)
    return lived().op("submit", 3, 3.1, type_="fail", asked=Requests(requests=(request("k"),)), answered=full)


def circuit(*turns: tuple[float, Mode | None]) -> Story:
    story = Story().submit().fault(5, 10, kind="service_slow", target="s", workers=(), endpoints=("s",))
    story.life(end=3.0).mark(200, "read")
    return story.line(*(Circuit(endpoint="s", at=at(one), process="w", breaker=mode) for one, mode in turns))


def failed_over(submitted: float) -> Story:
    """The primary was lost from second 4 to 6, and with it a job that was acknowledged at this time."""
    story = lived().submit(submitted - 0.1, submitted, K).get(20, None, job=K)
    story.fault(5, 9, kind="primary_kill", target="primary", workers=(), loses=((4.0, 6.0),))
    return story.mark(30, "drained", "read")


def worked_on(second: float, *, fences: tuple[int, ...] = (1, CLAIMS + 1)) -> Story:
    """A service ended work for a job under each fence; the engine knows one of them, and lost its primary at 5 s."""
    story = lived().fault(5, 6, kind="primary_kill", target="primary", workers=(), loses=((4.0, 6.0),))
    times = (2, *(second for _ in fences[1:]))
    return story.line(
        *(Effect(job=J, fence=fence, service="s", at=at(one)) for fence, one in zip(fences, times, strict=True))
    )


def paused(*moments: float, claimed: float, **order: Any) -> Story:
    """An operator was told at 5 s that the queue is paused, and resumes it at these; a job is claimed at this time."""
    story = Story().submit().submit(0, 0.1, K).op("pause", 4.9, 5.0, queue="q", **order)
    for moment in moments:
        story.op("resume", moment, moment + 0.1, queue="q")
    story.event(0, J, "submit", "ready").event(0, K, "submit", "ready")
    return story.event(claimed, J, "claim", "running", fence=1, worker="w")


def told_gone(job: str = J) -> Story:
    """A reader was told that there is no such job, in the middle of what it heard of it."""
    return lived().heard(1, 2, job=job).line(Heard(reader="r", queue="", job=job, after=2, end="gone"))


def taken_over(again: float, *, asks: bool = True) -> Story:
    """The primary died at 5 s; a job was settled at 2 s, and the next at this time, with somebody asking between."""
    story = Story().submit().life().submit(3 if asks else 0, 3.1, K)
    story.life(K, begin=3, end=again).fault(
        5, 9, kind="primary_kill", target="primary", workers=(), loses=((4.0, 6.0),)
    )
    return story.mark(60, "drained", "read")


def held_up(resumed: float | None, *, claimed: float = 35.0, state: str = "succeeded") -> Story:
    """A worker dies at 2 s with a job, whose queue is paused from 3 s on; it is claimed again at 35 s."""
    story = (
        Story().submit().event(0, J, "submit", "ready").event(1, J, "claim", "running", fence=1, worker="w").fault(2)
    )
    story.event(3, "", "pause").event(12, J, "reap", "ready", fence=1, worker="w")
    if resumed is not None:
        story.event(resumed, "", "resume").event(claimed, J, "claim", "running", fence=2, worker="v")
        story.event(claimed + 1, J, "finish", state, fence=2, worker="v")
    story.events = [msgspec.structs.replace(one, job=one.job or None) for one in story.events]
    return story.mark(2, "began", "healed").mark(40, "drained", "read")


SEEDED: dict[str, tuple[str, Callable[[], Story], Callable[[], Story]]] = {
    "a reader that was told that this is all, and misses the last": (
        "S18",
        lambda: lived().heard(1, 2, end="told"),
        lambda: lived().heard(1, 2).heard(3, after=2, end="told"),
    ),
    "a reader that asks until all is over and is not told the end": (
        "S18",
        lambda: lived().heard(1, 2).heard(after=2, job=J, end="missed"),
        lambda: lived().heard(1, 2).heard(after=2, job=J),
    ),
    "a reader that comes back from a life that was lost and is not told so": (
        "S18",
        lambda: relived().told(7, 1, 2, 3, lost=True).told(8, after=3, end="told"),
        lambda: relived().told(7, 1, 2, 3, lost=True).told(8, 3, after=2, reset=True, end="told"),
    ),
    "a reader that is told to forget more than was lost, and gets it again": (
        "S18",
        lambda: relived().told(7, 1, 2).told(8, 2, 3, after=2, end="told"),
        lambda: relived().told(7, 1, 2).told(8, 3, after=2, end="told"),
    ),
    "a reader that was told what never stood, in the life that stands": (
        "S18",
        lambda: relived().told(8, 1, 2, 3, lost=True, end="told"),
        lambda: relived().told(7, 1, 2, 3, lost=True).told(8, 3, after=2, reset=True, end="told"),
    ),
    "a job that is lost beside the time in which a fail-over may lose": (
        "S1", lambda: failed_over(3.0), lambda: failed_over(5.0)
    ),
    "a job that is not found, and was acknowledged beside that time": (
        "S20", lambda: failed_over(7.0), lambda: failed_over(5.0).get(21, "succeeded")
    ),
    "an effect without a claim, beside the time in which one may have been lost": (
        "S7",
        lambda: worked_on(60),
        lambda: worked_on(8),
    ),
    "two effects of one claim, in the time in which one may have been lost": (
        "S7",
        lambda: worked_on(8, fences=(1, 1)),
        lambda: worked_on(8),
    ),
    "two effects of a claim that may have been lost": (
        "S7",
        lambda: worked_on(8, fences=(1, CLAIMS + 1, CLAIMS + 1)),
        lambda: worked_on(8),
    ),
    "a worker that claims what it was never seen to offer": (
        "S10",
        lambda: offering({"gpu": "old"}, wanted={"gpu": "new"}),
        lambda: offering({"gpu": "new"}, wanted={"gpu": "new"}),
    ),
    "a worker that claims what it offers only much later": (
        "S10",
        lambda: offering({"gpu": "old"}, wanted={"gpu": "new"}, later=(40.0, {"gpu": "new"})),
        lambda: offering({"gpu": "old"}, wanted={"gpu": "new"}, later=(10.0, {"gpu": "new"})),
    ),
    "a claim after an operator was told of the pause, with no event of it": (
        "S17",
        lambda: paused(20, claimed=8),
        lambda: paused(20, claimed=22),
    ),
    "a claim while it is paused for good": ("S17", lambda: paused(claimed=8), lambda: paused(claimed=3)),
    "a reader that is told that there is no such job, which was acknowledged": (
        "S18",
        told_gone,
        lambda: told_gone("q.9"),
    ),
    "a job that no server settles until long after the primary died": (
        "L3",
        lambda: taken_over(12.5),
        lambda: taken_over(11.5),
    ),
    "work that waits for longer than its queue is paused": (
        "L2",
        lambda: held_up(3.5),
        lambda: held_up(30),
    ),
    "a full queue that does not say when to come back": (
        "S15",
        lambda: refused(None),
        lambda: refused(2.0),
    ),
    "a queue that is deeper than its limit": (
        "S15",
        lambda: Story(queues={"q": Terms(depth=1)}).event(0, J, "submit", "ready").event(1, K, "submit", "ready"),
        lambda: Story(queues={"q": Terms(depth=2)}).event(0, J, "submit", "ready").event(1, K, "submit", "ready"),
    ),
    "a breaker that was seen to open late, and stays open": (
        "L5",
        lambda: circuit((13, Mode.OPEN), (150, Mode.CLOSED)),
        lambda: circuit((13, Mode.OPEN), (35, Mode.CLOSED)),
    ),
    "a breaker that is open until its worker is gone": (
        "L5",
        lambda: circuit((6, Mode.OPEN), (150, None)),
        lambda: circuit((6, Mode.OPEN), (30, None)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", SEEDED)
@pytest.mark.row("000:48")
def test_a_seeded_wrong_record_is_caught_under_its_name_and_its_true_twin_is_not(seed: str) -> None:
    invariant, wrong, true = SEEDED[seed]
    found = wrong().judge()
    assert invariant in found.broken(), found.ruling(invariant)
    assert found.verdict == "broken"
    assert found.ruling(invariant).findings[0].sentence
    assert true().judge().ruling(invariant).verdict == "held", true().judge().ruling(invariant)


def test_an_order_that_may_have_come_after_the_next_one_says_nothing() -> None:
    late = paused(claimed=8).op("resume", 4.0, 4.5, queue="q", type_="info")
    assert late.judge().ruling("S17").verdict == "not judged"
    undone = paused(claimed=8).fault(4.8, 6, kind="primary_kill", target="primary", workers=(), loses=((4.0, 6.0),))
    assert undone.judge().ruling("S17").verdict == "not judged"


def test_a_job_that_a_fail_over_lost_may_be_denied_to_its_reader() -> None:
    story = failed_over(5.0).line(Heard(reader="r", queue="", job=K, end="gone"))
    assert story.judge().ruling("S18").verdict == "held"
    assert failed_over(3.0).line(Heard(reader="r", queue="", job=K, end="gone")).judge().ruling("S18").broken == 1


def test_no_time_counts_as_a_fail_over_in_which_nobody_asked_for_anything() -> None:
    assert taken_over(30, asks=False).judge().ruling("L3").verdict == "held"


def test_work_of_a_queue_that_stays_paused_is_nobodys_fault() -> None:
    report = held_up(None).judge()
    assert {ruling.invariant for ruling in report.rulings if ruling.verdict == "broken"} == set()
    assert report.recovery_s.count == 0
    assert held_up(30).judge().recovery_s.max == pytest.approx(33 - 27)


def test_a_queue_that_nobody_used_leaves_nothing_unjudged() -> None:
    story = lived().line(Books(queue="idle", audit=("a key is too many",)))
    assert (story.judge().ruling("S3").verdict, story.judge().ruling("S3").why) == ("held", "")
    assert story.judge().ruling("S12").broken == 1

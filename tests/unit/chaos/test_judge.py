"""The judge of whole records: what clients and readers saw, bounds after faults, and what cannot be judged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.chaos.judge import PROMISES
from hostler.chaos.reading import Leak, Place, read_history
from hostler.chaos.record import (
    Bounds,
    Circuit,
    Effect,
    Events,
    Granted,
    Line,
    Mark,
    Roster,
    Terms,
)
from hostler.chaos.values import (
    Seen,
)
from hostler.cli.main import main
from hostler.contracts.job import JobState
from hostler.contracts.limit import Limit, LimitKind
from hostler.contracts.worker import WorkerState
from hostler.kernel.errors import InvalidError
from hostler.policy.breaker import Mode

from .story import START, J, K, Story, at, lived


def struck(claimed: float | None, *, reaped: float = 11.0, died: float = 2.0) -> Story:
    story = Story().submit(0.0, 0.1, J).event(0, J, "submit", "ready", fence=0)
    story.event(1, J, "claim", "running", fence=1, worker="w").fault(died)
    story.event(reaped, J, "reap", "ready", fence=1, worker="w")
    if claimed is not None:
        story.event(claimed, J, "claim", "running", fence=2, worker="v")
        story.event(claimed + 1, J, "finish", "succeeded", fence=2, worker="v")
    return story.mark(60, "drained", "read")


RATE = Limit(name="api", kind=LimitKind.RATE, most=2, per=10.0)


def grants(*seconds: float) -> Story:
    return lived().line(*(Granted(limit=RATE, at=at(one)) for one in seconds))


def circuit(*turns: tuple[float, Mode | None]) -> Story:
    story = Story().submit().fault(5, 10, kind="service_slow", target="s", workers=(), endpoints=("s",))
    story.life(end=3.0).mark(200, "read")
    return story.line(*(Circuit(endpoint="s", at=at(one), process="w", breaker=mode) for one, mode in turns))


LEAK = (Leak(place=Place(file="h.ndjson", number=4), canary=1),)


def leaking(*leaks: Leak) -> Story:
    story = lived(canaries=("x" * 20,))
    story.leaks = leaks
    return story


SEEDED: dict[str, tuple[str, Callable[[], Story], Callable[[], Story]]] = {
    "a limit that lets three go where two may": ("S16", lambda: grants(0, 9, 9.9), lambda: grants(0, 9, 10)),
    "a reader that misses a move": ("S18", lambda: lived().heard(1, 3), lambda: lived().heard(1, 2, 3)),
    "a reader that gets an event twice": ("S18", lambda: lived().heard(1, 2, 2, 3), lambda: lived().heard(1, 2, 3)),
    "a reader that gets one again after it came back": (
        "S18",
        lambda: lived().heard(1, 2).heard(2, 3, after=2),
        lambda: lived().heard(1, 2).heard(3, after=2),
    ),
    "a reader that misses one while it was away": (
        "S18",
        lambda: lived().heard(1).heard(3, after=1),
        lambda: lived().heard(1).heard(2, 3, after=1),
    ),
    "a reader that was told all and did not get the last": (
        "S18",
        lambda: lived().heard(1, 2, until=3),
        lambda: lived().heard(1, 2, 3, until=3),
    ),
    "a secret in a line": ("S19", lambda: leaking(*LEAK), leaking),
    "a job that its submitter does not find": (
        "S20",
        lambda: lived().get(0.2, None),
        lambda: lived().get(0.05, None).get(0.2, "ready"),
    ),
    "one operation with two answers": (
        "S9",
        lambda: Story().submit(0, 0.1, J, operation="o").submit(1, 1.1, K, operation="o").life(),
        lambda: Story().submit(0, 0.1, J, operation="o").submit(1, 1.1, J, operation="o").life(),
    ),
    "a job that never ends": (
        "L1",
        lambda: Story().submit().event(0, J, "submit", "ready", fence=0).mark(9, "drained", "read"),
        lambda: lived().mark(9, "drained", "read"),
    ),
    "a job that ends long after the last fault": (
        "L1",
        lambda: Story().submit().fault(1, workers=()).life(end=200).mark(300, "drained", "read"),
        lambda: Story().submit().fault(1, workers=()).life(end=100).mark(300, "drained", "read"),
    ),
    "struck work that waits for too long": ("L2", lambda: struck(40), lambda: struck(12)),
    "struck work that nobody claims": ("L2", lambda: struck(None), lambda: struck(12)),
    "a gap in which nobody can submit": (
        "L3",
        lambda: lived().fault(1).submit(1, 2, "q.8", type_="info").submit(5, 12, K).event(12, K, "submit", "ready"),
        lambda: lived().fault(1).submit(1, 2, "q.8", type_="info").submit(5, 6, K).event(6, K, "submit", "ready"),
    ),
    "a lease that nobody takes back": ("L4", lambda: struck(40, reaped=39), lambda: struck(12)),
    "a lease that is lost without a fault": (
        "L4",
        lambda: struck(12, died=100).mark(0, "began"),
        lambda: struck(12).mark(0, "began"),
    ),
    "a breaker that stays open": (
        "L5",
        lambda: circuit((6, Mode.OPEN), (150, Mode.CLOSED)),
        lambda: circuit((6, Mode.OPEN), (30, Mode.HALF_OPEN), (35, Mode.CLOSED)),
    ),
    "a lease that is taken back early": (
        "S5",
        lambda: Story(queues={"q": Terms(lease=20.0)}).submit().event(0, J, "submit", "ready", fence=0)
        .event(1, J, "claim", "running", fence=1, worker="w").event(11, J, "reap", "ready", fence=1, worker="w"),
        lambda: Story(queues={"q": Terms(lease=10.0)}).submit().event(0, J, "submit", "ready", fence=0)
        .event(1, J, "claim", "running", fence=1, worker="w").event(11, J, "reap", "ready", fence=1, worker="w"),
    ),
    "two claims with one fence": (
        "LIN",
        lambda: Story().submit().claim(1, 1).claim(2, 1),
        lambda: Story().submit().claim(1, 1).claim(2, 2),
    ),
    "a job that was seen to go back": (
        "LIN",
        lambda: Story().submit().claim(1, 1).settle(2, 1, state="succeeded").get(3, "running"),
        lambda: Story().submit().claim(1, 1).settle(2, 1, state="succeeded").get(2.05, "running").get(3, "succeeded"),
    ),
    "two endings of one attempt": (
        "LIN",
        lambda: Story().submit().claim(1, 1).settle(2, 1).settle(3, 1, how="die", state="dead"),
        lambda: Story().submit().claim(1, 1).settle(2, 1).settle(3, 1),
    ),
    "an ending under an older fence": (
        "LIN",
        lambda: Story().submit().claim(1, 1).claim(12, 2).settle(13, 1),
        lambda: Story().submit().claim(1, 1).claim(12, 2).settle(13, 1, accepted=False).settle(14, 2),
    ),
    "a claim after a cancel that was granted": (
        "LIN",
        lambda: Story().submit().op("cancel", 1, 1.1, job=J, answered=Seen(state=JobState.CANCELLED)).claim(2, 1),
        lambda: Story().submit().claim(1, 1).op("cancel", 2, 2.1, job=J, answered=Seen(state=JobState.RUNNING)),
    ),
    "an answer that never came, and could not have been yes": (
        "LIN",
        lambda: Story().submit().claim(1, 1).settle(2, 1, accepted=None).get(3, "waiting"),
        lambda: Story().submit().claim(1, 1).settle(2, 1, accepted=None).get(3, "running").get(4, "succeeded"),
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


def test_every_promise_has_one_ruling_and_what_is_not_in_the_record_is_not_judged() -> None:
    report = Story().judge()
    assert [ruling.invariant for ruling in report.rulings] == list(PROMISES)
    assert {ruling.verdict for ruling in report.rulings} == {"not judged"}
    assert all(ruling.why for ruling in report.rulings)
    assert report.verdict == "not judged"


def test_the_end_of_a_record_that_was_not_finished_accuses_nobody() -> None:
    story = Story().submit(0, 0.1, J).submit(0, 0.1, K).life()
    assert story.judge().ruling("S1").verdict == "not judged"
    assert story.mark(9, "read").judge().ruling("S1").verdict == "broken"


def test_the_smallest_witness_has_no_operation_that_it_can_do_without() -> None:
    story = Story().submit().get(0.2, "ready").claim(1, 1).get(1.5, "running").claim(12, 2).get(12.5, "running")
    (finding,) = story.settle(13, 1).get(14, "succeeded").judge().ruling("LIN").findings
    assert "settle succeed under fence 1" in finding.sentence
    assert "get" not in finding.sentence


def test_a_search_that_is_cut_short_says_that_it_decided_nothing() -> None:
    story = Story().submit().claim(1, 1)
    for _ in range(6):
        story.settle(2, 1, accepted=None)
    story.get(3, "waiting")
    assert story.judge(most=3).ruling("LIN").verdict == "not judged"
    assert "not decided" in story.judge(most=3).ruling("LIN").why
    assert story.judge().ruling("LIN").verdict == "broken"


def test_what_is_lost_is_told_by_its_place_among_what_is_there() -> None:
    story = Story()
    for n in range(1, 7):
        story.submit(n, n + 0.1, f"q.{n}")
    for job in ("q.2", "q.4"):
        story.life(job)
    lost = story.mark(9, "read").judge().lost
    assert (lost.prefix, lost.middle, lost.postfix) == (1, 1, 2)


def test_recovery_runs_from_the_end_of_a_fault_to_the_next_claim() -> None:
    recovery = struck(12).judge().recovery_s
    assert (recovery.count, recovery.p50, recovery.max, recovery.histogram) == (1, 10.0, 10.0, {"10": 1})


def test_a_recovery_that_is_slow_for_most_breaks_the_bound_of_the_many() -> None:
    story = struck(20, reaped=11)
    assert story.judge().ruling("L2").verdict == "broken"
    story.header = msgspec.structs.replace(story.header, bounds=Bounds(recovery_p99=20.0))
    assert story.judge().ruling("L2").verdict == "held"


def test_services_are_not_compared_with_each_other() -> None:
    def effects(*services: str) -> Story:
        story = struck(12)
        return story.line(*(Effect(job=J, fence=2 - n, service=one) for n, one in enumerate(services)))

    assert effects("a", "b").judge().ruling("S7").verdict == "held"
    assert effects("a", "a").judge().ruling("S7").verdict == "broken"


def test_without_events_and_workers_calls_nobody_can_say_what_moved_a_job() -> None:
    report = Story().submit().get(3, "running").judge()
    assert report.ruling("LIN").verdict == "not judged"


def test_a_fault_of_the_engine_while_a_lease_stands_gives_it_a_grace() -> None:
    late = struck(30, reaped=25)
    assert late.judge().ruling("L4").verdict == "broken"
    late.fault(13, 15, kind="engine_kill", target="engine", workers=())
    assert late.judge().ruling("L4").verdict == "held"


def test_slots_that_a_worker_announced_are_its_limit() -> None:
    story = Story().submit(0, 0.1, J, K).life().event(1.5, K, "submit", "ready", fence=0)
    story.events.pop(2)
    story.event(1.6, K, "claim", "running", fence=1, worker="w")
    story.events = [msgspec.structs.replace(one, offset=n) for n, one in enumerate(story.events, 1)]
    assert story.judge().ruling("S5").verdict == "held"
    story.line(Roster(worker="w", at=START, state=WorkerState.READY, slots=1))
    assert story.judge().ruling("S5").verdict == "broken"


def test_a_log_that_no_client_can_have_written_is_refused() -> None:
    twice = Story().submit()
    twice.lines.append(twice.lines[0])
    twice.lines.append(twice.lines[0])
    with pytest.raises(InvalidError, match="begins submit while"):
        twice.judge()
    with pytest.raises(InvalidError, match="never began"):
        Story().submit().line(Story().submit().lines[1]).judge()


def written(story: Story, folder: Path, **header: Any) -> Path:
    lines: list[Line] = [msgspec.structs.replace(story.header, **header), *story.lines]
    lines.append(Events(queue="q", events=tuple(story.events)))
    file = folder / "history.ndjson"
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return file


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["chaos", "check", *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().out


def test_the_command_exits_by_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = written(struck(12), tmp_path)
    code, text = told(capsys, str(good))
    assert (code, text.splitlines()[-1]) == (0, "held: 1 jobs, 5 events, 1 operations, 1 faults")
    code, text = told(capsys, str(written(struck(40), tmp_path)), "--json")
    report = json.loads(text)
    assert (code, report["verdict"], report["recovery_s"]["max"]) == (1, "broken", 38.0)
    assert len(report["rulings"]) == len(PROMISES)
    code, text = told(capsys, str(written(Story(), tmp_path)))
    assert (code, text.splitlines()[-1][:10]) == (1, "not judged")


def test_a_file_that_is_no_history_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.ndjson").write_text("{}\n")
    assert told(capsys, str(tmp_path / "x.ndjson"))[0] == 2
    assert told(capsys)[0] == 2


def test_a_secret_in_the_record_is_told_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = lived().line(Mark(what="read", t_mono=1, t_wall=START)).submit(3, 4, "q.7", operation="canary-0123456789")
    file = written(story, tmp_path, canaries=("canary-0123456789",))
    assert [leak.place.number for leak in read_history(file).leaks] == [5, 6]
    code, text = told(capsys, str(file))
    assert code == 1
    assert "S19: canary 1 of 1 stands in history.ndjson, line 5" in text
    assert "canary-0123456789" not in text

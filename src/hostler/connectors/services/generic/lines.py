"""What a command and its connector say to one another: one JSON object a line."""

import time
from collections.abc import AsyncGenerator
from typing import Final

import msgspec
from msgspec import Raw, Struct, structs

from hostler.connectors.direct import Report
from hostler.connectors.faults import failure, off_protocol
from hostler.connectors.stages import Stages
from hostler.contracts.failure import Failure, FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.service import Failed, Finished, ServiceCall
from hostler.kernel.units import Bytes, Fraction, Instant, Json, Seconds


class Job(Struct, frozen=True, kw_only=True, tag="job", omit_defaults=True):
    """In: the work."""

    job: str
    fence: int
    kind: str
    payload: Raw
    deadline: Instant | None = None
    seconds_left: Seconds | None = None
    """Until its deadline or the end of its run limit, whichever is first, from when the line was written."""


class Up(Struct, frozen=True, kw_only=True, tag="ready"):
    """Out: it has loaded what it needs, and takes jobs."""


class Said(Struct, frozen=True, kw_only=True, tag="progress"):
    """Out: how far the work is; `text` is what is new."""

    fraction: Fraction | None = None
    stage: str | None = None
    message: str | None = None
    eta_s: Seconds | None = None
    text: str | None = None


class Done(Struct, frozen=True, kw_only=True, tag="result"):
    """Out: the work's result; `job` is whose, so that no line printed late passes for another job's."""

    job: str
    result: Raw


class Wrong(Struct, frozen=True, kw_only=True, tag="error"):
    """Out: why it failed."""

    job: str
    class_: FailureClass = msgspec.field(name="class")
    message: str
    retry_after: Seconds | None = None
    details: dict[str, Json] = {}


Line = Up | Said | Done | Wrong
_DECODER: Final = msgspec.json.Decoder(Line)
_EXCERPT: Final = 200


def read_line(line: bytes) -> Line:
    """Decode a line; raises a transient fault for any other."""
    try:
        return _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        shown = line[:_EXCERPT].decode(errors="replace")
        raise off_protocol(f"the command wrote a line that is none of its protocol ({error}): {shown}") from None


class Listener:
    """Reads what a command writes about one job, until its end."""

    def __init__(self, call: ServiceCall, stages: Stages, report: Report, *, limit: Bytes) -> None:
        self._call = call
        self._stages = stages
        self._report = report
        self._left = limit
        self._fraction: float | None = None

    async def until_end(self, messages: AsyncGenerator[bytes], *, alone: bool) -> Finished | Failed:
        """Return how the job ended; a command that is `alone` with it must then end well, or its result is none."""
        end: Finished | Failed | None = None
        async with self._stages.clock(Stage.FIRST_BYTE, since=time.monotonic()) as clock:
            while end is None:
                line = await anext(messages, None)
                if line is None:
                    raise off_protocol("the command ended without a result")
                end = self._take(line)
                clock.begin(Stage.IDLE)
            if alone and isinstance(end, Finished) and await anext(messages, None) is not None:
                raise off_protocol("the command wrote more after the end of its job")
        return end

    def _take(self, line: bytes) -> Finished | Failed | None:
        self._left -= len(line)
        if self._left < 0:
            raise off_protocol("the command wrote more about one job than output_limit allows")
        match read_line(line):
            case Said() as said:
                self._say(said)
                return None
            case Up():
                raise off_protocol("the command said in the middle of a job that it is ready")
            case Done(job=job) | Wrong(job=job) if job != self._call.job_id:
                raise off_protocol(f"the command wrote the end of job {job!r}, which is not the one it has")
            case Done(result=result):
                return Finished(result=Raw(bytes(result)))
            case Wrong() as wrong:
                return Failed(failure=_failure(wrong))

    def _say(self, said: Said) -> None:
        """Report progress, whose fraction never falls."""
        if said.fraction is not None:
            self._fraction = max(said.fraction, self._fraction or 0.0)
        progress = Progress(stage=said.stage, message=said.message, eta_s=said.eta_s, text=said.text)
        self._report(structs.replace(progress, fraction=self._fraction))


def _failure(wrong: Wrong) -> Failure:
    found = failure(wrong.class_, wrong.message, retry_after=wrong.retry_after, **wrong.details)
    return structs.replace(found, stage=Stage.RUN) if wrong.class_ is FailureClass.TIMEOUT else found

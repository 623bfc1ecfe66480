"""One piece of work in a server with the API of A1111: a request that is followed from beside it."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from hostler.connectors.direct import Report
from hostler.connectors.faults import ServiceFaultError, failure, fault, off_protocol
from hostler.connectors.services.a1111.judge import fault_of
from hostler.connectors.services.a1111.messages import ImagesResult, UpscaleResult
from hostler.connectors.services.a1111.pictures import PictureStore
from hostler.connectors.services.a1111.server import A1111Server, Phase, Sight
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import ERROR_LIMIT, Answer
from hostler.contracts.failure import FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.preview import PREVIEW_EVERY, PREVIEW_LIFE
from hostler.contracts.service import Failed, Finished
from hostler.kernel.units import Bytes, Seconds

BACK_LEAST: Final[Seconds] = 1.0
BACK_MOST: Final[Seconds] = 60.0
_MAY_GO_ON: Final = frozenset({FailureClass.TIMEOUT, FailureClass.TRANSIENT})
"""After these the server may still be at it: it does not stop when a connection closes."""


class Asked(Struct, frozen=True, kw_only=True):
    """What is asked of the server."""

    path: str
    body: bytes
    task: str
    """Our name for it (`force_task_id`), from job and fence."""
    job: str
    """What the server calls work of this kind."""
    named: bool
    """Whether the server can be told our name for it."""
    earlier: tuple[str, ...]
    """Tasks of earlier attempts at this job: what is left of them may be stopped."""
    judge: Callable[[bytes], ImagesResult | UpscaleResult]


class Patience(Struct, frozen=True, kw_only=True):
    """How a run behaves while it waits."""

    poll: Seconds
    stop: Seconds
    """How long to wait until the server has stopped."""
    previews: bool
    """Whether pictures of the work are asked for while it runs."""
    exclusive: bool
    """Whether whatever runs there is ours."""
    answer_limit: Bytes


class A1111Run:
    """Does the request and follows it by the server's progress; what must end early is interrupted if it is ours."""

    def __init__(
        self, server: A1111Server, asked: Asked, stages: Stages, patience: Patience, pictures: PictureStore
    ) -> None:
        self._server = server
        self._asked = asked
        self._stages = stages
        self._patience = patience
        self._pictures = pictures
        self._timestamp: str | None = None
        self._cut_short = False
        self._shown = -1
        self._show_at = 0.0
        self.stopped: bool | None = None
        """Whether the server confirmed that it stopped, once it was told to."""

    async def run(self, report: Report) -> Finished | Failed:
        """Do it; raises `ServiceFaultError`. When it is cancelled, the work is stopped first."""
        await self._room()
        post = asyncio.create_task(self._post(), name=f"request of {self._asked.task}")
        post.add_done_callback(_seen)
        try:
            await self._follow(post, report)
            made = self._asked.judge(post.result())
            await self._whole()
        except asyncio.CancelledError:
            self.stopped = await self._stop(post)
            words = "the work was stopped" if self.stopped else "the server did not confirm that it stopped"
            return Failed(failure=failure(FailureClass.CANCELLED, words, stopped=self.stopped))
        except ServiceFaultError as error:
            known = error.failure
            if known.class_ not in _MAY_GO_ON:
                raise
            self.stopped = await self._stop(post)
            details = {**known.details, "stopped": self.stopped}
            raise ServiceFaultError(msgspec.structs.replace(known, details=details)) from error
        finally:
            post.cancel()
            await asyncio.wait({post})
        return Finished(result=await self._pictures.sealed(made))

    async def _room(self) -> None:
        """See that the server is idle: it takes one work at a time, and says nothing to those who wait."""
        busy = await self._server.progress()
        if busy.state.job_count == 0 and await self._server.waiting() == 0:
            return
        for task in self._asked.earlier:
            sight = await self._server.look(task, self._asked.job)
            if sight.phase in {Phase.RUNNING, Phase.QUEUED} and await self._end(task, None):
                return
        back = busy.back_in(least=BACK_LEAST, most=BACK_MOST)
        raise fault(FailureClass.OVERLOADED, "the server is busy with the work of others", retry_after=back)

    async def _post(self) -> bytes:
        async with self._server.http.stream(
            "POST",
            self._asked.path,
            body=self._asked.body,
            first_byte=None,  # the clocks of `_follow` bound it
            silence=None,
            limit=self._patience.answer_limit,
        ) as stream:
            parts = [chunk async for chunk in stream.chunks()]
            answer = Answer(stream.status, stream.headers, b"".join(parts))
            if not answer.ok:
                raise fault_of(Answer(stream.status, stream.headers, answer.body[:ERROR_LIMIT]))
            if stream.content_type != "application/json":
                raise off_protocol(f"the service answered {stream.status} with {stream.content_type}")
            return answer.body

    async def _follow(self, post: asyncio.Task[bytes], report: Report) -> None:
        """Report what is new until the request has its answer; raises the fault of a stage that is too long."""
        stage, since, last = Stage.FIRST_BYTE, time.monotonic(), Progress()
        if not self._asked.named:  # nothing can be asked about it
            stage = Stage.RUN
            report(Progress(stage="working"))
        while True:
            left, _, _ = self._stages.left(stage, since=since)
            await asyncio.wait({post}, timeout=self._patience.poll if left is None else min(self._patience.poll, left))
            if post.done():
                return
            self._stages.check(stage, since=since)
            if not self._asked.named:
                continue
            try:
                sight = await self._looked(within=left)
            except ServiceFaultError:
                continue  # a server that is busy may be late with an answer; the request itself tells
            self._note(sight)
            self._picture(sight, report)
            progress = self._progress(sight)
            if progress is None or _same(progress, last):
                continue
            if stage is not Stage.FIRST_BYTE and (progress.fraction or 0.0) < (last.fraction or 0.0):
                continue
            last, since, stage = progress, time.monotonic(), _stage(sight)
            report(progress)

    async def _looked(self, *, within: Seconds | None) -> Sight:
        """Look at the task, and for its next picture when it is time for one."""
        wanted = self._patience.previews and time.monotonic() >= self._show_at
        try:
            return await self._server.look(
                self._asked.task, self._asked.job, within=within, shown=self._shown if wanted else None
            )
        except ServiceFaultError:
            if wanted:  # a picture that is too much must not cost the progress as well
                self._show_at = time.monotonic() + PREVIEW_LIFE
            raise

    def _picture(self, sight: Sight, report: Report) -> None:
        if sight.shown is not None:
            self._shown, self._show_at = sight.shown, time.monotonic() + PREVIEW_EVERY
        if sight.preview is not None:
            report(sight.preview)

    def _note(self, sight: Sight) -> None:
        if self._ours(sight):
            self._timestamp = sight.state.job_timestamp
            self._cut_short = self._cut_short or sight.state.cut_short

    def _ours(self, sight: Sight) -> bool:
        match sight.phase:
            case Phase.RUNNING:
                return True
            case Phase.UNKNOWN:
                return self._patience.exclusive and sight.state.job_count != 0
            case Phase.QUEUED | Phase.GONE:
                return False

    def _progress(self, sight: Sight) -> Progress | None:
        if sight.phase is Phase.QUEUED:
            return Progress(stage="queued", message=sight.text)
        state = sight.state
        if sight.phase is Phase.GONE or state.job_count == 0:
            return None
        if state.job_count < 0:
            return Progress(stage="loading", message=sight.text)
        message = f"step {state.sampling_step} of {state.sampling_steps}"
        if not self._ours(sight):  # a sign of life of the server; whose work it is cannot be known
            return Progress(stage="working", message=f"the server is at {message}")
        if state.job_count > 1:
            message += f", batch {min(state.job_no + 1, state.job_count)} of {state.job_count}"
        return Progress(fraction=sight.fraction, stage="sampling", message=message, eta_s=sight.eta)

    async def _whole(self) -> None:
        """Refuse what was cut short: the server gives what it has until then as a success."""
        try:
            state = (await self._server.progress()).state
        except ServiceFaultError:
            state = None
        last = state is not None and state.job_count == 0 and self._timestamp in {None, state.job_timestamp}
        if self._cut_short or (last and state is not None and state.cut_short):
            raise fault(FailureClass.TRANSIENT, "somebody else interrupted the work in the server", interrupted=True)

    async def _stop(self, post: asyncio.Task[bytes]) -> bool:
        return await self._end(self._asked.task, post)

    async def _end(self, task: str, post: asyncio.Task[bytes] | None) -> bool:
        """Interrupt a task of ours and wait until it is gone; True when it is.

        A task that waits in the server cannot be told anything: it is interrupted as soon as it runs.
        """
        if not self._asked.named:
            return post is not None and post.done() and post.exception() is None
        try:
            async with asyncio.timeout(self._patience.stop):
                while True:
                    sight = await self._server.look(task, self._asked.job)
                    if self._ours(sight):
                        await self._server.interrupt()
                    elif sight.phase is Phase.UNKNOWN and not self._patience.exclusive:
                        return False
                    elif sight.phase in {Phase.GONE, Phase.UNKNOWN} and (post is None or post.done()):
                        return True
                    await asyncio.sleep(_STEP)
        except (TimeoutError, ServiceFaultError):
            return False


def _same(new: Progress, old: Progress) -> bool:
    """Tell whether nothing moved; the estimate of a run that hangs grows for ever."""
    return (new.stage, new.fraction, new.message) == (old.stage, old.fraction, old.message)


def _stage(sight: Sight) -> Stage:
    if sight.phase is Phase.QUEUED:
        return Stage.FIRST_BYTE
    return Stage.LOAD if sight.state.job_count < 0 else Stage.IDLE


def _seen(post: asyncio.Task[bytes]) -> None:
    """Take note of how the request failed, also when nobody waits for it any more."""
    if not post.cancelled():
        post.exception()


_STEP: Final[Seconds] = 0.05

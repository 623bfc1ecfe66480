"""The questions that a server with the API of A1111 answers about its work, and the one order that it takes."""

from enum import StrEnum
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from hostler.connectors.services.a1111.judge import expect, preview_in
from hostler.connectors.services.a1111.messages import PendingView, ProgressView, StateView, TaskView
from hostler.connectors.transports.http import Answer, HttpTransport
from hostler.contracts.preview import Preview
from hostler.kernel.units import Seconds

T = TypeVar("T")

PROGRESS: Final = "/sdapi/v1/progress?skip_current_image=true"
_EMPTY: Final = b"{}"


class Phase(StrEnum):
    """How the server says that one task is."""

    QUEUED = "queued"
    RUNNING = "running"
    GONE = "gone"
    """It never came, or has ended."""
    UNKNOWN = "unknown"
    """The server does not say whose work it does (started with `--nowebui`)."""


class Sight(Struct, frozen=True, kw_only=True):
    """One look at one task."""

    phase: Phase
    state: StateView
    """Of whatever work the server does; of the task when it is running."""
    fraction: float | None = None
    eta: Seconds | None = None
    text: str | None = None
    preview: Preview | None = None
    shown: int | None = None
    """The server's number of the picture that came with it, also of one that cannot be passed on."""


class A1111Server:
    """Asks one server. Its interrupt is global, so whose work is running is asked for before every one."""

    def __init__(self, http: HttpTransport, *, timeout: Seconds) -> None:
        self.http = http
        self._timeout = timeout

    async def get(self, path: str, shape: type[T], *, within: Seconds | None = None) -> T:
        """Ask for something."""
        return expect(await self._call("GET", path, within=within)).json(shape)

    async def progress(self, *, within: Seconds | None = None) -> ProgressView:
        """Ask what goes on, whoever's it is."""
        return await self.get(PROGRESS, ProgressView, within=within)

    async def waiting(self) -> int:
        """Return how many tasks wait; 0 where the server does not tell."""
        answer = await self._call("GET", "/internal/pending-tasks")
        return 0 if answer.status in _NO_SUCH_PATH else expect(answer).json(PendingView).size

    async def look(self, task: str, job: str, *, within: Seconds | None = None, shown: int | None = None) -> Sight:
        """Say how a task of the kind `job` (`scripts_txt2img`) is, with its picture if it is not the one `shown`.

        No picture is asked for while `shown` is None: the server draws them only for those who ask.
        After a task that failed the server goes on to call it active: it runs only while work of its kind goes on.
        """
        asked = {"id_task": task, "id_live_preview": -1 if shown is None else shown, "live_preview": shown is not None}
        body = msgspec.json.encode(asked)
        answer = await self._call("POST", "/internal/progress", body=body, within=within)
        if answer.status in _NO_SUCH_PATH:
            state = (await self.progress(within=within)).state
            return Sight(phase=Phase.UNKNOWN, state=state)
        view = expect(answer).json(TaskView)
        state = (await self.progress(within=within)).state
        if view.active and state.job_count != 0 and state.job == job:
            fraction = None if view.progress is None else min(max(view.progress, 0.0), 1.0)
            eta = None if view.eta is None else max(view.eta, 0.0)
            return Sight(
                phase=Phase.RUNNING,
                state=state,
                fraction=fraction,
                eta=eta,
                text=view.textinfo,
                preview=None if view.live_preview is None else preview_in(view.live_preview),
                shown=None if view.live_preview is None else view.id_live_preview,
            )
        return Sight(phase=Phase.QUEUED if view.queued else Phase.GONE, state=state, text=view.textinfo)

    async def interrupt(self) -> None:
        """Stop whatever runs."""
        expect(await self._call("POST", "/sdapi/v1/interrupt", body=_EMPTY))

    async def _call(
        self, method: str, path: str, *, body: bytes | None = None, within: Seconds | None = None
    ) -> Answer:
        limit = self._timeout if within is None else min(self._timeout, within)
        return await self.http.call(method, path, body=body, within=limit)


_NO_SUCH_PATH: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})

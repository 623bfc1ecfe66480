"""What a server says of itself and of its models; every verb raises `ServiceFaultError` when it cannot."""

import asyncio
from typing import Final, Literal

import msgspec

from hostler.connectors.faults import fault
from hostler.connectors.services.inference.messages import (
    IndexRow,
    ModelNames,
    ModelState,
    ModelView,
    ServerView,
    Yes,
)
from hostler.connectors.transports.http import Answer, HttpTransport, segment
from hostler.contracts.failure import Failure, FailureClass
from hostler.kernel.units import Seconds

MODELS_MAX: Final = 1_000
"""Models of one server that are offered, and that are asked one by one."""
NAME_MAX: Final = 128
"""Characters of a model's name that an offer can hold."""
AT_ONCE: Final = 8
"""Models that are asked at the same time."""
READY: Final = "READY"
UNSUPPORTED: Final = frozenset({404, 405, 501})
_NO_METHOD: Final = 405
_BUSY: Final = 503


def model_path(model: str, version: str | None = None) -> str:
    """Return the path of a model, or of one version of it."""
    path = f"/v2/models/{segment(model)}"
    return path if version is None else f"{path}/versions/{segment(version)}"


def says(body: bytes, word: Literal["ready", "live", "load", "unload"]) -> bool:
    """Tell whether the body of a 2xx says yes, or nothing: the status does, but a body may take it back."""
    try:
        return bool(getattr(msgspec.json.decode(body, type=Yes), word))
    except (msgspec.MsgspecError, UnicodeError):  # empty on MLServer and Triton
        return True


class ModelDirectory:
    """Asks one server; each question has `timeout` seconds."""

    def __init__(self, http: HttpTransport, *, timeout: Seconds) -> None:
        self._http = http
        self._timeout = timeout
        self._server: ServerView | None = None

    async def live(self) -> bool:
        """Ask whether it lives; raises the fault of a server that answers and does not."""
        return says((await self._get("/v2/health/live")).expect().body, "live")

    async def ready(self) -> bool:
        """Ask whether it is ready; MLServer says no while one of its models is not."""
        return _says_ready(await self._get("/v2/health/ready"))

    async def server(self) -> ServerView:
        """Ask for its name, version and extensions."""
        self._server = (await self._get("/v2")).expect().json(ServerView)
        return self._server

    async def known_server(self) -> ServerView:
        """Return what it said last, and ask when it was never asked."""
        return self._server or await self.server()

    async def index(self) -> tuple[IndexRow, ...] | None:
        """Ask for its repository; None where it has none (the extension is optional)."""
        answer = await self._http.call("POST", "/v2/repository/index", within=self._timeout, body=b"{}")
        if answer.status in UNSUPPORTED:
            return None
        return answer.expect().json(tuple[IndexRow, ...])

    async def state(self, model: str, version: str | None = None) -> ModelState:
        """Ask how a model is."""
        path = model_path(model, version)
        asked = await self._get(f"{path}/ready")
        if _says_ready(asked):
            return ModelState.READY
        if asked.status == _BUSY or (await self._get(path)).ok:
            return ModelState.LOADING
        rows = [row for row in await self.index() or () if row.name == model and _is(row, version)]
        if any(row.state == "LOADING" for row in rows):
            return ModelState.LOADING
        return ModelState.UNAVAILABLE if rows else ModelState.ABSENT

    async def reason(self, model: str) -> str:
        """Return why a model is not there, in the server's words; empty when it has none."""
        return next((row.reason for row in await self.index() or () if row.name == model and row.reason), "")

    async def models(self, rows: tuple[IndexRow, ...] | None) -> tuple[str, ...] | None:
        """Return the models that are ready, each also with its versions as `name:version`; None when it has no list.

        `rows` is its index; without one the list of KServe is asked for, and each model of it.
        """
        if rows is None:
            return await self._listed()
        named: dict[str, set[str]] = {}
        for row in rows:
            if row.state == READY:
                named.setdefault(row.name, set()).update({row.version} if row.version else ())
        return offered(named)

    async def streams(self, model: str) -> bool:
        """Ask whether it streams inferences (as MLServer does): a path that takes only POST is there."""
        return (await self._get(f"{model_path(model)}/infer_stream")).status == _NO_METHOD

    async def _listed(self) -> tuple[str, ...] | None:
        answer = await self._get("/v2/models")
        if not answer.ok:
            return None
        names = answer.json(ModelNames).models[:MODELS_MAX]
        gate = asyncio.Semaphore(AT_ONCE)

        async def versions(name: str) -> set[str] | None:
            async with gate:
                if not _says_ready(await self._get(f"{model_path(name)}/ready")):
                    return None
                answer = await self._get(model_path(name))
                return set(answer.json(ModelView).versions or ()) if answer.ok else set()

        found = await asyncio.gather(*map(versions, names))
        return offered({name: some for name, some in zip(names, found, strict=True) if some is not None})

    async def _get(self, path: str) -> Answer:
        return await self._http.call("GET", path, within=self._timeout)


def state_failure(state: ModelState, model: str, said: Failure) -> Failure | None:
    """Return the failure of a request that met a model in this state; None when the model is ready."""
    words = {
        ModelState.LOADING: "is not ready yet",
        ModelState.UNAVAILABLE: "is not loaded here",
        ModelState.ABSENT: "is not known here",
    }
    if state is ModelState.READY:
        return None
    # A model that comes by itself is waited for; any other has to be sought elsewhere, or loaded.
    class_ = FailureClass.OVERLOADED if state is ModelState.LOADING else FailureClass.CAPABILITY_MISMATCH
    return fault(
        class_,
        f"model {model} {words[state]}: {said.message}",
        retry_after=said.retry_after,
        **{**said.details, "code": f"model_{state}"},
    ).failure


def _says_ready(answer: Answer) -> bool:
    return answer.ok and says(answer.body, "ready")


def _is(row: IndexRow, version: str | None) -> bool:
    return version is None or row.version in {None, "", version}


def offered(named: dict[str, set[str]]) -> tuple[str, ...]:
    """Return names, and each also with its versions as `name:version`, as far as an offer can hold them."""
    found = [text for name in sorted(named) for text in (name, *(f"{name}:{one}" for one in sorted(named[name])))]
    return tuple(text for text in found if len(text) <= NAME_MAX)[:MODELS_MAX]

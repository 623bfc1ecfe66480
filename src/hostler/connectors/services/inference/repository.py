"""What a server says over gRPC of itself and of its models; every verb raises `ServiceFaultError` when it cannot."""

from typing import Final

from msgspec import structs

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.services.inference.directory import READY, offered
from hostler.connectors.services.inference.messages import IndexRow, ModelState, ServerView
from hostler.connectors.services.inference.rpc import (
    MODEL_METADATA,
    MODEL_READY,
    REPOSITORY_INDEX,
    SERVER_LIVE,
    SERVER_METADATA,
    SERVER_READY,
)
from hostler.connectors.transports.grpc import GrpcTransport
from hostler.kernel.units import Seconds

_NOT_READY: Final = frozenset({"NOT_FOUND", "UNKNOWN", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "INTERNAL"})
"""Statuses by which servers say of a model that it is not ready (MLServer `UNKNOWN` for one that it does not know)."""


class ModelRepository:
    """Asks one server; each question has `timeout` seconds."""

    def __init__(self, grpc: GrpcTransport, *, timeout: Seconds) -> None:
        self._grpc = grpc
        self._timeout = timeout
        self._server: ServerView | None = None

    async def live(self) -> bool:
        """Ask whether it lives."""
        return (await self._grpc.call(SERVER_LIVE, {}, within=self._timeout)).live

    async def ready(self) -> bool:
        """Ask whether it is ready; MLServer says no while one of its models is not."""
        return (await self._grpc.call(SERVER_READY, {}, within=self._timeout)).ready

    async def server(self) -> ServerView:
        """Ask for its name, version and extensions."""
        self._server = await self._grpc.call(SERVER_METADATA, {}, within=self._timeout)
        return self._server

    async def known_server(self) -> ServerView:
        """Return what it said last, and ask when it was never asked."""
        return self._server or await self.server()

    async def index(self) -> tuple[IndexRow, ...] | None:
        """Ask for its repository; None where it has none (the extension is optional).

        MLServer writes states as `State.READY` here.
        """
        try:
            rows = (await self._grpc.call(REPOSITORY_INDEX, {}, within=self._timeout)).models
        except ServiceFaultError as error:
            if _status(error) == "UNIMPLEMENTED":
                return None
            raise
        return tuple(structs.replace(row, state=(row.state or "").rpartition(".")[2]) for row in rows)

    async def state(self, model: str, version: str | None = None) -> ModelState:
        """Ask how a model is."""
        if await self._is_ready(model, version):
            return ModelState.READY
        if await self._is_known(model, version):
            return ModelState.LOADING
        rows = [row for row in await self.index() or () if row.name == model and _is(row, version)]
        if any(row.state == "LOADING" for row in rows):
            return ModelState.LOADING
        return ModelState.UNAVAILABLE if rows else ModelState.ABSENT

    async def reason(self, model: str) -> str:
        """Return why a model is not there, in the server's words; empty when it has none."""
        return next((row.reason for row in await self.index() or () if row.name == model and row.reason), "")

    def models(self, rows: tuple[IndexRow, ...] | None) -> tuple[str, ...] | None:
        """Return the models of an index that are ready, each also with its versions; None without an index."""
        if rows is None:
            return None
        named: dict[str, set[str]] = {}
        for row in rows:
            if row.state == READY:
                named.setdefault(row.name, set()).update({row.version} if row.version else ())
        return offered(named)

    async def _is_ready(self, model: str, version: str | None) -> bool:
        asked = {"name": model, "version": version or ""}
        try:
            return (await self._grpc.call(MODEL_READY, asked, within=self._timeout)).ready
        except ServiceFaultError as error:
            if _status(error) in _NOT_READY:
                return False
            raise

    async def _is_known(self, model: str, version: str | None) -> bool:
        asked = {"name": model, "version": version or ""}
        try:
            await self._grpc.call(MODEL_METADATA, asked, within=self._timeout)
        except ServiceFaultError as error:
            if _status(error) in _NOT_READY:
                return False
            raise
        return True


def _status(error: ServiceFaultError) -> object:
    return error.failure.details.get("status")


def _is(row: IndexRow, version: str | None) -> bool:
    return version is None or row.version in {None, "", version}

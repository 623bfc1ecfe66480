"""Runs one route: judges what came in, calls the handler, turns what comes out into an answer."""

from collections.abc import AsyncIterator
from typing import Any, Final

import litestar
import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream
from litestar.types import Method

from hostler.gateway.bodies import json_body, operation_id, query_of
from hostler.gateway.operation import PROBLEM, Answer, Call, Operation
from hostler.gateway.problems import as_hostler_error, headers_of, problem
from hostler.gateway.shapes import judge_path
from hostler.kernel.errors import InternalError
from hostler.kernel.units import Bytes
from hostler.telemetry.logs import logger

_LOG = logger("gateway")
Request = litestar.Request[Any, Any, Any]
Response = litestar.Response[Any]
_CHARSET: Final = "; charset=utf-8"
"""Litestar adds it to every text type by itself."""


def route_of(operation: Operation[Any, Any], *, body_limit: Bytes) -> HTTPRouteHandler:
    """Return the Litestar handler of an operation."""

    async def endpoint(request: Request) -> Response:
        request.scope["state"]["route"] = operation.template
        try:
            return respond(await _run(operation, request, body_limit))
        except Exception as error:  # noqa: BLE001 - every error of a route is answered here, a defect as `internal`
            return refuse(request, error)

    endpoint.__name__ = operation.id
    methods: list[Method] = [operation.method]
    return HTTPRouteHandler(operation.path, http_method=methods, include_in_schema=False, status_code=200)(endpoint)


async def _run(operation: Operation[Any, Any], request: Request, body_limit: Bytes) -> Answer:
    path = judge_path(request.path_params)
    query = query_of(request, operation.query)
    call = Call(path=path, operation=operation_id(request) if operation.mutates else "", request=request)
    body: Any = None
    if operation.body is not None and operation.body is not bytes:
        body = await json_body(request, operation.body, limit=body_limit, optional=operation.body_optional)
    return await operation.handler(call, query, body)


def respond(answer: Answer) -> Response:
    """Return a handler's answer as Litestar sends it."""
    stream, media_type = answer.stream, answer.media_type.removesuffix(_CHARSET)
    if stream is not None:
        return Stream(_closing(stream), status_code=answer.status, media_type=media_type, headers=dict(answer.headers))
    content = answer.body if isinstance(answer.body, bytes) else msgspec.json.encode(answer.body)
    return litestar.Response(content, status_code=answer.status, media_type=media_type, headers=dict(answer.headers))


async def _closing(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Hand a stream on and close it whatever happens, so that what it holds is given back at once."""
    try:
        async for part in stream:
            yield part
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


def refuse(request: Request, error: Exception) -> Response:
    """Return the problem document of an error; a defect is logged with its trace."""
    known = as_hostler_error(error)
    visit = request.scope["state"].get("visit")
    request_id: str = getattr(visit, "request_id", "")
    if isinstance(known, InternalError):
        _LOG.error("http.defect", method=request.method, route=request.url.path, error=repr(error), exc_info=error)
    document = problem(known, request_id=request_id, instance=request.url.path)
    headers = headers_of(document)
    return litestar.Response(
        msgspec.json.encode(document), status_code=known.status, media_type=PROBLEM, headers=headers
    )

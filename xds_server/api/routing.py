"""From method and path to a handler: identity, errors, measurements around it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from xds_server.api.access import identify
from xds_server.api.body import check_accept
from xds_server.api.errors import ApiError, PlainError, api_error
from xds_server.api.parts import ApiParts
from xds_server.api.responses import json_response, text_response
from xds_server.incoming import Incoming
from xds_server.tokens.subject import User

_log = structlog.get_logger(__name__)


class Call(NamedTuple):
    """A request and who makes it."""

    request: Request
    user: User

    def path(self, name: str) -> str:
        """A parameter of the path."""
        return str(self.request.path_params[name])


class Handler(NamedTuple):
    """What answers one method; `title` is that of its error bodies (R §4.2), `media` the type of its answers."""

    title: str
    answer: Callable[[Call], Awaitable[Response]]
    media: str = "application/json"


class Endpoint:
    """All methods of one path, as an ASGI application. `route` names it in metrics."""

    def __init__(self, route: str, handlers: Mapping[str, Handler], parts: ApiParts) -> None:
        self._route = route
        self._handlers = handlers
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        incoming = Incoming(receive)
        request = Request(scope, incoming)
        metrics = self._parts.telemetry.api
        began_s = time.perf_counter()
        metrics.began(self._route)
        code, size = 500, 0
        try:
            response = await self._answered(request)
            code, size = response.status_code, len(response.body)
            _allow_origin(request, response, self._parts)
            await incoming.discard(request)
            await response(scope, receive, send)
        finally:
            method = request.method if request.method in self._handlers else "other"
            metrics.ended(self._route, method, code, time.perf_counter() - began_s, size)

    async def _answered(self, request: Request) -> Response:
        handler = self._handlers.get(request.method)
        if handler is None:
            return self._preflight(request) or text_response(
                "405: Method Not Allowed", 405, {"Allow": ", ".join(self._handlers)}
            )
        try:
            check_accept(request, handler.media)
            localhost_is_admin = self._parts.config.api_server.authn.localhost_is_admin
            user = await identify(request, self._parts.authority, localhost_is_admin=localhost_is_admin)
            return await handler.answer(Call(request, user))
        except PlainError as plain:
            return text_response(plain.text, plain.status, plain.headers)
        except Exception as failure:  # noqa: BLE001  # whatever a handler failed by, its client gets an answer
            error = api_error(failure)
            if error is None:
                _log.exception("a request failed", method=request.method, route=self._route)
                error = ApiError(500, "Internal Server Error")
            return json_response(error.body(handler.title), error.status)

    def _preflight(self, request: Request) -> Response | None:
        """The answer to a preflight. One that asks for request headers gets no permission (R §4.4)."""
        asked = request.method == "OPTIONS" and "access-control-request-method" in request.headers
        if not asked or "origin" not in request.headers or "access-control-request-headers" in request.headers:
            return None
        return text_response("", 200, {"Access-Control-Allow-Methods": ", ".join(self._handlers)})


def _allow_origin(request: Request, response: Response, parts: ApiParts) -> None:
    origin = request.headers.get("origin")
    if origin is None or "access-control-request-headers" in request.headers:
        return
    if any(pattern == origin or regex.fullmatch(origin) for pattern, regex in parts.origins):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "Access-Control-Allow-Origin"
        response.headers["Vary"] = "Origin"

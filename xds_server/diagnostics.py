"""`/ready`, `/healthy` and `/metrics` on 5680 (R §9.6)."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from xds_server.telemetry import CONTENT_TYPE, Telemetry


def diagnostics_app(telemetry: Telemetry, not_ready: Callable[[], str | None]) -> Starlette:
    """The ASGI application. `not_ready` says what is missing before proxies can be served, None when nothing is.

    While the control plane drains it must name that: load balancers then send nobody new.
    """

    async def ready(_request: Request) -> Response:
        reason = not_ready()
        return Response() if reason is None else PlainTextResponse(f"not ready: {reason}\n", 503)

    async def healthy(_request: Request) -> Response:
        return Response()

    async def metrics(_request: Request) -> Response:
        return Response(telemetry.exposition(), media_type=CONTENT_TYPE)

    return Starlette(
        routes=[Route("/ready", ready), Route("/healthy", healthy), Route("/metrics", metrics)],
        exception_handlers={404: _not_found},
    )


async def _not_found(_request: Request, _error: Exception) -> Response:
    return PlainTextResponse("404 page not found\n", 404)

"""`/ready`, `/healthy` and `/metrics` on 5680 (R §9.6)."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from snapshot.registry import TYPES
from xds_server.clock import Clock
from xds_server.store.contract import ResourceStore, StoreError
from xds_server.telemetry import CONTENT_TYPE, Telemetry

_log = structlog.get_logger(__name__)
_COUNT_PERIOD_S = 60.0


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


async def count_resources(telemetry: Telemetry, store: ResourceStore, clock: Clock) -> None:
    """Keep `resources_count` current to the minute, as in Kuma, until cancelled."""
    while True:
        try:
            for type_name in TYPES:
                telemetry.resources(type_name, (await store.list(type_name, size=1)).total)
        except StoreError as error:
            _log.warning("resources cannot be counted", error=str(error))
        await clock.sleep(_COUNT_PERIOD_S)


async def _not_found(_request: Request, _error: Exception) -> Response:
    return PlainTextResponse("404 page not found\n", 404)

"""The DP server: `/bootstrap` and nothing else (R §7.1)."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from xds_server.bootstrap.generator import BootstrapGenerator, Outcome
from xds_server.bootstrap.request import BootstrapRequest
from xds_server.bootstrap.text import as_yaml
from xds_server.incoming import Incoming
from xds_server.store.contract import StoreUnavailable
from xds_server.telemetry import HttpMetrics

_log = structlog.get_logger(__name__)
_BODY_LIMIT: Final = 4 * 1024 * 1024
_SLOWEST_S: Final = 30.0
_LONGEST_REFUSAL: Final = 8 * 1024


def bootstrap_app(generator: BootstrapGenerator, metrics: HttpMetrics) -> Starlette:
    """The ASGI application of the DP server."""
    app = Starlette(routes=[Route("/bootstrap", _Bootstrap(generator, metrics))], exception_handlers={404: _not_found})
    app.router.redirect_slashes = False
    return app


class _Bootstrap:
    """Any method, as in Kuma; the body decides."""

    def __init__(self, generator: BootstrapGenerator, metrics: HttpMetrics) -> None:
        self._generator = generator
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began_s = time.perf_counter()
        self._metrics.began("/bootstrap")
        code, size = 500, 0
        try:
            incoming = Incoming(receive)
            request = Request(scope, incoming)
            response = await self._answer(request)
            await incoming.discard(request)
            code, size = response.status_code, len(response.body)
            await response(scope, receive, send)
        finally:
            self._metrics.ended("/bootstrap", "POST", code, time.perf_counter() - began_s, size)

    async def _answer(self, http: Request) -> Response:
        try:
            request = msgspec.json.decode(await _body(http), type=BootstrapRequest)
            values = await self._generator.generate(request, http.headers.get("host", ""))
        except Outcome as outcome:
            return PlainTextResponse(_bounded(outcome.text), outcome.status)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ClientDisconnect):
            return Response(status_code=400)
        except StoreUnavailable as error:
            return PlainTextResponse(f"the store is not available: {error}", 503)
        except Exception:  # noqa: BLE001  # whatever fails, kuma-dp gets an answer
            _log.exception("a bootstrap failed")
            return Response(status_code=500)
        return Response(as_yaml(values), headers={"content-type": "text/x-yaml", "kuma-bootstrap-version": "3"})


def _bounded(text: str) -> str:
    """Thousands of violations help nobody, and would answer an anonymous request with more than it sent."""
    return text if len(text) <= _LONGEST_REFUSAL else text[:_LONGEST_REFUSAL] + " …"


async def _body(http: Request) -> bytes:
    parts, size = [], 0
    try:
        async with asyncio.timeout(_SLOWEST_S):
            async for part in http.stream():
                size += len(part)
                if size > _BODY_LIMIT:
                    raise Outcome(413, f"the request must not exceed {_BODY_LIMIT} bytes")
                parts.append(part)
    except TimeoutError as error:
        raise Outcome(408, f"the request did not arrive within {_SLOWEST_S:g} s") from error
    return b"".join(parts)


async def _not_found(_request: Request, _error: Exception) -> Response:
    return PlainTextResponse("404 page not found\n", 404)

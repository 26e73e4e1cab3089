"""Lists, page by page (R §4.3)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from xds_server.api.errors import ApiError
from xds_server.api.responses import json_response, printed
from xds_server.store.contract import Page

_DEFAULT_SIZE: Final = 100
_MAX_SIZE: Final = 1000
_DIGITS: Final = 18


class Window(NamedTuple):
    """Which part of a list is asked for; `size` None is all of it."""

    offset: int
    size: int | None


def window(request: Request) -> Window:
    """`size` and `offset` of the query. Raises ApiError 400."""
    size = _number(request, "size", _DEFAULT_SIZE, "Invalid page size")
    if size > _MAX_SIZE:
        message = f"Invalid page size of {size}. Maximum page size is {_MAX_SIZE}"
        raise ApiError(400, "Invalid page size", [("size", message)])
    return Window(_number(request, "offset", 0, "Invalid offset"), size or None)


def page_response(request: Request, part: Window, page: Page) -> Response:
    """The page, and where the next one is."""
    return json_response(
        {"total": page.total, "items": [printed(stored) for stored in page.items], "next": _next(request, part, page)}
    )


def _next(request: Request, part: Window, page: Page) -> Any:
    if part.size is None or part.offset + part.size >= page.total:
        return None
    query = {key: value for key, value in request.query_params.multi_items() if key != "offset"}
    query["offset"] = str(part.offset + part.size)
    host = request.headers.get("host") or str(request.url.netloc)
    return f"{request.url.scheme}://{host}{request.scope['path']}?{urlencode(query)}"


def _number(request: Request, name: str, default: int, details: str) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise ApiError(400, details, [(name, "Invalid format")])
    return int(text)

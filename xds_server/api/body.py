"""Request bodies: bounded, of a known kind, parsed without surprises."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
import yaml
from starlette.requests import ClientDisconnect, Request

from xds_server.api.errors import ApiError, PlainError

_SLOWEST_S: Final = 30.0
_JSON: Final = frozenset({"application/json"})
_YAML: Final = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})


async def read_body(request: Request, limit: int) -> bytes:
    """At most `limit` bytes. Raises ApiError 413, and 408 for a peer that dribbles."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    parts, size = [], 0
    try:
        async with asyncio.timeout(_SLOWEST_S):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError as error:
        raise ApiError(408, f"The body did not arrive within {_SLOWEST_S:g} s") from error
    except ClientDisconnect as error:
        raise ApiError(400, "The request ended before its body") from error
    return b"".join(parts)


async def read_document(request: Request, limit: int, malformed: str) -> Any:
    """The body, JSON or YAML, as plain values; `malformed` is the `details` of a body that is neither.

    Raises PlainError 415, ApiError 400 and 413.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in _JSON | _YAML:
        raise PlainError(415, "415: Unsupported Media Type")
    body = await read_body(request, limit)
    try:
        return msgspec.json.decode(body) if media in _JSON else await asyncio.to_thread(_parsed_yaml, body)
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        kind = "JSON" if media in _JSON else "YAML"
        raise ApiError(400, malformed, [("body", f"is not {kind}: {_first_line(error)}")]) from error


def check_accept(request: Request, media: str = "application/json") -> None:
    """The route answers in `media`. Raises PlainError 406."""
    wanted = ",".join(request.headers.getlist("accept"))
    taken = {"", "*/*", f"{media.partition('/')[0]}/*", media, "application/json"}
    if any(accept.partition(";")[0].strip().lower() in taken for accept in wanted.split(",")):
        return
    raise PlainError(406, "406: Not Acceptable")


def _parsed_yaml(body: bytes) -> Any:
    text = body.decode()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.AliasEvent):  # a few nested ones multiply into gigabytes
            raise yaml.YAMLError("aliases (*name) are not allowed here; write the value out")
    return yaml.load(text, loader)  # noqa: S506  # one of the two safe loaders


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "Request is too large", [("body", f"must not exceed {limit} bytes (apiServer.bodyLimit)")])

"""How answers are written: JSON indented by one space, with a newline at its end (R §4.1)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from snapshot.model.kinds import Scope, kind_of
from snapshot.model.times import format_meta_time
from xds_server.store.contract import Stored

_LONGEST_WARNING = 400


def json_response(body: Any, status: int = 200) -> Response:
    """JSON as Kuma prints it. A long list must not keep the loop: msgspec takes a fortieth of json's time."""
    try:
        text = msgspec.json.format(msgspec.json.encode(body), indent=1)
    except UnicodeEncodeError:  # a lone surrogate, which an Envoy's dump may hold: UTF-8 cannot, an escape can
        text = json.dumps(body, indent=1).encode()
    return Response(text + b"\n", status, media_type="application/json")


def compact_json(body: Any) -> Response:
    """JSON without spaces (`/config`)."""
    return Response(json.dumps(body, separators=(",", ":")), media_type="application/json")


def text_response(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Plain text."""
    return Response(text, status, dict(headers or {}), media_type="text/plain")


def written(status: int, warnings: Iterable[str]) -> Response:
    """The empty answer to a write; each warning is a header `Warning: 299 - "text"` (RFC 7234 §5.5)."""
    response = Response(status_code=status)
    for warning in warnings:
        text = "".join(c if c.isascii() and c.isprintable() else "?" for c in warning)[:_LONGEST_WARNING]
        response.headers.append("Warning", '299 - "' + text.replace("\\", "\\\\").replace('"', "'") + '"')
    return response


def printed(stored: Stored) -> dict[str, Any]:
    """A stored resource as REST prints it: meta, then the spec, which already has that form (R §0)."""
    key = stored.key
    meta: dict[str, Any] = {"type": key.type}
    if kind_of(key.type).scope is Scope.MESH:
        meta["mesh"] = key.mesh
    meta["name"] = key.name
    meta["creationTime"] = format_meta_time(stored.creation_time)
    meta["modificationTime"] = format_meta_time(stored.modification_time)
    return {**meta, **stored.spec}

"""`/meshes/{mesh}/dataplanes/{name}/xds`: what an Envoy really runs, asked of its admin interface (R §4.7)."""

from __future__ import annotations

import asyncio
import json
import ssl
from functools import cached_property
from typing import Any, Final

import httpx
from starlette.responses import Response

from snapshot.model.codec import decode_spec
from snapshot.model.dataplane import Networking
from snapshot.model.meta import ProxyKey, ResourceKey
from xds_server.api.access import ACTION, require
from xds_server.api.errors import ApiError
from xds_server.api.parts import ApiParts
from xds_server.api.responses import json_response
from xds_server.api.routing import Call, Handler

_CONNECT_S: Final = 3.0
_TOTAL_S: Final = 5.0
_MAX_DUMP: Final = 64 * 1024 * 1024
"""Parsed, a dump takes ten times as much; whoever holds a token of a proxy decides what its admin answers."""
_LOCAL: Final = "127.0.0.1"
_REDACTED: Final = "[redacted]"


class ConfigDump:
    """The handler."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._one_at_a_time = asyncio.Lock()
        self.get = Handler("Could not get config_dump", self._get)

    async def _get(self, call: Call) -> Response:
        require(call.user, self._parts.config.access.static.view_config_dump, ACTION)
        stored = await self._parts.store.get(ResourceKey("Dataplane", call.path("mesh"), call.path("name")))
        if stored is None:
            raise ApiError(404, "Not found", title="Could not get dataplane resource")
        mesh, name = call.path("mesh"), call.path("name")
        url = self._url(decode_spec("Dataplane", stored.spec).spec.networking, ProxyKey(mesh, name))
        try:
            async with asyncio.timeout(_TOTAL_S), self._one_at_a_time:
                dump = await self._fetch(url, f"{mesh}.{name}")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError) as error:
            why = f"{url}: {str(error) or type(error).__name__}"
            raise ApiError(500, "Internal Server Error", [("envoy", why)]) from error
        return json_response(dump)

    def _url(self, networking: Networking, proxy: ProxyKey) -> str:
        """Where its admin listens: the port that the connected Envoy has, else the one it is going to have."""
        port = self._parts.admin_port(proxy)
        if port is None:
            port = networking.admin.port if networking.admin else 0
            port = port or self._parts.config.bootstrap_server.params.admin_port
        if not port:
            raise ApiError(500, "Internal Server Error", [("envoy", "this proxy runs without an admin interface")])
        host = networking.advertised_address or networking.address
        scheme = "http" if host == _LOCAL else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/config_dump"

    async def _fetch(self, url: str, node_id: str) -> Any:
        timeout = httpx.Timeout(_TOTAL_S, connect=_CONNECT_S)
        client = httpx.AsyncClient(verify=self._tls, timeout=timeout, trust_env=False)
        async with client, client.stream("GET", url) as response:
            response.raise_for_status()
            parts, size = [], 0
            async for part in response.aiter_bytes():
                size += len(part)
                if size > _MAX_DUMP:
                    raise ValueError(f"answered with more than {_MAX_DUMP >> 20} MiB")
                parts.append(part)
        return await asyncio.to_thread(_parsed, b"".join(parts), node_id)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Shows our certificate. Envoy's own is not verified while meshes have no mTLS, as in Kuma."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(self._parts.client_cert, self._parts.client_key)
        return context


def _parsed(body: bytes, node_id: str) -> Any:
    """The redacted dump. Raises ValueError where another Envoy answered: ports are reused, addresses shared."""
    dump = json.loads(body)
    for section in _objects(dump.get("configs") if isinstance(dump, dict) else None):
        for node in _objects([bootstrap.get("node") for bootstrap in _objects([section.get("bootstrap")])]):
            if node.get("id", node_id) != node_id:
                raise ValueError(f"the Envoy of {node['id']} answers there, not that of {node_id}")
    return redacted(dump)


def _objects(values: object) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def redacted(dump: Any) -> Any:
    """The dump without credentials: every value of a header or metadata key `authorization`."""
    if isinstance(dump, list):
        return [redacted(item) for item in dump]
    if not isinstance(dump, dict):
        return dump
    credential = str(dump.get("key", "")).lower() == "authorization" and "value" in dump
    clean = {key: redacted(value) for key, value in dump.items()}
    return {**clean, "value": _REDACTED} if credential else clean

"""A mesh in a test: `Mesh` with stub services and short words for what tests say most often."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from snapshot.model.tags import PROTOCOL, SERVICE
from xds_server.demo.processes import LOOPBACK, Mesh, Proxy, free_port
from xds_server.demo.services import Service, counter_service, http_service, redis_command


class MeshProxy:
    """A proxy of a test and the ports that belong to it."""

    def __init__(self, proxy: Proxy, outbounds: Mapping[str, int]) -> None:
        self.proxy = proxy
        self._outbounds = outbounds

    def port_of(self, service: str) -> int:
        """The local port that leads to `service`."""
        return self._outbounds[service]


class TestMesh(Mesh):
    """`Mesh`, plus stub services that live as long as it does."""

    __test__ = False

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, settings)
        self._stubs = ExitStack()

    def __exit__(self, *details: object) -> None:
        with self._stubs:
            super().__exit__(*details)

    def proxy(
        self,
        name: str,
        *,
        service: str,
        outbounds: Sequence[str] = (),
        stub: Service | None = None,
        tags: Mapping[str, str] | None = None,
        protocol: str = "delta",
        wait: bool = True,
    ) -> MeshProxy:
        """Start a proxy: a gateway without `stub`, else with an inbound in front of it, and one outbound a service."""
        ports = {destination: free_port() for destination in outbounds}
        own = {SERVICE: service, **(tags or {})}
        networking: dict[str, Any] = {
            "outbound": [{"port": port, "tags": {SERVICE: destination}} for destination, port in ports.items()]
        }
        if stub is None:
            networking["gateway"] = {"tags": own}
        else:
            networking["inbound"] = [{"port": free_port(), "servicePort": stub.port, "tags": own}]
        return MeshProxy(self.run_proxy({"name": name, "networking": networking}, protocol=protocol, wait=wait), ports)

    def tcp_service(self, service: str, *, name: str = "", protocol: str = "delta") -> MeshProxy:
        """A counter that speaks a little RESP, behind an Envoy."""
        stub = self._stubs.enter_context(counter_service())
        return self.proxy(name or f"{service}-1", service=service, stub=stub, protocol=protocol)

    def http_service(
        self,
        service: str,
        answer: Callable[[str, Mapping[str, str]], object] | None = None,
        *,
        name: str = "",
        outbounds: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        protocol: str = "delta",
    ) -> MeshProxy:
        """An HTTP service behind an Envoy; it answers with its name, the path and the headers it saw."""
        own = name or f"{service}-1"
        stub = self._stubs.enter_context(
            http_service(answer or (lambda path, headers: {"name": own, "path": path, "headers": dict(headers)}))
        )
        own_tags = {PROTOCOL: "http", **(tags or {})}
        return self.proxy(own, service=service, stub=stub, outbounds=outbounds, tags=own_tags, protocol=protocol)

    def redis_command(self, port: int, command: str) -> str:
        """One inline command to `port` on loopback."""
        return redis_command(port, command)

    def get(self, port: int, path: str = "/", **headers: str) -> httpx.Response:
        """An HTTP GET to `port` on loopback."""
        return httpx.get(f"http://{LOOPBACK}:{port}{path}", headers=headers, timeout=10, trust_env=False)

"""The whole product as its users have it: `kuma-cp run` with every listener on, and a well-behaved proxy."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from snapshot.cache.type_url import CLUSTER, ENDPOINT
from tests.support import xds_client
from xds_server.certs.pair import CERT_FILE
from xds_server.demo.processes import LOOPBACK, ControlPlane, Process, free_port

SERVED_WITHIN_S = 1.0
POLL_S = 0.02
KUMA_DP = (sys.executable, "-m", "xds_server.dp.main", "run")
KUMACTL = (sys.executable, "-m", "xds_server.cli.kumactl")
KUMA_CP = (sys.executable, "-m", "xds_server.cli.kuma_cp", "run")


def dataplane(name: str, service: str = "", **networking: Any) -> dict[str, Any]:
    """A Dataplane: with an inbound of `service`, or of the given networking alone."""
    if service:
        networking.setdefault("inbound", [{"port": free_port(), "tags": {"kuma.io/service": service}}])
    return {
        "type": "Dataplane",
        "mesh": "default",
        "name": name,
        "networking": {"address": LOOPBACK, **networking},
    }


async def eventually(condition: Callable[[], bool], what: str, within_s: float = 10.0) -> None:
    """Return when `condition` holds."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not happen within {within_s:g} s"
        await asyncio.sleep(POLL_S)


class RunningControlPlane(ControlPlane):
    """`kuma-cp run` on free ports, REST over TLS included."""

    PORTS: Mapping[str, str] = {**ControlPlane.PORTS, "rest_tls": "KUMA_API_SERVER_HTTPS_PORT"}

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, {"KUMA_API_SERVER_HTTPS_ENABLED": "true", **(settings or {})})
        self.work_dir = directory / "cp"
        self._numbers = itertools.count(1)

    @property
    def env(self) -> dict[str, str]:
        """The environment that gives it its settings."""
        return dict(self._env)

    @property
    def ca_pem(self) -> bytes:
        """The certificate that it presents."""
        return (self.work_dir / CERT_FILE).read_bytes()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.running

    @property
    def log(self) -> str:
        """Everything it said."""
        return (self.directory / "kuma-cp.log").read_text(errors="replace")

    def unique(self, stem: str) -> str:
        """A name that nobody has."""
        return f"{stem}-{next(self._numbers)}"

    def put(self, document: Mapping[str, Any]) -> httpx.Response:
        """Store a resource of the mesh, or a Mesh."""
        kind = {"Dataplane": "dataplanes", "Secret": "secrets", "TrafficRoute": "traffic-routes"}.get(document["type"])
        path = f"/meshes/{document['mesh']}/{kind}/{document['name']}" if kind else f"/meshes/{document['name']}"
        return self.rest.put(path, json=dict(document)).raise_for_status()

    def token(self, **claims: Any) -> str:
        """A data plane token; of mesh `default` where nothing else is said."""
        return self.rest.post("/tokens/dataplane", json={"mesh": "default", **claims}).raise_for_status().text

    def secret(self, name: str, mesh: str = "default") -> bytes:
        """The data of a stored Secret."""
        return base64.b64decode(self.rest.get(f"/meshes/{mesh}/secrets/{name}").raise_for_status().json()["data"])

    def put_secret(self, name: str, data: bytes, mesh: str = "default") -> None:
        """Store a Secret."""
        self.put({"type": "Secret", "mesh": mesh, "name": name, "data": base64.b64encode(data).decode()})

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of one metric that carry these labels."""
        text = httpx.get(f"http://{LOOPBACK}:{self.ports['diagnostics']}/metrics", timeout=5).text
        total = 0.0
        for line in re.findall(rf"^{name}(?:{{.*}})? .*$", text, re.MULTILINE):
            if all(f'{label}="{value}"' in line for label, value in labels.items()):
                total += float(line.rpartition(" ")[2])
        return total

    def descriptors(self) -> int:
        """Open file descriptors of the process."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def channel(self, **options: int) -> Any:
        """A connection of its own to the ADS port."""
        return xds_client.channel(self.ports["xds"], self.ca_pem, **options)

    def run(self, argv: tuple[str, ...], stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the product to its end."""
        own = {"KUMA_GENERAL_WORK_DIR": str(self.work_dir), "XDG_STATE_HOME": str(self.directory / "state"), **env}
        return subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=30, env={**os.environ, **own}, check=False
        )

    def kumactl(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `kumactl` as this machine's administrator."""
        return self.run((*KUMACTL, f"--address=http://{LOOPBACK}:{self.ports['rest']}", *argv), stdin)

    def kuma_dp_argv(self, definition: Path, token: Path, *more: str) -> list[str]:
        """The command line of a `kuma-dp run`."""
        flags = [f"--cp-address={self.url}", f"--dataplane-file={definition}", f"--dataplane-token-file={token}"]
        return [*KUMA_DP, *flags, "--concurrency=1", *more]

    def kuma_dp(self, name: str, definition: str, token: str, *more: str) -> Process:
        """Start `kuma-dp run`; `name` names its files."""
        template, token_file = self.directory / f"{name}.yaml", self.directory / f"{name}.token"
        template.write_text(definition, encoding="utf-8")
        token_file.write_text(token, encoding="utf-8")
        env = {"KUMA_GENERAL_WORK_DIR": str(self.work_dir), "XDG_STATE_HOME": str(self.directory / "state")}
        argv = self.kuma_dp_argv(template, token_file, *more)
        return Process(f"kuma-dp {name}", argv, self.directory / f"{name}.log", env)


class Neighbour:
    """A well-behaved proxy on the same control plane: it must be served, whatever others do."""

    PORTS = itertools.count(20_000)

    def __init__(self, plane: RunningControlPlane) -> None:
        self._plane = plane
        self._channel = plane.channel()
        self._node = xds_client.node("default.neighbour")
        self.stream = xds_client.XdsStream(self._channel, xds_client.DELTA_METHOD, plane.token(name="neighbour"))

    async def join(self) -> None:
        """Connect, and get clusters and endpoints."""
        outbound = [{"port": 10_000, "tags": {"kuma.io/service": "pulse"}}]
        gateway = {"tags": {"kuma.io/service": "neighbour"}}
        self._plane.put(dataplane("neighbour", gateway=gateway, outbound=outbound))
        self._pulse()
        await self.stream.send(node=self._node, type_url=CLUSTER, resource_names_subscribe=["*"])
        await self.stream.ack(await self.stream.receive(SERVED_WITHIN_S))
        await self.stream.send(type_url=ENDPOINT, resource_names_subscribe=["pulse"])
        await self.is_served()

    def _pulse(self) -> int:
        port = next(self.PORTS)
        inbound = [{"port": port, "tags": {"kuma.io/service": "pulse"}}]
        self._plane.put(dataplane("pulse-1", inbound=inbound))
        return port

    async def is_served(self) -> float:
        """A change made now arrives in time; the seconds it took."""
        began_s = time.monotonic()
        port = self._pulse()
        while port not in await self._ports():
            assert time.monotonic() - began_s < SERVED_WITHIN_S, "the well-behaved proxy was not served in time"
        return time.monotonic() - began_s

    async def _ports(self) -> set[int]:
        response = await self.stream.receive(SERVED_WITHIN_S)
        await self.stream.ack(response)
        return {
            endpoint.endpoint.address.socket_address.port_value
            for resource in response.resources
            if response.type_url == ENDPOINT
            for locality in ClusterLoadAssignment.FromString(resource.resource.value).endpoints
            for endpoint in locality.lb_endpoints
        }

    async def leave(self) -> None:
        """Close the connection."""
        await self._channel.close()

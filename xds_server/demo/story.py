"""`kuma-cp demo`: a control plane, three services and three real Envoys; traffic through all of them, hop by hop."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from snapshot.model.tags import PROTOCOL, SERVICE
from xds_server.demo.processes import LOOPBACK, Mesh, Proxy, StartError, free_port
from xds_server.demo.services import counter_service, http_service, redis_command

BEAT_S = 2.0
KEY = "visits"


class CheckError(Exception):
    """The mesh runs, but what came through it is wrong."""


class Demo:
    """The running demo: three proxies, and what leads into them."""

    def __init__(self, mesh: Mesh, stack: ExitStack, console: Console) -> None:
        self.mesh = mesh
        self._console = console
        self._redis_outbound, self._backend_outbound = free_port(), free_port()
        redis = stack.enter_context(counter_service())
        backend = stack.enter_context(http_service(self._visit))
        self.proxies: list[Proxy] = [
            self._start("redis-1", inbound(redis.port, {SERVICE: "redis", PROTOCOL: "tcp"})),
            self._start(
                "backend-1",
                inbound(backend.port, {SERVICE: "backend", PROTOCOL: "http"}) | outbound(self._redis_outbound, "redis"),
            ),
            self._start(
                "client-1", {"gateway": {"tags": {SERVICE: "client"}}} | outbound(self._backend_outbound, "backend")
            ),
        ]
        for proxy in self.proxies:
            proxy.wait_ready()

    def _start(self, name: str, networking: Mapping[str, Any]) -> Proxy:
        self._console.print(f"  starting [bold]{name}[/] with an Envoy beside it")
        return self.mesh.run_proxy({"name": name, "networking": networking}, wait=False)

    def _visit(self, path: str, headers: Mapping[str, str]) -> object:
        """What the backend does with a request: count it in redis, through its own Envoy."""
        return {
            "path": path,
            "redis": redis_command(self._redis_outbound, f"INCR {KEY}"),
            "via": headers.get("x-envoy-expected-rq-timeout-ms"),
        }

    @property
    def url(self) -> str:
        """Where the client's Envoy takes requests for the backend."""
        return f"http://{LOOPBACK}:{self._backend_outbound}/hello"

    def request(self) -> int:
        """One request through all three Envoys; the counter's value. CheckError when it is not what it should be."""
        response = httpx.get(self.url, timeout=5, trust_env=False)
        if response.status_code != httpx.codes.OK:
            raise CheckError(f"GET {self.url} was answered {response.status_code} {response.text!r}")
        body = response.json()
        if body["path"] != "/hello" or not str(body["redis"]).startswith(":"):
            raise CheckError(f"GET {self.url} came back as {body!r}")
        return int(body["redis"][1:])

    def wait_for_traffic(self) -> None:
        """Return when the whole way is open: endpoints reach the Envoys a moment after they are ready."""
        self.mesh.wait_for(
            lambda: httpx.get(self.url, timeout=5, trust_env=False).status_code == httpx.codes.OK,
            "traffic through the mesh",
        )

    def hops(self) -> Iterator[str]:
        """One line for each Envoy: how many connections it has had on the way."""
        ways = {
            "redis-1": "inbound -> redis",
            "backend-1": "inbound -> backend, outbound -> redis",
            "client-1": "outbound -> backend",
        }
        for proxy in self.proxies:
            total = sum(proxy.stats(r"^cluster\.(backend|redis|localhost_\d+)\.upstream_cx_total$").values())
            yield f"{proxy.name:<10} {ways[proxy.name]:<38} {total} upstream connections"


def inbound(service_port: int, tags: Mapping[str, str]) -> dict[str, Any]:
    """Networking with one inbound on a free port in front of `service_port`."""
    return {"inbound": [{"port": free_port(), "servicePort": service_port, "tags": dict(tags)}]}


def outbound(port: int, service: str) -> dict[str, Any]:
    """Networking with one outbound."""
    return {"outbound": [{"port": port, "tags": {SERVICE: service}}]}


@contextmanager
def _work_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="koguma-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _check(demo: Demo) -> str:
    first = demo.request()
    second = demo.request()
    if second != first + 1:
        raise CheckError(f"the counter went from {first} to {second} in one request")
    response = demo.mesh.rest.get("/meshes/default/dataplanes").raise_for_status().json()
    if response["total"] != len(demo.proxies):
        raise CheckError(f"{response['total']} Dataplanes are registered instead of {len(demo.proxies)}")
    return f"{len(demo.proxies)} Envoys, {second} requests through HTTP and TCP, counter at {second}"


def _explore(demo: Demo, console: Console, stop: threading.Event) -> None:
    ports = demo.mesh.control_plane.ports
    console.print("\nExplore:")
    console.print(f"  the service, through two Envoys   curl {demo.url}", highlight=False)
    console.print(f"  the REST API                      http://{LOOPBACK}:{ports['rest']}/meshes/default/dataplanes")
    console.print(f"  metrics of the control plane      http://{LOOPBACK}:{ports['diagnostics']}/metrics")
    for proxy in demo.proxies:
        console.print(f"  Envoy admin of {proxy.name:<18} http://{LOOPBACK}:{proxy.admin_port}/clusters")
    console.print(f"  kumactl get dataplanes --address http://{LOOPBACK}:{ports['rest']}")
    console.print("\nTraffic goes on until Ctrl-C.")
    while not stop.wait(BEAT_S):
        try:
            console.print(f"  client -> backend -> redis: visit {demo.request()}", highlight=False)
        except (CheckError, httpx.HTTPError) as error:
            console.print(f"  [red]failed[/]: {error}")


def main(*, check: bool) -> int:
    """Run the demo; with `check` only once, verifying what comes through. The exit status."""
    console = Console(highlight=False, soft_wrap=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        directory = stack.enter_context(_work_directory())
        try:
            console.print("Starting a control plane on free loopback ports")
            mesh = stack.enter_context(Mesh(directory))
            demo = Demo(mesh, stack, console)
            demo.wait_for_traffic()
            result = _check(demo)
            for hop in demo.hops():
                console.print(f"  {hop}")
            if not check and not stop.is_set():
                _explore(demo, console, stop)
        except (StartError, CheckError, TimeoutError, httpx.HTTPError) as error:
            console.print(f"demo: failed: {error}", markup=False)
            return 1
    console.print(f"demo: ok ({result})")
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))

"""Traffic through real Envoys, configured by a real control plane over delta and state-of-the-world streams."""

from __future__ import annotations

import socket
import statistics
import threading
import time

import httpx
import pytest

from xds_server.demo.mesh import TestMesh
from xds_server.demo.processes import LOOPBACK, free_port

PROTOCOLS = ("delta", "sotw")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tcp_and_http_flow_through_the_mesh(mesh: TestMesh, protocol: str) -> None:
    mesh.tcp_service("redis", protocol=protocol)
    mesh.http_service("backend", protocol=protocol)
    client = mesh.proxy("client-1", service="client", outbounds=["redis", "backend"], protocol=protocol)

    mesh.wait_for(lambda: mesh.get(client.port_of("backend")).status_code == 200, "an answer of the backend")
    answer = mesh.get(client.port_of("backend"), "/orders?id=1", **{"x-mine": "kept"}).json()
    assert answer["path"] == "/orders?id=1"
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    assert headers["x-mine"] == "kept"
    assert "x-kuma-tags" not in headers, "the inbound takes the header out that the outbound put in"
    assert mesh.redis_command(client.port_of("redis"), "INCR a") == ":1"
    assert mesh.redis_command(client.port_of("redis"), "INCR a") == ":2"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_endpoint_added_and_removed_reaches_envoy_within_100_ms(mesh: TestMesh, protocol: str) -> None:
    client = mesh.proxy("client-1", service="client", outbounds=["backend"], protocol=protocol)
    admin = client.proxy.admin

    def endpoints() -> str:
        return admin.get("/clusters").text

    def seconds_until(address: str, *, present: bool) -> float:
        start = time.perf_counter()
        mesh.wait_for(lambda: (address in endpoints()) is present, f"{address} present={present}")
        return time.perf_counter() - start

    added, removed = [], []
    for number in range(1, 8):
        port = free_port()
        address = f"{LOOPBACK}:{port}"
        inbound = {"port": port, "tags": {"kuma.io/service": "backend"}}
        mesh.apply(
            {
                "type": "Dataplane",
                "mesh": "default",
                "name": f"backend-{number}",
                "networking": {"address": LOOPBACK, "inbound": [inbound]},
            }
        )
        added.append(seconds_until(address, present=True))
        mesh.delete("Dataplane", f"backend-{number}")
        removed.append(seconds_until(address, present=False))
    # the quickest of seven, since a noisy neighbour delays some; the look at Envoy itself is part of the time
    assert min(added) < 0.1, (min(added), statistics.median(added))
    assert min(removed) < 0.1, (min(removed), statistics.median(removed))


class Load:
    """Requests without pause on a thread until stopped; what failed, and how many there were."""

    def __init__(self, port: int) -> None:
        self.requests = 0
        self.failures: list[str] = []
        self._url = f"http://{LOOPBACK}:{port}/"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with httpx.Client(timeout=10) as client:
            while not self._stop.wait(0.005):
                self.requests += 1
                try:
                    response = client.get(self._url)
                    if response.status_code != 200:
                        self.failures.append(f"{response.status_code} {response.text[:80]}")
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_killed_and_restarted_control_plane_is_not_noticed(mesh: TestMesh, protocol: str) -> None:
    redis = mesh.tcp_service("redis", protocol=protocol)
    backend = mesh.http_service("backend", protocol=protocol)
    client = mesh.proxy("client-1", service="client", outbounds=["redis", "backend"], protocol=protocol)
    proxies = [one.proxy for one in (redis, backend, client)]
    mesh.wait_for(lambda: mesh.get(client.port_of("backend")).status_code == 200, "an answer of the backend")

    counters = (
        r"^(listener_manager\.listener_(added|modified|removed)|cluster_manager\.cluster_(added|modified|removed))$"
    )
    before = [proxy.stats(counters) for proxy in proxies]
    assert all(before), "the counters exist"
    load = Load(client.port_of("backend"))
    with socket.create_connection((LOOPBACK, client.port_of("redis")), timeout=10) as connection:
        answers = connection.makefile("rb")
        connection.sendall(b"INCR held\r\n")
        assert answers.readline() == b":1\r\n"
        for _ in range(2):
            mesh.control_plane.restart()
            for proxy in proxies:
                mesh.wait_for(
                    lambda proxy=proxy: (
                        proxy.stats(r"^control_plane\.connected_state$") == {"control_plane.connected_state": 1}
                    ),
                    f"{proxy.name} being connected again",
                    timeout_s=30,
                )
        connection.sendall(b"INCR held\r\n")
        assert answers.readline() == b":2\r\n", "the connection through both Envoys is still the same"
    # a change proves that the new streams are alive, and gives anything wrongly re-sent the time to arrive
    mesh.http_service("backend", name="backend-2", protocol=protocol)
    mesh.wait_for(
        lambda: {mesh.get(client.port_of("backend")).json()["name"] for _ in range(6)} == {"backend-1", "backend-2"},
        "traffic to the second backend",
    )
    load.stop()
    assert load.requests > 20
    assert load.failures == []
    assert [proxy.stats(counters) for proxy in proxies] == before


def test_a_proxy_that_stops_leaves_no_endpoint_behind(mesh: TestMesh) -> None:
    first = mesh.http_service("backend")
    mesh.http_service("backend", name="backend-2")
    client = mesh.proxy("client-1", service="client", outbounds=["backend"])
    mesh.wait_for(
        lambda: {mesh.get(client.port_of("backend")).json()["name"] for _ in range(6)} == {"backend-1", "backend-2"},
        "traffic to both backends",
    )
    first.proxy.stop()
    mesh.wait_for(
        lambda: mesh.rest.get("/meshes/default/dataplanes/backend-1").status_code == 404, "the Dataplane going"
    )
    mesh.wait_for(
        lambda: {mesh.get(client.port_of("backend")).json()["name"] for _ in range(6)} == {"backend-2"},
        "traffic to the one that is left",
    )


def test_traffic_is_split_and_rewritten_by_a_traffic_route(mesh: TestMesh) -> None:
    for version in ("v1", "v2"):
        stub_name = f"backend-{version}"
        mesh.http_service("backend", name=stub_name, tags={"version": version})
    client = mesh.proxy("client-1", service="client", outbounds=["backend"])
    mesh.apply(
        """
        type: TrafficRoute
        mesh: default
        name: canary
        sources: [{match: {kuma.io/service: client}}]
        destinations: [{match: {kuma.io/service: backend}}]
        conf:
          http:
          - match: {path: {prefix: /new}}
            modify: {path: {rewritePrefix: /old}, requestHeaders: {add: [{name: x-route, value: canary}]}}
            destination: {kuma.io/service: backend, version: v2}
          destination: {kuma.io/service: backend, version: v1}
        """
    )

    def answer(path: str) -> dict[str, object]:
        response = mesh.get(client.port_of("backend"), path)
        return response.json() if response.status_code == 200 else {}

    mesh.wait_for(lambda: answer("/new/thing").get("path") == "/old/thing", "the route being live")
    changed = answer("/new/thing")
    assert changed["name"] == "backend-v2"
    assert {name.lower(): value for name, value in changed["headers"].items()}["x-route"] == "canary"
    assert {answer("/other")["name"] for _ in range(8)} == {"backend-v1"}

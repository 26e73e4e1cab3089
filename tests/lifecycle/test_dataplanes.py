"""The life of proxies, seen by another one: a real Envoy whose application fails, that leaves, that falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time

import yaml
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from snapshot.cache.type_url import CLUSTER, ENDPOINT
from tests.support.running import LOOPBACK, dataplane, eventually, free_port
from tests.support.xds_client import DELTA_METHOD, XdsStream, node

SERVICE = "checked"


class Watcher:
    """A client of the service: it knows the endpoints that it was told."""

    def __init__(self, plane):
        outbound = [{"port": 10_000, "tags": {"kuma.io/service": SERVICE}}]
        plane.put(dataplane("watcher", gateway={"tags": {"kuma.io/service": "watcher"}}, outbound=outbound))
        self._channel = plane.channel()
        self._stream = XdsStream(self._channel, DELTA_METHOD, plane.token(name="watcher"))
        self.addresses = set()
        self.metadata = {}

    async def follow(self):
        await self._stream.send(node=node("default.watcher"), type_url=CLUSTER, resource_names_subscribe=["*"])
        await self._stream.send(type_url=ENDPOINT, resource_names_subscribe=[SERVICE])
        while True:
            response = await self._stream.receive(120)
            await self._stream.ack(response)
            for resource in response.resources:
                if response.type_url == ENDPOINT:
                    self._take(ClusterLoadAssignment.FromString(resource.resource.value))

    def _take(self, assignment):
        endpoints = [endpoint for locality in assignment.endpoints for endpoint in locality.lb_endpoints]
        sockets = [endpoint.endpoint.address.socket_address for endpoint in endpoints]
        self.addresses = {(address.address, address.port_value) for address in sockets}
        self.metadata = dict(endpoints[0].metadata.filter_metadata["envoy.lb"]) if endpoints else {}

    async def close(self):
        await self._channel.close()


@contextlib.asynccontextmanager
async def watching(plane):
    watcher = Watcher(plane)
    following = asyncio.create_task(watcher.follow())
    try:
        yield watcher
    finally:
        following.cancel()
        await asyncio.wait((following,))
        await watcher.close()


@contextlib.contextmanager
def application(port):
    """Something that listens."""
    listener = socket.create_server((LOOPBACK, port))
    try:
        yield
    finally:
        listener.close()


def checked(port, application_port, **more):
    inbound = {"port": port, "servicePort": application_port, "tags": {"kuma.io/service": SERVICE}, **more}
    return dataplane("checked-1", inbound=[inbound], admin={"port": free_port()})


@contextlib.asynccontextmanager
async def envoy_of(plane, document):
    """A real Envoy for this Dataplane."""
    proxy = plane.kuma_dp(document["name"], yaml.safe_dump(document), plane.token(name=document["name"]))
    try:
        yield proxy
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(proxy.pid, signal.SIGCONT)
        await asyncio.to_thread(proxy.kill)


async def test_a_service_probe_takes_the_endpoint_away_and_brings_it_back(plane_of):
    plane = plane_of(KUMA_DP_SERVER_HDS_INTERVAL="200ms")
    plane.start()
    port, application_port = free_port(), free_port()
    probe = {"interval": "0.2s", "timeout": "0.5s", "healthyThreshold": 1, "unhealthyThreshold": 1, "tcp": {}}
    document = checked(port, application_port, serviceProbe=probe)

    def ready():
        answer = plane.rest.get("/meshes/default/dataplanes/checked-1")
        return answer.is_success and answer.json()["networking"]["inbound"][0].get("health", {}).get("ready")

    async with watching(plane) as watcher, envoy_of(plane, document):
        with application(application_port):
            await eventually(lambda: ready() is True and watcher.addresses == {(LOOPBACK, port)}, "ready", 20)
        await eventually(lambda: ready() in {False, None} and not watcher.addresses, "the endpoint going", 10)
        assert plane.rest.get("/meshes/default/dataplanes/checked-1").is_success, "it is unready, not gone"
        with application(application_port):
            await eventually(lambda: ready() is True and watcher.addresses == {(LOOPBACK, port)}, "coming back", 10)


async def test_a_proxy_that_is_terminated_disappears_after_the_grace(plane_of):
    plane = plane_of(KUMA_XDS_SERVER_LEAVE_GRACE="1s")
    plane.start()
    port = free_port()
    async with watching(plane) as watcher, envoy_of(plane, checked(port, free_port())) as proxy:
        await eventually(lambda: watcher.addresses == {(LOOPBACK, port)}, "the endpoint", 20)
        await asyncio.to_thread(proxy.stop)
        ended_s = time.monotonic()
        await eventually(lambda: not watcher.addresses, "the endpoint going", 5)
        gone = "/meshes/default/dataplanes/checked-1"
        await eventually(lambda: plane.rest.get(gone).status_code == 404, "the Dataplane going", 5)
        assert time.monotonic() - ended_s < 3


async def test_a_silent_proxy_loses_its_endpoints_and_keeps_its_dataplane(plane_of):
    plane = plane_of(KUMA_XDS_SERVER_KEEPALIVE_INTERVAL="1s", KUMA_XDS_SERVER_KEEPALIVE_TIMEOUT="1s")
    plane.start()
    port = free_port()
    async with watching(plane) as watcher, envoy_of(plane, checked(port, free_port())) as proxy:
        await eventually(lambda: watcher.addresses == {(LOOPBACK, port)}, "the endpoint", 20)
        os.kill(proxy.pid, signal.SIGSTOP)
        await eventually(lambda: not watcher.addresses, "the endpoint of a silent proxy going", 15)
        assert plane.rest.get("/meshes/default/dataplanes/checked-1").is_success
        os.kill(proxy.pid, signal.SIGCONT)
        await eventually(lambda: watcher.addresses == {(LOOPBACK, port)}, "the endpoint coming back", 20)


async def test_a_name_instead_of_an_address_is_resolved(plane):
    port = free_port()
    document = dataplane("checked-1", inbound=[{"port": port, "tags": {"kuma.io/service": SERVICE}}])
    document["networking"]["address"] = "localhost"
    plane.put(document)
    async with watching(plane) as watcher:
        await eventually(lambda: bool(watcher.addresses), "an endpoint")
        assert watcher.addresses in ({("127.0.0.1", port)}, {("::1", port)})
    assert plane.rest.get("/meshes/default/dataplanes/checked-1").json()["networking"]["address"] == "localhost"


async def test_the_zone_is_written_by_the_control_plane(plane_of):
    plane = plane_of(KUMA_MULTIZONE_ZONE_NAME="east")
    plane.start()
    for own in ({}, {"kuma.io/zone": "elsewhere"}):
        tags = {"kuma.io/service": SERVICE, **own}
        plane.put(dataplane("checked-1", inbound=[{"port": free_port(), "tags": tags}]))
        stored = plane.rest.get("/meshes/default/dataplanes/checked-1").json()["networking"]["inbound"][0]["tags"]
        assert stored["kuma.io/zone"] == "east", "it cannot be overridden"
    async with watching(plane) as watcher:
        await eventually(lambda: bool(watcher.metadata), "an endpoint")
        assert watcher.metadata["kuma.io/zone"] == "east"

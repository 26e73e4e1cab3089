"""A mesh without processes: real store, engine, reconciler, registration and gRPC; YAML in, DiscoveryResponses out."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from google.protobuf.json_format import MessageToDict

from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER
from snapshot.engine.engine import Engine
from snapshot.model.codec import decode_resource, encode_spec
from snapshot.model.meta import ResourceKey
from snapshot.registry import descriptor
from snapshot.topology.proxy import Settings
from tests.support import xds_client
from tests.support.ads_parts import FakeAuthenticator, FakeObserver, tls_pair
from xds_server.ads.hds import HealthDiscovery
from xds_server.ads.health_writer import HealthWriter
from xds_server.ads.server import AdsServer
from xds_server.ads.settings import AdsSettings
from xds_server.app.streams import StreamRegistrar, WatchedDataplanes
from xds_server.clock import SystemClock
from xds_server.reconciler import Reconciler
from xds_server.registration import Patience, Registrar
from xds_server.resolver import Resolver
from xds_server.store import Delete, Put
from xds_server.store.memory import MemoryStore

PAIR = tls_pair()
MESSAGES = {CLUSTER: Cluster, ENDPOINT: ClusterLoadAssignment, LISTENER: Listener}
DEFAULTS = """
type: Mesh
name: default
---
type: TrafficRoute
mesh: default
name: route-all-default
sources: [{match: {kuma.io/service: '*'}}]
destinations: [{match: {kuma.io/service: '*'}}]
conf: {loadBalancer: {roundRobin: {}}, destination: {kuma.io/service: '*'}}
"""


class FeatureMesh:
    """One control plane over a store that survives `restart`, as does its port."""

    ca_pem = PAIR.cert_pem

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.store = MemoryStore(self.clock)
        self.observer = FakeObserver()
        self.port = 0
        self._stack = contextlib.AsyncExitStack()
        self._channels: list[Any] = []

    async def start(self) -> None:
        clock, stack = self.clock, self._stack
        engine = Engine(Settings(admin_cert_pem=PAIR.cert_pem, admin_key_pem=PAIR.key_pem))
        reconciler = Reconciler(self.store, engine, Resolver(clock), clock)
        await reconciler.start()
        stack.push_async_callback(reconciler.stop)
        validate = descriptor("Dataplane").validate
        patience = Patience(leave_grace_s=0.2)
        registrar = Registrar(
            self.store, reconciler.watch, clock, instance_id="cp-1", validate=validate, patience=patience
        )
        await registrar.start()
        stack.push_async_callback(registrar.stop)
        dataplanes = WatchedDataplanes(reconciler)
        writer = HealthWriter(self.store, dataplanes, self.observer, clock)
        writer.start()
        stack.push_async_callback(writer.stop)
        server = AdsServer(
            AdsSettings(drain_s=0.1),
            tls=lambda: PAIR,
            clock=clock,
            authenticator=FakeAuthenticator(),
            registrar=StreamRegistrar(registrar),
            nodes=reconciler,
            observer=self.observer,
            hds=HealthDiscovery(dataplanes=dataplanes, sink=writer),
        )
        self.port = await server.start("127.0.0.1", self.port)
        stack.push_async_callback(server.stop)

    async def stop(self) -> None:
        for channel in self._channels:
            await channel.close()
        self._channels.clear()
        await self._stack.aclose()
        self._stack = contextlib.AsyncExitStack()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def apply(self, text: str) -> None:
        """Store YAML documents, as the REST API would."""
        for document in yaml.safe_load_all(text):
            key, decoded = decode_resource(document)
            await self.store.apply(Put(key, encode_spec(decoded.spec)))

    async def delete(self, kind: str, name: str) -> None:
        await self.store.apply(Delete(ResourceKey(kind, "default", name)))

    async def exists(self, name: str) -> bool:
        return await self.store.get(ResourceKey("Dataplane", "default", name)) is not None

    def proxy(self, name: str, *, delta: bool, carrying: str | None = None) -> FeatureProxy:
        """An Envoy of that name; `carrying` is the Dataplane YAML that its kuma-dp sends along."""
        channel = xds_client.channel(self.port, PAIR.cert_pem)
        self._channels.append(channel)
        method = xds_client.DELTA_METHOD if delta else xds_client.SOTW_METHOD
        metadata = {"dataplane.resource": json.dumps(yaml.safe_load(carrying))} if carrying else {}
        node = xds_client.node(f"default.{name}", metadata)
        return FeatureProxy(xds_client.XdsStream(channel, method, "any"), node)


@dataclass
class FeatureProxy:
    """Does what an Envoy does: asks for clusters and listeners, then for their endpoints, and takes everything."""

    stream: xds_client.XdsStream
    node: Any
    held: dict[str, dict[str, Any]] = field(default_factory=lambda: {each: {} for each in MESSAGES})
    versions: dict[str, dict[str, str]] = field(default_factory=lambda: {each: {} for each in MESSAGES})

    async def ask(self, type_url: str, *names: str, claimed: dict[str, str] | None = None) -> None:
        fields: dict[str, Any] = {"type_url": type_url}
        if self.node is not None:
            fields["node"], self.node = self.node, None
        if self.stream.delta:
            fields |= {"resource_names_subscribe": names, "initial_resource_versions": claimed or {}}
        else:
            fields |= {"resource_names": names}
        await self.stream.send(**fields)

    async def take(self, patience_s: float = 5.0) -> str:
        """Take the next response, and acknowledge it; answers its type URL."""
        response = await self.stream.receive(patience_s)
        kind = MESSAGES[response.type_url]
        held, versions = self.held[response.type_url], self.versions[response.type_url]
        if not self.stream.delta and response.type_url != ENDPOINT:
            held.clear()
        for each in response.resources:
            message = kind.FromString(each.resource.value if self.stream.delta else each.value)
            name = getattr(message, "name", "") or getattr(message, "cluster_name", "")
            held[name] = MessageToDict(message)
            if self.stream.delta:
                versions[name] = each.version
        for name in getattr(response, "removed_resources", ()):
            held.pop(name, None)
            versions.pop(name, None)
        names = {} if self.stream.delta else {"resource_names": list(held) if response.type_url == ENDPOINT else []}
        await self.stream.ack(response, **names)
        return response.type_url

    async def configure(self) -> None:
        """Clusters, their endpoints, listeners."""
        await self.ask(CLUSTER)
        await self.take()
        eds = [name for name, cluster in self.held[CLUSTER].items() if cluster.get("type") == "EDS"]
        if eds:
            await self.ask(ENDPOINT, *eds)
            await self.take()
        await self.ask(LISTENER)
        await self.take()

    def addresses(self, service: str) -> list[str]:
        """`ip:port` of each endpoint of the service, sorted."""
        localities = self.held[ENDPOINT].get(service, {}).get("endpoints", [])
        sockets = [each["endpoint"]["address"]["socketAddress"] for one in localities for each in one["lbEndpoints"]]
        return sorted(f"{socket['address']}:{socket['portValue']}" for socket in sockets)


@pytest.fixture
async def mesh():
    control_plane = FeatureMesh()
    await control_plane.start()
    await control_plane.apply(DEFAULTS)
    yield control_plane
    await control_plane.stop()


@pytest.fixture(params=[False, True], ids=["sotw", "delta"])
def delta(request):
    return request.param


async def eventually(condition: Any, patience_s: float = 5.0) -> None:
    async with asyncio.timeout(patience_s):
        while not await condition():  # noqa: ASYNC110  # the condition is anything
            await asyncio.sleep(0.01)


@pytest.fixture(name="eventually")
def _eventually():
    return eventually

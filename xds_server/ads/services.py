"""Which gRPC methods there are, and what stands behind each. Messages pass through as bytes."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc

from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET
from snapshot.stream import Variant

AGGREGATED: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
CSDS: Final = "envoy.service.status.v3.ClientStatusDiscoveryService"
HDS: Final = "envoy.service.health.v3.HealthDiscoveryService"

DISCOVERY: Final = (
    # service, end of the method names, type URL ("" where each request names its own)
    (AGGREGATED, "AggregatedResources", ""),
    ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners", LISTENER),
    ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters", CLUSTER),
    ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints", ENDPOINT),
    ("envoy.service.route.v3.RouteDiscoveryService", "Routes", ROUTE),
    ("envoy.service.secret.v3.SecretDiscoveryService", "Secrets", SECRET),
)
DISCOVERY_METHODS: Final[Mapping[str, tuple[Variant, str]]] = {
    f"/{service}/{prefix}{suffix}": (variant, type_url)
    for service, suffix, type_url in DISCOVERY
    for prefix, variant in (("Stream", Variant.SOTW), ("Delta", Variant.DELTA))
}
DESCRIPTORS: Final = (
    "envoy.service.discovery.v3.ads_pb2",
    "envoy.service.listener.v3.lds_pb2",
    "envoy.service.cluster.v3.cds_pb2",
    "envoy.service.endpoint.v3.eds_pb2",
    "envoy.service.route.v3.rds_pb2",
    "envoy.service.secret.v3.sds_pb2",
    "envoy.service.status.v3.csds_pb2",
    "envoy.service.health.v3.hds_pb2",
)
"""Modules that make the services known to reflection; nothing else needs them."""
SERVICE_NAMES: Final = (*(service for service, _, _ in DISCOVERY), CSDS, HDS)

StreamBehaviour = Callable[[Any], Awaitable[None]]
UnaryBehaviour = Callable[[bytes, Any], Awaitable[bytes]]


def load_descriptors() -> None:
    """Make the services known to reflection."""
    for module in DESCRIPTORS:
        importlib.import_module(module)


class Methods(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC publishes no types
    """A table of methods whose requests and responses are bytes; whatever is not in it is UNIMPLEMENTED (XP-10)."""

    def __init__(self, streams: Mapping[str, StreamBehaviour], unary: Mapping[str, UnaryBehaviour]) -> None:
        self._handlers = {name: _stream_handler(behaviour) for name, behaviour in streams.items()}
        self._handlers |= {name: grpc.unary_unary_rpc_method_handler(behaviour) for name, behaviour in unary.items()}

    def service(self, handler_call_details: Any) -> Any:
        """Answer the handler of a call, or None: UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)


def _stream_handler(behaviour: StreamBehaviour) -> Any:
    async def serve(_requests: Any, context: Any) -> None:
        await behaviour(context)

    return grpc.stream_stream_rpc_method_handler(serve)

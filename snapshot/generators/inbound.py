"""Inbound listeners: from the mesh to the application of this proxy (X §3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from snapshot.envoy.chains import forward_client_certificate, http_chain, tcp_chain
from snapshot.envoy.clusters import static_cluster
from snapshot.envoy.kafka import kafka_broker
from snapshot.envoy.listeners import INBOUND, ChainDraft, listener
from snapshot.envoy.names import stat_name
from snapshot.envoy.routes import prefix, route, route_configuration
from snapshot.envoy.values import duration
from snapshot.generators.draft import (
    HTTP2_PROTOCOLS,
    HTTP_PROTOCOLS,
    TAGS_HEADER,
    PartDraft,
    join_host_port,
)
from snapshot.generators.part import check_socket
from snapshot.model.dataplane import Inbound
from snapshot.model.meta import Duration
from snapshot.model.tags import SERVICE
from snapshot.topology.mesh_context import protocol_of
from snapshot.topology.proxy import Protocol

SERVICELESS_PORT: Final = 49151
"""An inbound with this port stands for a workload that nothing can reach; it has no listener."""


def local_cluster_names(inbounds: Iterable[Inbound]) -> dict[Inbound, str]:
    """The name of the application's cluster of each inbound that is reachable, in the order of `inbounds`.

    It is `localhost:<workload port>` (X §2). Where two applications share a port on different addresses, Kuma 1.5 gives
    both that name, so the traffic of one goes to the other; here the later ones are named by address and port.
    """
    names: dict[Inbound, str] = {}
    owners: dict[str, str] = {}
    for inbound in inbounds:
        if inbound.port == SERVICELESS_PORT:
            continue
        name = f"localhost:{inbound.workload_port}"
        if owners.setdefault(name, inbound.workload_address) != inbound.workload_address:
            name = join_host_port(inbound.workload_address, inbound.workload_port)
        names[inbound] = name
    return names


def inbound_part(
    inbound: Inbound, address: str, cluster_name: str, *, longest_request: Duration | None, kafka: bool
) -> PartDraft:
    """Listener and application cluster of `inbound` on a proxy at the IP `address`.

    `longest_request` replaces Envoy's default timeout of requests (see `Proxy.long_requests`); `kafka` tells that the
    Envoy has Kafka's filter.
    """
    protocol = protocol_of(inbound.tags)
    check_socket("serviceAddress", inbound.workload_address, "servicePort", inbound.workload_port)
    if not inbound.tags.service:
        raise ValueError(f'tags: must have the tag "{SERVICE}"')
    ip = inbound.address or address
    cluster = static_cluster(cluster_name, inbound.workload_address, inbound.workload_port)
    if protocol in HTTP2_PROTOCOLS:
        cluster.use_http2()
    stats = stat_name(f"localhost:{inbound.workload_port}")
    if protocol in HTTP_PROTOCOLS:
        chain = _http(inbound.tags.service, stats, cluster_name, longest_request, grpc=protocol is Protocol.GRPC)
    else:
        chain = tcp_chain(stats, [(cluster_name, 1)])
        if protocol is Protocol.KAFKA and kafka:
            chain.before.append(kafka_broker(stats))
    name = f"inbound:{join_host_port(ip, inbound.port)}"
    return PartDraft(ip, inbound.port, listener(name, ip, inbound.port, INBOUND, chain), [cluster])


def _http(service: str, stats: str, cluster_name: str, longest_request: Duration | None, *, grpc: bool) -> ChainDraft:
    everything: Any = route(prefix("/"), [(cluster_name, 1)])
    if longest_request is not None:
        everything.route.timeout.CopyFrom(duration(longest_request))
    config = route_configuration(f"inbound:{service}", service, [everything])
    config.request_headers_to_remove.append(TAGS_HEADER)
    chain = http_chain(stats, config, grpc=grpc)
    forward_client_certificate(chain)
    return chain

"""Outbound listeners: from the application of this proxy to services of the mesh (X §3.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from snapshot.envoy.chains import http_chain, tcp_chain
from snapshot.envoy.kafka import kafka_broker
from snapshot.envoy.listeners import OUTBOUND, ChainDraft, listener
from snapshot.envoy.names import stat_name
from snapshot.envoy.routes import header_to_add, route_configuration
from snapshot.generators.draft import HTTP_PROTOCOLS, TAGS_HEADER, PartDraft, join_host_port
from snapshot.generators.routes import default_route, rule_route
from snapshot.model.tags import SERVICE, Tags
from snapshot.model.traffic_route import HttpRule, TrafficRouteConf
from snapshot.topology.outbounds import destinations
from snapshot.topology.proxy import EndpointSelector, Protocol, RoutedOutbound

_SPLIT_HASH_BYTES: Final = 6
_LARGEST_WEIGHT: Final = 2**32 - 1


def cluster_name(destination: Tags) -> str:
    """Name of the cluster for the endpoints with all these tags.

    It is the service, or `<service>-_<N>_` where there are more tags. N is a stable hash of all of them instead of
    Kuma 1.5's counter: equal subsets have equal names on every proxy and after every change (L5). The form stays,
    because kuma-dp adds up the metrics of such clusters by it.
    """
    if not destination.service:
        raise ValueError(f'a destination must have the tag "{SERVICE}"')
    if len(destination) == 1:
        return destination.service
    text = "".join(f"{key}\0{value}\0" for key, value in destination.items())
    digest = hashlib.blake2b(text.encode(), digest_size=_SPLIT_HASH_BYTES).digest()
    return f"{destination.service}-_{int.from_bytes(digest)}_"


def weighted_clusters(conf: TrafficRouteConf | HttpRule) -> list[tuple[str, int]]:
    """The clusters that a rule leads to, each once, with the sum of its weights.

    Raises ValueError for what Envoy would refuse: a destination without a service, weights beyond 32 bits.
    """
    weights: dict[str, int] = {}
    for split in destinations(conf):
        name = cluster_name(split.destination)
        weights[name] = weights.get(name, 0) + (split.weight or 0)
    if sum(weights.values()) > _LARGEST_WEIGHT:
        raise ValueError(f"the weights of a split have a sum of more than {_LARGEST_WEIGHT}")
    return list(weights.items())


def outbound_part(routed: RoutedOutbound, protocol: Protocol, tags_header: str, *, kafka: bool) -> PartDraft:
    """Listener of one outbound whose destinations speak `protocol`, and the services that it leads to.

    `tags_header` is read only where HTTP is proxied; "" adds none. Without a TrafficRoute the listener closes every
    connection. HTTP rules do not exist for TCP: Kuma 1.5 spreads TCP connections over the clusters of all rules, here
    they go where `conf.split` or `conf.destination` says.
    """
    ip, port, route = routed.outbound.bind_address, routed.outbound.port, routed.route
    made = PartDraft(ip, port, listener(f"outbound:{join_host_port(ip, port)}", ip, port, OUTBOUND))
    if route is None:
        return made
    if not routed.service:
        raise ValueError(f'tags: must have the tag "{SERVICE}"')
    if protocol in HTTP_PROTOCOLS:
        rules: tuple[TrafficRouteConf | HttpRule, ...] = (*route.http, route)
        chain = _http(routed.service, route, tags_header, grpc=protocol is Protocol.GRPC)
    elif clusters := weighted_clusters(route):
        rules = (route,)
        stats = stat_name(routed.service)
        chain = tcp_chain(stats, clusters, *([kafka_broker(stats)] if protocol is Protocol.KAFKA and kafka else ()))
    else:
        return made
    made.listener = listener(f"outbound:{join_host_port(ip, port)}", ip, port, OUTBOUND, chain)
    made.services = _services(rules)
    return made


def _http(service: str, route: TrafficRouteConf, tags_header: str, *, grpc: bool) -> ChainDraft:
    routes: list[Any] = [rule_route(rule, clusters) for rule in route.http if (clusters := weighted_clusters(rule))]
    if clusters := weighted_clusters(route):
        routes.append(default_route(clusters))
    config = route_configuration(f"outbound:{service}", service, routes)
    if tags_header:
        config.request_headers_to_add.append(header_to_add(TAGS_HEADER, tags_header))
    return http_chain(stat_name(service), config, grpc=grpc)


def _services(rules: Iterable[TrafficRouteConf | HttpRule]) -> dict[str, EndpointSelector]:
    """The clusters of all rules, sorted by name, with the endpoints that each reads."""
    wanted = {cluster_name(split.destination): split.destination for rule in rules for split in destinations(rule)}
    return {name: EndpointSelector(tags.service, tags.without(SERVICE)) for name, tags in sorted(wanted.items())}

"""Short forms of policies and proxies for tests that start from structs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from snapshot.model.dataplane import Dataplane, Gateway, Inbound, Networking, Outbound
from snapshot.model.meta import ProxyKey, Resource, ResourceKey
from snapshot.model.policies import CircuitBreaker, Retry, Timeout
from snapshot.model.selector import Selector
from snapshot.model.tags import Tags
from snapshot.model.traffic_route import TrafficRoute, TrafficRouteConf
from snapshot.topology.outbounds import MeshPolicies, routed_proxy
from snapshot.topology.proxy import NodeInfo, Protocol, Proxy

SERVICE = "kuma.io/service"
SPECS = {"TrafficRoute": TrafficRoute, "Timeout": Timeout, "CircuitBreaker": CircuitBreaker, "Retry": Retry}
EVERYTHING = TrafficRouteConf(destination=Tags({SERVICE: "*"}))


def tags(service: str, **more: str) -> Tags:
    """A tag set of that service."""
    return Tags({SERVICE: service, **more})


def policy(
    type_name: str, name: str, *, source: Any = None, to: Any = None, conf: Any = None, age: int = 0
) -> Resource:
    """A policy from `source` to `to` (selectors, a service name each, or everything), created `age` hours later."""

    def selectors(given: Any) -> tuple[Selector, ...]:
        many = given if isinstance(given, list) else ["*" if given is None else given]
        return tuple(Selector(match=Tags(one if isinstance(one, Mapping) else {SERVICE: one})) for one in many)

    spec = SPECS[type_name](sources=selectors(source), destinations=selectors(to), conf=conf)
    created = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=age)
    return Resource(key=ResourceKey(type_name, "default", name), spec=spec, version=1, creation_time=created)


def mesh_policies(*policies: Resource) -> MeshPolicies:
    """The policies of a mesh."""
    return MeshPolicies.of({name: [p for p in policies if p.key.type == name] for name in SPECS})


def dataplane(
    *outbounds: Outbound, inbounds: tuple[Inbound, ...] = (), gateway: Tags | None = None, **more: Any
) -> Dataplane:
    """A Dataplane at 10.0.0.1; of the service `web` unless `inbounds` or `gateway` say otherwise."""
    if not inbounds and gateway is None:
        inbounds = (Inbound(port=80, tags=tags("web")),)
    entrance = Gateway(tags=gateway) if gateway is not None else None
    networking = Networking(address="10.0.0.1", inbound=inbounds, outbound=outbounds, gateway=entrance)
    return Dataplane(networking=networking, **more)


def proxy(spec: Dataplane, *policies: Resource, node: NodeInfo | None = None, name: str = "web-1") -> Proxy:
    """The Proxy of that Dataplane in a mesh with these policies."""
    return routed_proxy(ProxyKey("default", name), spec, "10.0.0.1", node or NodeInfo(), mesh_policies(*policies))


class StatedFacts:
    """Facts as stated: a Protocol for each service, None for a service without endpoints."""

    def __init__(
        self, protocols: Mapping[str, Protocol | None] | None = None, default: Protocol = Protocol.TCP
    ) -> None:
        self.protocols = protocols or {}
        self.default = default
        self.asked: list[str] = []

    def protocol(self, service: str) -> Protocol | None:
        """As `Facts.protocol`; remembers the question."""
        self.asked.append(service)
        return self.protocols.get(service, self.default)

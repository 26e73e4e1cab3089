"""Proxy: one data plane with everything that decides its configuration: THE form between model and Envoy."""

from __future__ import annotations

import enum
from typing import NamedTuple
from typing import Protocol as TypingProtocol

from snapshot.model.dataplane import Dataplane, Outbound
from snapshot.model.meta import Duration, ProxyKey, ResourceKey, Spec
from snapshot.model.policies import CircuitBreakerConf, RetryConf, TimeoutConf
from snapshot.model.tags import NO_TAGS, Tags
from snapshot.model.traffic_route import TrafficRouteConf


class Protocol(enum.Enum):
    """What a service speaks. UNKNOWN (no tag, or no endpoints) is proxied exactly like TCP (R §1.2)."""

    UNKNOWN = "<unknown>"
    TCP = "tcp"
    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"
    KAFKA = "kafka"


class NodeInfo(Spec, frozen=True, kw_only=True):
    """What an Envoy said about itself in its first request; only what decides configuration.

    `admin_port` 0 means that it has no admin interface. `extensions` holds only names from `KNOWN_EXTENSIONS`.
    """

    admin_port: int = 0
    extensions: frozenset[str] = frozenset()
    kuma_dp_version: str = ""


KAFKA_BROKER = "envoy.filters.network.kafka_broker"
KNOWN_EXTENSIONS = frozenset({KAFKA_BROKER})
"""The Envoy extensions whose presence decides what is generated (X §0.3)."""


class RoutedOutbound(Spec, frozen=True, kw_only=True, cache_hash=True):
    """An outbound with the policies that won for it (R §3.2), wildcards of the route already resolved (R §3.6).

    `service` is what the outbound names. `route` is None where no TrafficRoute matched. `services` are the destination
    services of the route (of the outbound itself without one), sorted. `origins` are the keys of the policies used, for
    provenance; the TrafficRoute's first.
    """

    outbound: Outbound
    service: str
    route: TrafficRouteConf | None = None
    timeout: TimeoutConf | None = None
    services: tuple[str, ...] = ()
    origins: tuple[ResourceKey, ...] = ()


class ServicePolicies(Spec, frozen=True, kw_only=True, cache_hash=True):
    """The policies that won for one destination service (R §3.5)."""

    circuit_breaker: CircuitBreakerConf | None = None
    retry: RetryConf | None = None
    origins: tuple[ResourceKey, ...] = ()


class Proxy(Spec, frozen=True, kw_only=True):
    """One data plane proxy, ready to be translated.

    `address` is the IP that stands for `networking.address` (resolved where that is a name), `service_policies` is
    sorted by service, `tags_header` is the value of `x-kuma-tags` (X §2). `long_requests` names, sorted, the services
    of this proxy's own inbounds that need more than Envoy's default timeout (`MeshPolicies.long_request`).
    """

    key: ProxyKey
    dataplane: Dataplane
    address: str
    node: NodeInfo
    outbounds: tuple[RoutedOutbound, ...] = ()
    service_policies: tuple[tuple[str, ServicePolicies], ...] = ()
    tags_header: str = ""
    long_requests: tuple[tuple[str, Duration], ...] = ()


class Facts(TypingProtocol):
    """What a build may ask about destinations. The engine records each question: the answer's change rebuilds (L3)."""

    def protocol(self, service: str) -> Protocol | None:
        """Common protocol of all endpoints of the service (X §3.3 no. 4), None where there are none.

        The two differ for a split: a destination without endpoints has no say in the protocol of the others.
        """
        ...


class Endpoint(Spec, frozen=True, kw_only=True):
    """One reachable inbound. `tags` are the inbound's, with `kuma.io/service`."""

    address: str
    port: int
    tags: Tags = NO_TAGS
    weight: int = 1


class EndpointSelector(NamedTuple):
    """Which endpoints a ClusterLoadAssignment holds: those of `service` whose tags have all of `tags`, by value.

    `tags` never holds `kuma.io/service`; without any it is the whole service (X §4.3).
    """

    service: str
    tags: Tags = NO_TAGS


class BuildIssue(NamedTuple):
    """Why an object, or a part of it, has no effect on one proxy."""

    object: ResourceKey
    reason: str


class Settings(Spec, frozen=True, kw_only=True):
    """What the control plane's own configuration contributes to every build.

    `zone` is "" in a standalone control plane. The PEM pair is what the admin listener's TLS chain presents (X §8.2).
    A resource of more than `resource_bytes` is not published (XP-133).
    """

    zone: str = ""
    admin_cert_pem: bytes = b""
    admin_key_pem: bytes = b""
    resource_bytes: int = 32 << 20

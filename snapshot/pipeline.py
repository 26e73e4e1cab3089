"""All of one proxy: generators, then policies, then serialisation. Read this file first.

Never here: endpoints of services (they belong to the mesh, L2), or what changed since the last build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, NamedTuple

from snapshot.cache.memo import Memo
from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import Snapshot
from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER
from snapshot.envoy.clusters import eds_cluster
from snapshot.envoy.endpoints import cluster_load_assignment, lb_endpoint, locality_endpoints
from snapshot.generators.admin import ADMIN_ADDRESS, admin_part
from snapshot.generators.draft import HTTP_PROTOCOLS, TAGS_HEADER, PartDraft, join_host_port
from snapshot.generators.inbound import inbound_part, local_cluster_names
from snapshot.generators.outbound import outbound_part
from snapshot.generators.part import Part, PartIssue, Socket, check_socket
from snapshot.generators.probes import probes_part
from snapshot.model.dataplane import Inbound, Probes
from snapshot.model.meta import Duration, ResourceKey
from snapshot.model.policies import TimeoutConf
from snapshot.model.rules.headers import MOST_BYTES
from snapshot.model.tags import SERVICE, ZONE
from snapshot.model.traffic_route import LoadBalancer
from snapshot.policies import timeout
from snapshot.policies.bounds import LONGEST
from snapshot.policies.circuit_breaker import apply_circuit_breaker
from snapshot.policies.retry import apply_retry
from snapshot.policies.traffic_route import apply_load_balancer
from snapshot.topology.mesh_context import common_protocol
from snapshot.topology.proxy import (
    KAFKA_BROKER,
    BuildIssue,
    Endpoint,
    EndpointSelector,
    Facts,
    Protocol,
    Proxy,
    RoutedOutbound,
    ServicePolicies,
    Settings,
)

_NO_POLICIES: Final = ServicePolicies()
_INBOUND: Final = "networking.inbound"
_OUTBOUND: Final = "networking.outbound"
_ADMIN_INTERFACE: Final = "the admin interface of Envoy"
_ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - compared with, not bound
_LONG_TAGS: Final = (
    f"networking: all tags together are {{}} bytes long, and Envoy takes no header above {MOST_BYTES};"
    f" peers are not told them in {TAGS_HEADER}"
)


class Provenance(Mapping[tuple[str, str], tuple[ResourceKey, ...]]):
    """Which objects made each resource of one proxy, by (type URL, name); its Dataplane first. Computed when asked."""

    __slots__ = ("_dataplane", "_parts")

    def __init__(self, dataplane: ResourceKey, parts: tuple[Part, ...]) -> None:
        self._dataplane = dataplane
        self._parts = parts

    def _origins(self) -> dict[tuple[str, str], tuple[ResourceKey, ...]]:
        return {
            (resource.type_url, resource.name): origins
            for part in self._parts
            for resource, origins in zip(part.resources, part.origins, strict=True)
        }

    def __getitem__(self, resource: tuple[str, str]) -> tuple[ResourceKey, ...]:
        return (self._dataplane, *self._origins()[resource])

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._origins())

    def __len__(self) -> int:
        return len(self._origins())

    def objects(self) -> frozenset[ResourceKey]:
        """Every object that made something of this proxy."""
        return frozenset(key for part in self._parts for keys in part.origins for key in keys) | {self._dataplane}


@dataclass(frozen=True, slots=True)
class Built:
    """Everything one proxy should have.

    `endpoints` says what each ClusterLoadAssignment named in `snapshot.endpoint_names` holds; `provenance` which
    objects made each resource. `parts` are what `snapshot` was put together from: they keep the memo warm, and two
    builds with the identical parts are equal.
    """

    snapshot: Snapshot
    endpoints: Mapping[str, EndpointSelector]
    issues: tuple[BuildIssue, ...]
    provenance: Provenance
    parts: tuple[Part, ...]


class _Placed(NamedTuple):
    """A part, and the field of the Dataplane that asked for it (`at` is -1 where the field is no list)."""

    part: Part
    field: str
    at: int = -1

    @property
    def place(self) -> str:
        return self.field if self.at < 0 else f"{self.field}[{self.at}]"


def build(proxy: Proxy, facts: Facts, settings: Settings, memo: Memo) -> Built:
    """Translate `proxy`. A part that cannot be built is left out and reported in `Built.issues`; the rest stands.

    Of two listeners on one address the first stands, in the order: inbounds, outbounds, probes, admin. So what the user
    wrote comes before what was added, and traffic before observation.
    """
    dataplane = ResourceKey("Dataplane", *proxy.key)
    issues: dict[BuildIssue, None] = {}
    taken: dict[Socket, str | _Placed] = {}
    if proxy.node.admin_port:
        taken |= {(at, proxy.node.admin_port): _ADMIN_INTERFACE for at in (ADMIN_ADDRESS, _ANY_ADDRESS)}
    if len(proxy.tags_header) > MOST_BYTES:
        issues[BuildIssue(dataplane, _LONG_TAGS.format(len(proxy.tags_header)))] = None
    kept: list[Part] = []
    for placed in _parts(proxy, facts, settings, memo):
        part = placed.part
        for owner, reason in part.issues:
            issues[BuildIssue(owner or dataplane, reason if owner else f"{placed.place}: {reason}")] = None
        if part.socket is not None and taken.setdefault(part.socket, placed) is not placed:
            issues[BuildIssue(dataplane, _collision(placed, part.socket, taken[part.socket]))] = None
        else:
            kept.append(part)
    return _assembled(dataplane, tuple(kept), tuple(issues))


def _collision(placed: _Placed, socket: Socket, owner: str | _Placed) -> str:
    holder = owner if isinstance(owner, str) else owner.place
    return f"{placed.place}: {join_host_port(*socket)} is already taken by {holder}; choose another port"


def _assembled(dataplane: ResourceKey, parts: tuple[Part, ...], issues: tuple[BuildIssue, ...]) -> Built:
    """Put the parts together; of two resources with the same name the last stands, as in Kuma (X §3.3)."""
    clusters: dict[str, XdsResource] = {}
    listeners: dict[str, XdsResource] = {}
    endpoints: dict[str, EndpointSelector] = {}
    for part in parts:
        for resource in part.resources:
            (clusters if resource.type_url == CLUSTER else listeners)[resource.name] = resource
        endpoints.update(part.endpoints)
    snapshot = Snapshot({CLUSTER: clusters, LISTENER: listeners}, frozenset(endpoints))
    return Built(snapshot, endpoints, issues, Provenance(dataplane, parts), parts)


def _parts(proxy: Proxy, facts: Facts, settings: Settings, memo: Memo) -> Iterator[_Placed]:
    kafka = KAFKA_BROKER in proxy.node.extensions
    inbounds = proxy.dataplane.networking.inbound if proxy.dataplane.networking else ()
    names = local_cluster_names(inbounds)
    long_requests = dict(proxy.long_requests)
    for index, inbound in enumerate(inbounds):
        if (name := names.get(inbound)) is not None:
            longest = long_requests.get(inbound.tags.service)
            longest = longest and min(longest, LONGEST)
            yield _Placed(memo.recall(_inbound, inbound, proxy.address, name, longest, kafka), _INBOUND, index)
    policies = dict(proxy.service_policies)
    tags_header = proxy.tags_header if len(proxy.tags_header) <= MOST_BYTES else ""
    for index, routed in enumerate(proxy.outbounds):
        spoken = tuple([facts.protocol(service) for service in routed.services])
        protocol = _protocol(spoken)
        theirs = tuple([policies.get(service, _NO_POLICIES) for service in routed.services])
        own = policies.get(routed.service, _NO_POLICIES)
        header = tags_header if protocol in HTTP_PROTOCOLS else ""
        yield _Placed(memo.recall(_outbound, routed, spoken, theirs, own, header, kafka), _OUTBOUND, index)
    if (probes := proxy.dataplane.probes) is not None:
        clusters = tuple((inbound.workload_port, name) for inbound, name in names.items())
        yield _Placed(memo.recall(_probes, probes, proxy.address, clusters), "probes.port")
    if port := proxy.node.admin_port:
        pair = (settings.admin_cert_pem, settings.admin_key_pem)
        part = memo.recall(_admin, proxy.address, port, proxy.node.kuma_dp_version, *pair)
        yield _Placed(part, "networking.admin.port")


def _protocol(spoken: Iterable[Protocol | None]) -> Protocol:
    """What all destinations can be proxied as; those without endpoints (None) have no say (X §3.3 no. 4)."""
    return common_protocol([protocol for protocol in spoken if protocol is not None]) or Protocol.UNKNOWN


_Make = Callable[..., Part]


def _or_issue(make: _Make) -> _Make:
    """Let a part that cannot be made be a part with nothing but an issue, so that it stops nothing else."""

    @wraps(make)
    def made(*inputs: Any) -> Part:
        try:
            return make(*inputs)
        except Exception as error:  # noqa: BLE001 whatever is wrong with one part is reported as its issue
            return Part(issues=(PartIssue(None, f"{error}; it is left out"),))

    return made


@_or_issue
def _inbound(memo: Memo, inbound: Inbound, address: str, cluster: str, longest: Duration | None, kafka: bool) -> Part:
    return _finished(memo, inbound_part(inbound, address, cluster, longest_request=longest, kafka=kafka))


@_or_issue
def _outbound(
    memo: Memo,
    routed: RoutedOutbound,
    spoken: tuple[Protocol | None, ...],
    theirs: tuple[ServicePolicies, ...],
    own: ServicePolicies,
    header: str,
    kafka: bool,
) -> Part:
    """One outbound; `own` are the policies of the service that it names.

    Of its destinations, in order, `spoken` are the protocols and `theirs` the policies. The listener proxies what they
    all speak, the cluster of each is set up for its own protocol, as in Kuma 1.5: of a split between HTTP and TCP,
    which is proxied as TCP, the cluster of the HTTP service still has the timeouts of HTTP.
    """
    protocol = _protocol(spoken)
    draft = outbound_part(routed, protocol, header, kafka=kafka)
    issues: list[PartIssue] = []
    if draft.listener is not None:
        issues += _about("Timeout", routed.origins, timeout.apply_to_listener(draft.listener, protocol, routed.timeout))
        issues += _about("Retry", own.origins, apply_retry(draft.listener, protocol, own.retry))
    by_service = {
        service: (protocol or Protocol.UNKNOWN, policies)
        for service, protocol, policies in zip(routed.services, spoken, theirs, strict=True)
    }
    balancer = routed.route.load_balancer if routed.route else None
    shared = (balancer, routed.timeout, routed.origins)
    clusters = tuple(
        memo.recall(_service_cluster, name, selector, *by_service[selector.service], *shared)
        for name, selector in draft.services.items()
    )
    return _finished(memo, draft, (*routed.origins, *_of_type("Retry", own.origins)), issues, clusters)


def _service_cluster(
    memo: Memo,
    name: str,
    selector: EndpointSelector,
    protocol: Protocol,
    policies: ServicePolicies,
    balancer: LoadBalancer | None,
    timeouts: TimeoutConf | None,
    origins: tuple[ResourceKey, ...],
) -> Part:
    """The cluster of one destination; the same for every outbound, of any proxy, that leads there in the same way."""
    draft = eds_cluster(name)
    draft.use_http2()
    issues = [
        *_about("TrafficRoute", origins, apply_load_balancer(draft, balancer)),
        *_about("Timeout", origins, timeout.apply_to_cluster(draft, protocol, timeouts)),
        *_about("CircuitBreaker", policies.origins, apply_circuit_breaker(draft, policies.circuit_breaker)),
    ]
    resource = memo.share(XdsResource.of(CLUSTER, name, draft.finish(), eds_service_name=name))
    keys = (*origins, *_of_type("CircuitBreaker", policies.origins))
    return Part((resource,), (keys,), {name: selector}, issues=tuple(issues))


@_or_issue
def _probes(memo: Memo, probes: Probes, address: str, clusters: tuple[tuple[int, str], ...]) -> Part:
    return _finished(memo, probes_part(probes, address, dict(reversed(clusters))))


@_or_issue
def _admin(memo: Memo, address: str, port: int, kuma_dp_version: str, cert_pem: bytes, key_pem: bytes) -> Part:
    return _finished(memo, admin_part(address, port, kuma_dp_version, cert_pem, key_pem))


def _of_type(type_name: str, keys: Iterable[ResourceKey]) -> tuple[ResourceKey, ...]:
    return tuple(key for key in keys if key.type == type_name)


def _about(type_name: str, keys: Iterable[ResourceKey], reasons: Iterable[str]) -> list[PartIssue]:
    return [PartIssue(key, reason) for key in _of_type(type_name, keys) for reason in reasons]


def _finished(
    memo: Memo,
    draft: PartDraft,
    origins: tuple[ResourceKey, ...] = (),
    issues: Iterable[PartIssue] = (),
    services: tuple[Part, ...] = (),
) -> Part:
    """Serialise a draft, whose policies are `origins`, and put the clusters of `services` beside it."""
    resources = []
    socket = None
    if draft.listener is not None:
        message = draft.listener.finish()
        resources.append(memo.share(XdsResource.of(LISTENER, message.name, message)))
        socket = check_socket("address", draft.address, "port", draft.port)
    for cluster in draft.clusters:
        message = cluster.finish()
        resources.append(memo.share(XdsResource.of(CLUSTER, message.name, message)))
    return Part(
        resources=(*resources, *(resource for part in services for resource in part.resources)),
        origins=(*[origins] * len(resources), *(keys for part in services for keys in part.origins)),
        endpoints={name: selector for part in services for name, selector in part.endpoints.items()},
        socket=socket,
        issues=tuple(dict.fromkeys([*issues, *(issue for part in services for issue in part.issues)])),
        inner=services,
    )


def build_endpoints(name: str, endpoints: Iterable[Endpoint]) -> XdsResource:
    """The ClusterLoadAssignment `name` with these endpoints, in any order; empty without any (X §4.3).

    One group for each zone, the last zone of the alphabet first and the group without a zone last; sorted by address as
    text and port within.
    """
    zones: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        zones.setdefault(endpoint.tags.get(ZONE, ""), []).append(endpoint)
    groups = [
        locality_endpoints(
            zone,
            [
                lb_endpoint(member.address, member.port, member.weight, member.tags.without(SERVICE))
                for member in sorted(zones[zone], key=_place_in_zone)
            ],
        )
        for zone in sorted(zones, reverse=True)
    ]
    return XdsResource.of(ENDPOINT, name, cluster_load_assignment(name, groups))


def _place_in_zone(endpoint: Endpoint) -> tuple[str, int, tuple[tuple[str, str], ...], int]:
    """Total, so that the order in which endpoints became known never shows in the version."""
    return endpoint.address, endpoint.port, tuple(endpoint.tags.items()), endpoint.weight

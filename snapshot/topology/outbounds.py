"""Where outbounds lead: from a Dataplane and the policies of its mesh to a Proxy (R §3.6, X §1.5).

Never here: Envoy's messages, endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from snapshot.model.dataplane import Dataplane, Outbound
from snapshot.model.meta import NANOSECONDS, Duration, ProxyKey, Resource, ResourceKey
from snapshot.model.tags import ANY, Tags
from snapshot.model.traffic_route import HttpRule, Split, TrafficRouteConf
from snapshot.topology.matching import PolicyIndex, TagSets, by_name, concerns, destination_ranks
from snapshot.topology.proxy import NodeInfo, Proxy, RoutedOutbound, ServicePolicies

OUTBOUND_POLICIES: Final = ("TrafficRoute", "Timeout", "CircuitBreaker", "Retry")
"""The types that decide a Proxy beside its Dataplane; changes of no other type can change one."""

ENVOY_REQUEST_TIMEOUT: Final = Duration(15 * NANOSECONDS)
"""What Envoy allows a request on a route that says nothing."""

KEPT: Final = 16384
"""Bound on remembered results of one set of policies."""

_UNIT_WEIGHT: Final = 1


def destinations(conf: TrafficRouteConf | HttpRule) -> tuple[Split, ...]:
    """The splits in use: those with a weight above 0; a plain `destination` is a split of weight 1 (R §1.7)."""
    if conf.split:
        return tuple(split for split in conf.split if split.weight)
    return (Split(weight=_UNIT_WEIGHT, destination=conf.destination),) if conf.destination else ()


def resolve_wildcards(conf: TrafficRouteConf, outbound: Tags) -> TrafficRouteConf:
    """Drop destination tags with the value `*`, then add every outbound tag that is not there (R §3.6 no. 2)."""

    def resolved(destination: Tags) -> Tags:
        explicit = {key: value for key, value in destination.items() if value != ANY}
        return outbound.with_(explicit)

    def resolved_all(part: Any) -> Any:
        return msgspec.structs.replace(
            part,
            destination=resolved(part.destination) if part.destination else part.destination,
            split=tuple(msgspec.structs.replace(s, destination=resolved(s.destination)) for s in part.split),
        )

    return msgspec.structs.replace(resolved_all(conf), http=tuple(resolved_all(rule) for rule in conf.http))  # type: ignore[no-any-return]


def destination_services(route: TrafficRouteConf) -> tuple[str, ...]:
    """The services that a resolved route leads to, sorted.

    In Kuma 1.5 a service that occurs only in `conf.http` gets no CircuitBreaker (R §3.6 no. 3, R §10 no. 10). Here it
    does: the user's policy selects it, nothing tells the user why it would have no effect, and that of a new mesh
    states no more than Envoy's defaults.
    """
    parts: tuple[TrafficRouteConf | HttpRule, ...] = (route, *route.http)
    return tuple(sorted({split.destination.service for part in parts for split in destinations(part)}))


def default_services(routed: RoutedOutbound) -> frozenset[str]:
    """The services that an outbound leads to where no HTTP rule decides: only these have a Retry (R §3.6 no. 3).

    So an outbound whose route leads all of it to other services is not retried, as in Kuma 1.5: with the default Retry
    it would be, everywhere.
    """
    if routed.route is None:
        return frozenset({routed.service})
    return frozenset(split.destination.service for split in destinations(routed.route))


def tags_header(dataplane: Dataplane) -> str:
    """Value of `x-kuma-tags`: `&key=v1,v2&` for each key of the merged tag sets, all sorted (X §2)."""
    merged: dict[str, set[str]] = {}
    for tags in dataplane.tag_sets:
        for key, value in tags.items():
            merged.setdefault(key, set()).add(value)
    return "".join(f"&{key}={','.join(sorted(values))}&" for key, values in sorted(merged.items()))


class Routed(NamedTuple):
    """What all proxies with equal tag sets and equal outbounds share; see `Proxy`."""

    outbounds: tuple[RoutedOutbound, ...]
    service_policies: tuple[tuple[str, ServicePolicies], ...]


class Answers(NamedTuple):
    """Answers that stay right when other policies change.

    Questions name policies by `id`, so each entry holds its policies; the answer is the last.
    """

    outbounds: dict[tuple[Outbound, int, int], tuple[Resource | None, Resource | None, RoutedOutbound]]
    services: dict[tuple[int, int], tuple[Resource | None, Resource | None, ServicePolicies]]


class MeshPolicies:
    """The policies of one mesh that decide its proxies, compiled. Immutable, except for what it remembers.

    Equal questions get the identical object as answer, which makes the memo of the builders cheap (L5).
    """

    __slots__ = ("_groups", "_long", "answers", "circuit_breakers", "retries", "routes", "timeouts")

    def __init__(
        self,
        routes: PolicyIndex,
        timeouts: PolicyIndex,
        circuit_breakers: PolicyIndex,
        retries: PolicyIndex,
        answers: Answers | None = None,
    ) -> None:
        self.routes: Final = routes
        self.timeouts: Final = timeouts
        self.circuit_breakers: Final = circuit_breakers
        self.retries: Final = retries
        self.answers: Final = answers or Answers({}, {})
        self._groups: dict[tuple[TagSets, tuple[Outbound, ...]], Routed] = {}
        self._long: dict[str, Duration | None] = {}

    @classmethod
    def of(cls, resources: Mapping[str, Iterable[Resource]], previous: MeshPolicies | None = None) -> MeshPolicies:
        """Compile the policies in `resources` (type name → resources, in any order; other types are ignored).

        The index of a type whose policies are the ones of `previous` is taken over with all it remembers.
        """
        known = (previous.routes, previous.timeouts, previous.circuit_breakers, previous.retries) if previous else ()
        wanted = [by_name(resources.get(type_name, ())) for type_name in OUTBOUND_POLICIES]
        indexes = [
            known[at] if known and known[at].policies == policies else PolicyIndex(policies)
            for at, policies in enumerate(wanted)
        ]
        if previous and indexes == list(known):
            return previous
        routes, timeouts, circuit_breakers, retries = indexes
        return cls(routes, timeouts, circuit_breakers, retries, previous.answers if previous else None)

    def routed(self, tag_sets: TagSets, outbounds: tuple[Outbound, ...]) -> Routed:
        """The outbounds of a proxy with these tag sets, and the policies of all services they lead to."""
        question = (tag_sets, outbounds)
        if (known := self._groups.get(question)) is None:
            known = _bounded(self._groups)[question] = self._route(tag_sets, outbounds)
        return known

    def _route(self, tag_sets: TagSets, outbounds: tuple[Outbound, ...]) -> Routed:
        routes, timeouts = self.routes.matcher(tag_sets), self.timeouts.matcher(tag_sets)
        breakers, retries = self.circuit_breakers.matcher(tag_sets), self.retries.matcher(tag_sets)
        named = [(outbound, outbound.destination.service) for outbound in outbounds]
        routed = tuple(
            self._routed_outbound(outbound, service, routes.best(service), timeouts.best(service))
            for outbound, service in named
        )
        services = {service for outbound in routed for service in outbound.services} | {service for _, service in named}
        retried = {service for outbound in routed for service in default_services(outbound)}
        policies = (
            (name, self._service_policies(breakers.best(name), retries.best(name) if name in retried else None))
            for name in sorted(services)
        )
        return Routed(routed, tuple(policies))

    def _routed_outbound(
        self, outbound: Outbound, service: str, route: Resource | None, timeout: Resource | None
    ) -> RoutedOutbound:
        question = (outbound, id(route), id(timeout))
        if question not in self.answers.outbounds:
            conf = resolve_wildcards(route.spec.conf, outbound.destination) if route and route.spec.conf else None
            made = RoutedOutbound(
                outbound=outbound,
                service=service,
                route=conf,
                timeout=timeout.spec.conf if timeout else None,
                services=destination_services(conf) if conf else (service,),
                origins=_keys(route, timeout),
            )
            _bounded(self.answers.outbounds)[question] = (route, timeout, made)
        return self.answers.outbounds[question][-1]

    def _service_policies(self, circuit_breaker: Resource | None, retry: Resource | None) -> ServicePolicies:
        question = (id(circuit_breaker), id(retry))
        if question not in self.answers.services:
            made = ServicePolicies(
                circuit_breaker=circuit_breaker.spec.conf if circuit_breaker else None,
                retry=retry.spec.conf if retry else None,
                origins=_keys(circuit_breaker, retry),
            )
            _bounded(self.answers.services)[question] = (circuit_breaker, retry, made)
        return self.answers.services[question][-1]

    def long_request(self, service: str) -> Duration | None:
        """The longest request to `service` that a Timeout policy grants, None where Envoy's default is as long.

        Kuma 1.5 sets no timeout on inbound routes, so Envoy cuts every request there after 15 s, and a `requestTimeout`
        above has no effect. The inbound keeps 1.5's form unless such a policy exists; then it gives way to it.
        """
        if service not in self._long:
            granted = (
                policy.spec.conf.http.request_timeout or 0
                for policy in self.timeouts.leading_to(service)
                if policy.spec.conf and policy.spec.conf.http
            )
            longest = max(granted, default=0)
            _bounded(self._long)[service] = Duration(longest) if longest > ENVOY_REQUEST_TIMEOUT else None
        return self._long[service]


def _bounded(remembered: dict[Any, Any]) -> dict[Any, Any]:
    """Make room: what is forgotten is only slower to find again."""
    if len(remembered) >= KEPT:
        remembered.clear()
    return remembered


def _keys(*resources: Resource | None) -> tuple[ResourceKey, ...]:
    return tuple(resource.key for resource in resources if resource is not None)


def routed_proxy(key: ProxyKey, dataplane: Dataplane, address: str, node: NodeInfo, policies: MeshPolicies) -> Proxy:
    """Everything that decides the configuration of one proxy. `address` is the IP of `networking.address`."""
    tag_sets = dataplane.tag_sets
    routed = policies.routed(tag_sets, dataplane.networking.outbound if dataplane.networking else ())
    return Proxy(
        key=key,
        dataplane=dataplane,
        address=address,
        node=node,
        outbounds=routed.outbounds,
        service_policies=routed.service_policies,
        tags_header=tags_header(dataplane),
        long_requests=_long_requests(policies, tag_sets),
    )


def _long_requests(policies: MeshPolicies, tag_sets: TagSets) -> tuple[tuple[str, Duration], ...]:
    services = sorted({tags.service for tags in tag_sets})
    granted = ((service, policies.long_request(service)) for service in services)
    return tuple((service, longest) for service, longest in granted if longest is not None)


def concerns_proxy(policy: Resource, proxy: Proxy) -> bool:
    """Whether adding, changing or removing `policy` can change `proxy`.

    Call it with the old and the new version of a policy; a proxy that neither concerns need not be routed again.
    """
    if policy.key.type not in OUTBOUND_POLICIES or policy.key.mesh != proxy.key.mesh:
        return False
    tag_sets = proxy.dataplane.tag_sets
    if concerns(policy.spec, tag_sets, (service for service, _ in proxy.service_policies)):
        return True
    if policy.key.type != "Timeout":
        return False
    named = destination_ranks(policy.spec)
    return any(ANY in named or tags.service in named for tags in tag_sets)

"""Worlds for the engine: shorthands for changes, Hypothesis strategies, and a client that trusts only hints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from snapshot.cache import type_url
from snapshot.cache.resource import XdsResource
from snapshot.engine.engine import Engine
from snapshot.engine.world import (
    Change,
    NameFailed,
    NameResolved,
    NodeJoined,
    NodeLeft,
    Publication,
    ReachabilityChanged,
    ResourceGone,
    ResourcePut,
)
from snapshot.model.dataplane import Dataplane, Gateway, Health, Inbound, Networking, Outbound
from snapshot.model.mesh import Mesh
from snapshot.model.meta import NANOSECONDS, Duration, ProxyKey, Resource, ResourceKey
from snapshot.model.policies import (
    CircuitBreaker,
    CircuitBreakerConf,
    HttpRetry,
    HttpTimeout,
    Retry,
    RetryConf,
    TcpRetry,
    Thresholds,
    Timeout,
    TimeoutConf,
    TrafficPermission,
)
from snapshot.model.selector import Selector
from snapshot.model.tags import PROTOCOL, SERVICE, ZONE, Tags
from snapshot.model.traffic_route import (
    HttpMatch,
    HttpRule,
    LeastRequest,
    LoadBalancer,
    Split,
    StringMatcher,
    TrafficRoute,
    TrafficRouteConf,
)
from snapshot.topology.proxy import KAFKA_BROKER, NodeInfo

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ANYONE = (Selector(match=Tags({SERVICE: "*"})),)
ADMIN = NodeInfo(admin_port=9901)

# Shorthands


def key(kind: str, name: str, mesh: str = "default") -> ResourceKey:
    return ResourceKey(kind, "" if kind == "Mesh" else mesh, name)


def proxy(name: str, mesh: str = "default") -> ProxyKey:
    return ProxyKey(mesh, name)


def put(kind: str, name: str, spec: Any, mesh: str = "default", created: datetime = EPOCH) -> ResourcePut:
    return ResourcePut(Resource(key=key(kind, name, mesh), spec=spec, version=1, creation_time=created))


def mesh_put(name: str = "default") -> ResourcePut:
    return put("Mesh", name, Mesh())


def tags(service: str, protocol: str = "", **more: str) -> Tags:
    return Tags({SERVICE: service, **({PROTOCOL: protocol} if protocol else {}), **more})


def inbound(service: str, protocol: str = "", port: int = 8000, ready: bool | None = None, **more: str) -> Inbound:
    health = None if ready is None else Health(ready=ready)
    return Inbound(port=port, service_port=80, tags=tags(service, protocol, **more), health=health)


def outbounds(*services: str) -> tuple[Outbound, ...]:
    return tuple(Outbound(port=10000 + at, tags=tags(service)) for at, service in enumerate(services))


def dataplane(
    address: str, *inbounds: Inbound, to: Sequence[Outbound] = (), advertised: str = "", gateway: Tags | None = None
) -> Dataplane:
    return Dataplane(
        networking=Networking(
            address=address,
            advertised_address=advertised,
            inbound=inbounds,
            outbound=tuple(to),
            gateway=Gateway(tags=gateway) if gateway else None,
        )
    )


def dataplane_put(name: str, spec: Dataplane, mesh: str = "default") -> ResourcePut:
    return put("Dataplane", name, spec, mesh)


def route_all(name: str = "route-all", mesh: str = "default") -> ResourcePut:
    conf = TrafficRouteConf(destination=Tags({SERVICE: "*"}))
    return put("TrafficRoute", name, TrafficRoute(sources=ANYONE, destinations=ANYONE, conf=conf), mesh)


def connect_timeout(seconds: int, sources: str = "*", destinations: str = "*") -> Timeout:
    return Timeout(
        sources=(Selector(match=Tags({SERVICE: sources})),),
        destinations=(Selector(match=Tags({SERVICE: destinations})),),
        conf=TimeoutConf(connect_timeout=Duration(seconds * NANOSECONDS)),
    )


def joined(name: str, mesh: str = "default", info: NodeInfo = ADMIN) -> NodeJoined:
    return NodeJoined(proxy(name, mesh), info)


# A client that applies the published hints, and nothing else

Content = dict[str, dict[str, XdsResource]]


def content(engine: Engine, of: ProxyKey) -> Content | None:
    """Everything that the engine serves to one proxy; None where it has no state."""
    state = engine.state(of)
    if state is None:
        return None
    found = {url: {name: state.get(url, name) for name in state.names(url)} for url in type_url.PUSH_ORDER}
    assert all(resource is not None for named in found.values() for resource in named.values())
    return {url: named for url, named in found.items() if named}


class Clients:
    """What each joined proxy holds after reading, from its state, only the names that publications mention.

    Every mention must be news (L4), except in the first publication after the proxy joined or got its state back.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.held: dict[ProxyKey, Content] = {}
        self.settled: set[ProxyKey] = set()

    def apply(self, changes: Sequence[Change]) -> Publication:
        for change in changes:
            if isinstance(change, NodeLeft):
                self.held.pop(change.proxy, None)
                self.settled.discard(change.proxy)
            elif isinstance(change, NodeJoined):
                self.held.setdefault(change.proxy, {})
        publication = self.engine.apply(changes)
        for told, hint in publication.changes.items():
            assert hint, f"{told} is woken for nothing"
            state = self.engine.state(told)
            assert state is not None, f"{told} is woken without a state"
            for url, names in hint.names.items():
                self._read(told, state, url, names)
        self.settled = {held for held in self.held if self.engine.state(held) is not None}
        return publication

    def _read(self, told, state, url, names):
        held = self.held[told].setdefault(url, {})
        for name in names:
            new = state.get(url, name)
            assert told not in self.settled or held.get(name) != new, f"{told}: {name} is no news"
            if new is None:
                held.pop(name, None)
            else:
                held[name] = new
        if not held:
            del self.held[told][url]


# Strategies: small alphabets, so that things meet

MESHES = ("default", "other")
PROXIES = ("p0", "p1", "p2", "p3")
SERVICES = ("web", "api", "db")
HOSTS = ("one.test", "two.test")

_services = st.sampled_from(SERVICES)
_versions = st.sampled_from(("v1", "v2"))
_addresses = st.sampled_from(("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", *HOSTS))
_created = st.sampled_from([EPOCH.replace(day=day) for day in (1, 2, 3)])
_any_service = st.sampled_from((*SERVICES, "*"))
_durations = st.sampled_from([None, Duration(NANOSECONDS), Duration(20 * NANOSECONDS)])


@st.composite
def _tags(draw, protocols=("", "", "http", "http2", "grpc", "tcp", "kafka")):
    found = {SERVICE: draw(_services)}
    if protocol := draw(st.sampled_from(protocols)):
        found[PROTOCOL] = protocol
    if draw(st.booleans()):
        found["version"] = draw(_versions)
    if draw(st.integers(0, 5)) == 0:
        found[ZONE] = draw(st.sampled_from(("east", "west")))
    return Tags(found)


_selector_tags = st.one_of(
    st.builds(lambda s: Tags({SERVICE: s}), _any_service),
    st.builds(lambda s, v: Tags({SERVICE: s, "version": v}), _any_service, st.sampled_from(("v1", "v2", "*"))),
)
_sources = st.lists(st.builds(Selector, match=_selector_tags), min_size=1, max_size=2).map(tuple)
_destinations = st.lists(
    st.builds(Selector, match=st.builds(lambda s: Tags({SERVICE: s}), _any_service)), min_size=1, max_size=2
).map(tuple)
_target = st.one_of(
    st.just(Tags({SERVICE: "*"})),
    st.builds(lambda s: Tags({SERVICE: s}), _services),
    st.builds(lambda s, v: Tags({SERVICE: s, "version": v}), _services, _versions),
)
_splits = st.lists(st.builds(Split, weight=st.sampled_from((0, 1, 9)), destination=_target), max_size=3).map(tuple)


@st.composite
def _route_confs(draw):
    splits = draw(_splits)
    rules = draw(st.lists(_http_rules, max_size=1).map(tuple))
    balancer = draw(st.sampled_from((None, None, LoadBalancer(least_request=LeastRequest(choice_count=3)))))
    if splits:
        return TrafficRouteConf(split=splits, http=rules, load_balancer=balancer)
    return TrafficRouteConf(destination=draw(_target), http=rules, load_balancer=balancer)


_http_rules = st.builds(HttpRule, match=st.just(HttpMatch(path=StringMatcher(prefix="/admin"))), destination=_target)

_policies = st.one_of(
    st.tuples(
        st.just("TrafficRoute"),
        st.builds(TrafficRoute, sources=_sources, destinations=_destinations, conf=_route_confs()),
    ),
    st.tuples(
        st.just("Timeout"),
        st.builds(
            Timeout,
            sources=_sources,
            destinations=_destinations,
            conf=st.builds(
                TimeoutConf, connect_timeout=_durations, http=st.builds(HttpTimeout, request_timeout=_durations)
            ),
        ),
    ),
    st.tuples(
        st.just("CircuitBreaker"),
        st.builds(
            CircuitBreaker,
            sources=_sources,
            destinations=_destinations,
            conf=st.builds(CircuitBreakerConf, thresholds=st.builds(Thresholds, max_connections=st.integers(1, 2))),
        ),
    ),
    st.tuples(
        st.just("Retry"),
        st.builds(
            Retry,
            sources=_sources,
            destinations=_destinations,
            conf=st.builds(
                RetryConf,
                http=st.builds(HttpRetry, num_retries=st.integers(1, 2)),
                tcp=st.builds(TcpRetry, max_connect_attempts=st.integers(1, 2)),
            ),
        ),
    ),
    st.tuples(st.just("TrafficPermission"), st.builds(TrafficPermission, sources=_sources, destinations=_destinations)),
)


@st.composite
def dataplanes(draw) -> Dataplane:
    """A Dataplane with up to two inbounds, or a delegated gateway, and up to three outbounds."""
    gateway = draw(_tags(protocols=("",))) if draw(st.integers(0, 5)) == 0 else None
    inbounds = []
    for at in range(0 if gateway else draw(st.integers(1, 2))):
        health = draw(st.sampled_from((None, None, Health(ready=True), Health(ready=False))))
        own = draw(st.sampled_from(("", "", "", "10.9.9.9")))
        inbounds.append(Inbound(port=8000 + at, service_port=80, address=own, tags=draw(_tags()), health=health))
    wanted = draw(st.lists(st.tuples(_services, st.sampled_from(("", "", "v1", "v2"))), max_size=3))
    to = [
        Outbound(port=10000 + at, tags=tags(service, **({"version": version} if version else {})))
        for at, (service, version) in enumerate(wanted)
    ]
    advertised = draw(st.sampled_from(("", "", "", "192.0.2.1", HOSTS[1])))
    return dataplane(draw(_addresses), *inbounds, to=to, advertised=advertised, gateway=gateway)


_meshes = st.sampled_from((*MESHES, MESHES[0], MESHES[0]))
_proxies = st.builds(proxy, st.sampled_from(PROXIES), _meshes)
_policy_names = st.sampled_from(("a", "b"))
_infos = st.builds(
    NodeInfo,
    admin_port=st.sampled_from((0, 9901)),
    extensions=st.sampled_from((frozenset(), frozenset({KAFKA_BROKER}))),
)
_kinds = st.sampled_from(("TrafficRoute", "Timeout", "CircuitBreaker", "Retry", "TrafficPermission"))

_put_dataplane = st.builds(lambda of, spec: dataplane_put(of.name, spec, of.mesh), _proxies, dataplanes())
_put_policy = st.builds(
    lambda policy, name, mesh, created: put(policy[0], name, policy[1], mesh, created),
    _policies, _policy_names, _meshes, _created,
)  # fmt: skip

changes = st.one_of(
    _put_dataplane,
    _put_dataplane,
    _put_dataplane,
    _put_policy,
    _put_policy,
    st.builds(lambda of: ResourceGone(key("Dataplane", of.name, of.mesh)), _proxies),
    st.builds(lambda kind, name: ResourceGone(key(kind, name)), _kinds, _policy_names),
    st.just(ResourceGone(key("TrafficRoute", "route-all"))),
    st.builds(mesh_put, _meshes),
    st.builds(lambda mesh: ResourceGone(key("Mesh", mesh)), _meshes),
    st.builds(NameResolved, st.sampled_from(HOSTS), st.sampled_from(("10.1.0.1", "10.1.0.2"))),
    st.builds(NameFailed, st.sampled_from(HOSTS), st.just("no such host")),
    st.builds(ReachabilityChanged, _proxies, st.booleans()),
    st.builds(NodeJoined, _proxies, _infos),
    st.builds(NodeLeft, _proxies),
)
"""Any one change that the control plane can see, valid in itself."""

batches = st.lists(changes, max_size=5)


@st.composite
def histories(draw, max_batches: int = 10) -> list[list[Change]]:
    """A mesh with a route for everything, proxies that have joined, some policies; then any batches of any changes."""
    start: list[Change] = [mesh_put(), route_all()]
    for name in PROXIES:
        start += [dataplane_put(name, draw(dataplanes())), joined(name, info=draw(_infos))]
    start += draw(st.lists(_put_policy, max_size=4))
    return [start, *draw(st.lists(batches, max_size=max_batches))]

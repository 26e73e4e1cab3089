"""What one mesh offers, kept up to date change by change: Dataplanes, the endpoints of services, compiled policies.

The rules themselves are those of `snapshot.topology`. Never here: builds, and who is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from snapshot.engine.dependencies import NodeIndex
from snapshot.engine.node import Node, SharedEndpoints
from snapshot.engine.world import Issue
from snapshot.model.dataplane import Dataplane
from snapshot.model.meta import Resource, ResourceKey
from snapshot.model.policies import CircuitBreaker, Retry, Timeout
from snapshot.model.traffic_route import TrafficRoute
from snapshot.topology.mesh_context import (
    NOTHING,
    Contribution,
    Names,
    common_protocol,
    contribution,
    domain_names,
    protocol_of,
    selected,
)
from snapshot.topology.outbounds import OUTBOUND_POLICIES, MeshPolicies
from snapshot.topology.proxy import Endpoint, EndpointSelector, Protocol

_SPECS: Final = {
    "TrafficRoute": TrafficRoute,
    "Timeout": Timeout,
    "CircuitBreaker": CircuitBreaker,
    "Retry": Retry,
}


class Service:
    """The endpoints of one service of a mesh, and what hangs on them.

    `members` are the endpoints by name of their Dataplane, never empty; `readers` the nodes whose build asked for
    `protocol`; `shared` the assignments in use, by name and tags.
    """

    __slots__ = ("_spoken", "members", "name", "protocol", "readers", "shared")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.members: dict[str, tuple[Endpoint, ...]] = {}
        self.protocol: Protocol | None = None
        self.readers: set[Node] = set()
        self.shared: dict[tuple[str, EndpointSelector], SharedEndpoints] = {}
        self._spoken: dict[Protocol, int] = {}

    def replace(self, dataplane: str, endpoints: tuple[Endpoint, ...]) -> list[SharedEndpoints]:
        """`dataplane` has these endpoints from now on; returns the assignments whose members changed."""
        old = self.members.pop(dataplane, ())
        if endpoints:
            self.members[dataplane] = endpoints
        for endpoint, step in (*((e, -1) for e in old), *((e, 1) for e in endpoints)):
            protocol = protocol_of(endpoint.tags)
            count = self._spoken.get(protocol, 0) + step
            self._spoken[protocol] = count
            if not count:
                del self._spoken[protocol]
        if not self.shared:
            return []
        changed = _difference(old, endpoints)
        return [shared for shared in self.shared.values() if selected(shared.selector, changed)]

    def refresh_protocol(self) -> bool:
        """Work out `protocol` again; returns whether it changed."""
        old, self.protocol = self.protocol, common_protocol(self._spoken)
        return old is not self.protocol

    def endpoints(self, selector: EndpointSelector) -> tuple[Endpoint, ...]:
        """Members that the selector names, in no particular order."""
        return selected(selector, (endpoint for member in self.members.values() for endpoint in member))

    @property
    def unused(self) -> bool:
        """Whether nothing is lost by forgetting this service."""
        return not (self.members or self.readers or self.shared)


def _difference(old: tuple[Endpoint, ...], new: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    before, after = {*old}, {*new}
    if len(before) != len(old) or len(after) != len(new):
        return (*old, *new)  # repeated endpoints: which of them changed is not worth finding out
    return tuple(before ^ after)


class OwnDataplane:
    """One Dataplane of a mesh. `offered` are its endpoints: those of `contribution`, none while it is unreachable.

    `spec` is None from its deletion until the next `refresh`.
    """

    __slots__ = ("contribution", "names", "offered", "spec")

    def __init__(self, spec: Dataplane) -> None:
        self.spec: Dataplane | None = spec
        self.contribution = NOTHING
        self.names: tuple[str, ...] = ()
        self.offered: tuple[Endpoint, ...] = ()


class Refreshed(NamedTuple):
    """What a refresh of one Dataplane changed: its own address, the services it touched, the stale assignments."""

    address: bool
    services: tuple[Service, ...]
    stale: tuple[tuple[SharedEndpoints, Service], ...]


class MeshCatalog:
    """All of one mesh. `exists` says whether its Mesh resource does; without it nothing is built.

    `named` are the Dataplanes that use a domain name, `troubled` those with a problem, `rejected` says why a resource
    is skipped as a whole, `complaints` are the nodes whose build has an issue with an object.
    """

    __slots__ = (
        "_policies",
        "_policies_stale",
        "_raw",
        "complaints",
        "dataplanes",
        "exists",
        "index",
        "name",
        "named",
        "nodes",
        "rejected",
        "services",
        "troubled",
    )

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.exists = False
        self.dataplanes: dict[str, OwnDataplane] = {}
        self.services: dict[str, Service] = {}
        self.nodes: dict[str, Node] = {}
        self.index: Final = NodeIndex()
        self.named: dict[str, set[str]] = {}
        self.troubled: set[str] = set()
        self.rejected: dict[ResourceKey, str] = {}
        self.complaints: dict[ResourceKey, dict[Node, None]] = {}
        self._raw: dict[str, dict[str, Resource]] = {name: {} for name in OUTBOUND_POLICIES}
        self._policies: MeshPolicies | None = None
        self._policies_stale = False

    @property
    def unused(self) -> bool:
        """Whether nothing is lost by forgetting this mesh."""
        kept = (self.dataplanes, self.nodes, self.rejected, self.services, *self._raw.values())
        return not (self.exists or any(kept))

    def put_dataplane(self, name: str, spec: Dataplane | None) -> bool:
        """The Dataplane has this spec from now on (None: it is gone); returns whether that is news."""
        known = self.dataplanes.get(name)
        if known is None:
            if spec is not None:
                self.dataplanes[name] = OwnDataplane(spec)
            return spec is not None
        news = known.spec != spec
        known.spec = spec
        return news

    def refresh_dataplane(self, name: str, names: Names, *, reachable: bool) -> Refreshed:
        """Bring what the Dataplane contributes up to date with its spec, the names' addresses and its reachability."""
        own = self.dataplanes.get(name)
        if own is None:
            return Refreshed(address=False, services=(), stale=())
        old_address, old_offer = own.contribution.address, own.offered
        old_names = own.names
        own.contribution, own.names = _contribution(own.spec, names)
        self._rename(name, old_names, own.names)
        own.offered = own.contribution.endpoints if reachable else ()
        (self.troubled.add if own.contribution.problems else self.troubled.discard)(name)
        if own.spec is None:
            del self.dataplanes[name]
        services, stale = self._offer(name, old_offer, own.offered)
        return Refreshed(address=own.contribution.address != old_address, services=services, stale=stale)

    def _rename(self, dataplane: str, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        for name in set(old) - set(new):
            self.named[name].discard(dataplane)
            if not self.named[name]:
                del self.named[name]
        for name in set(new) - set(old):
            self.named.setdefault(name, set()).add(dataplane)

    def _offer(
        self, dataplane: str, old: tuple[Endpoint, ...], new: tuple[Endpoint, ...]
    ) -> tuple[tuple[Service, ...], tuple[tuple[SharedEndpoints, Service], ...]]:
        if old == new:
            return (), ()
        before, after = _by_service(old), _by_service(new)
        touched: list[Service] = []
        stale: list[tuple[SharedEndpoints, Service]] = []
        for name in before.keys() | after.keys():
            if before.get(name) != after.get(name):
                service = self.service(name)
                stale += ((shared, service) for shared in service.replace(dataplane, after.get(name, ())))
                touched.append(service)
        return tuple(touched), tuple(stale)

    def service(self, name: str) -> Service:
        """The service of that name, without members where nobody offers it."""
        known = self.services.get(name)
        if known is None:
            known = self.services[name] = Service(name)
        return known

    def forget_unused(self, service: str) -> None:
        """Drop the service if nothing hangs on it."""
        if (known := self.services.get(service)) is not None and known.unused:
            del self.services[service]

    def reached_by(self, dataplane: str) -> set[Node]:
        """The nodes whose state the Dataplane has a part in: its own, and those that use or ask about its services."""
        found = {self.nodes[dataplane]} if dataplane in self.nodes else set()
        own = self.dataplanes.get(dataplane)
        for name, endpoints in _by_service(own.offered if own else ()).items():
            service = self.services[name]
            found |= service.readers
            for shared in service.shared.values():
                if selected(shared.selector, endpoints):
                    found |= shared.users
        return found

    def report(self, node: Node, issues: tuple[Issue, ...]) -> None:
        """These are the issues of the node's build from now on, and no others."""
        if issues == node.issues:
            return
        for issue in node.issues:
            if (complaining := self.complaints.get(issue.object)) is not None:
                complaining.pop(node, None)
                if not complaining:
                    del self.complaints[issue.object]
        for issue in issues:
            self.complaints.setdefault(issue.object, {})[node] = None
        node.issues = issues

    def put_policy(self, key: ResourceKey, resource: Resource | None) -> list[Resource]:
        """The policy is this from now on (None: it is gone); returns the versions that the change is between.

        Nothing is returned, and nothing changed, where a rewrite leaves everything that decides as it is.
        """
        policies = self._raw[key.type]
        old = policies.pop(key.name, None)
        new = resource if resource is not None and self._accept(resource) else None
        if resource is None:
            self.rejected.pop(key, None)
        if new is not None:
            same = old is not None and (old.spec, old.creation_time) == (new.spec, new.creation_time)
            policies[key.name] = old if old is not None and same else new
            if same:
                return []
        self._policies_stale = True
        return [version for version in (old, new) if version is not None]

    def _accept(self, resource: Resource) -> bool:
        if isinstance(resource.spec, _SPECS[resource.key.type]):
            self.rejected.pop(resource.key, None)
            return True
        self.rejected[resource.key] = f"skipped: its content is no {resource.key.type}"
        return False

    @property
    def policies(self) -> MeshPolicies:
        """The policies of this mesh, compiled."""
        if self._policies is None or self._policies_stale:
            raw = {type_name: named.values() for type_name, named in self._raw.items()}
            self._policies = MeshPolicies.of(raw, self._policies)
            self._policies_stale = False
        return self._policies


def _contribution(spec: Dataplane | None, names: Names) -> tuple[Contribution, tuple[str, ...]]:
    """What the Dataplane adds to its mesh, and the domain names that this depends on."""
    if spec is None:
        return NOTHING, ()
    try:
        return contribution(spec, names), domain_names(spec)
    except Exception as error:  # noqa: BLE001 - one bad object must not stop the others; it is reported as its problem
        return Contribution(problems=(f"skipped: {type(error).__name__}: {error}",)), ()


def _by_service(endpoints: Iterable[Endpoint]) -> dict[str, tuple[Endpoint, ...]]:
    found: dict[str, tuple[Endpoint, ...]] = {}
    for endpoint in endpoints:
        service = endpoint.tags.service
        found[service] = (*found.get(service, ()), endpoint)
    return found

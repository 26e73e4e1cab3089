"""MeshContext: what one mesh offers: who can be reached where, and what each service speaks (R §1.2, R §3.6, X §4.1).

The functions are the rules for one Dataplane; `MeshContext` applies them to all of a mesh, from nothing.
Never here: what changed since last time (`snapshot.engine`), Envoy's messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from ipaddress import ip_address
from typing import Final, NamedTuple

from snapshot.model.dataplane import Dataplane, Inbound, Networking
from snapshot.model.tags import PROTOCOL, Tags
from snapshot.topology.proxy import Endpoint, EndpointSelector, Protocol

MAX_PORT: Final = 65535

_BY_TAG: Final = {protocol.value: protocol for protocol in Protocol if protocol is not Protocol.UNKNOWN}

_STACKS: Final = {
    Protocol.GRPC: (Protocol.GRPC, Protocol.HTTP2, Protocol.TCP),
    Protocol.HTTP2: (Protocol.HTTP2, Protocol.TCP),
    Protocol.HTTP: (Protocol.HTTP, Protocol.TCP),
    Protocol.KAFKA: (Protocol.KAFKA, Protocol.TCP),
    Protocol.TCP: (Protocol.TCP,),
}
"""What each protocol can be proxied as, the best first. UNKNOWN has none: it makes everything UNKNOWN (R §1.2)."""


class Names(NamedTuple):
    """What is known about domain names: the address of each that was ever resolved, and why the last attempt failed."""

    resolved: Mapping[str, str]
    failed: Mapping[str, str]


class Contribution(NamedTuple):
    """What one Dataplane adds to its mesh.

    `address` is the IP of `networking.address`, None where that is unknown: then its own proxy cannot be built.
    `endpoints` are its ready inbounds, in their order. `problems` say which parts have no effect, and why.
    """

    address: str | None = None
    endpoints: tuple[Endpoint, ...] = ()
    problems: tuple[str, ...] = ()


NOTHING: Final = Contribution()


def is_ip(address: str) -> bool:
    """Whether `address` is an IPv4 or IPv6 literal, without a scope, which Envoy refuses; all else is a domain name."""
    if "%" in address:
        return False
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def domain_names(dataplane: Dataplane) -> tuple[str, ...]:
    """The names in `networking.address` and `networking.advertisedAddress` that must be resolved, in that order."""
    if dataplane.networking is None:
        return ()
    addresses = (dataplane.networking.address, dataplane.networking.advertised_address)
    return tuple(dict.fromkeys(address for address in addresses if address and not is_ip(address)))


def contribution(dataplane: Dataplane, names: Names) -> Contribution:
    """What `dataplane` adds to its mesh while it is reachable (R §1.2, X §4.1 no. 2, X §4.6).

    Peers dial `advertisedAddress`, else the inbound's address, else `networking.address`. A Dataplane with a name that
    was never resolved has no endpoints at all; a name that stopped resolving keeps its last answer. Port 49151
    (service-less) is an endpoint as in Kuma, although no listener is generated for it. The weight is 1: no other zone
    has instances.
    """
    networking = dataplane.networking
    if networking is None:
        return Contribution(problems=("networking: has to be defined",))
    problems: list[str] = []
    address = _resolve("networking.address", networking.address, names, problems)
    advertised = networking.advertised_address and _resolve(
        "networking.advertisedAddress", networking.advertised_address, names, problems
    )
    if address is None or advertised is None:
        return Contribution(address=address, problems=tuple(problems))
    return Contribution(address, _endpoints(networking, address, advertised, problems), tuple(problems))


def _resolve(field: str, address: str, names: Names, problems: list[str]) -> str | None:
    if is_ip(address):
        return address
    if not address:
        problems.append(f"{field}: has to be set")
        return None
    resolved, failure = names.resolved.get(address), names.failed.get(address)
    if resolved is None:
        why = f": {failure}" if failure else " yet"
        problems.append(f'{field}: the name "{address}" has not been resolved{why}; this proxy receives no traffic')
        return None
    if not is_ip(resolved):
        problems.append(f'{field}: the name "{address}" was resolved to "{resolved}", which is no IP address')
        return None
    if failure:
        problems.append(
            f'{field}: the name "{address}" no longer resolves: {failure}; its last address {resolved} stays'
        )
    return resolved


def _endpoints(networking: Networking, address: str, advertised: str, problems: list[str]) -> tuple[Endpoint, ...]:
    endpoints = []
    for at, inbound in enumerate(networking.inbound):
        if problem := _inbound_problem(inbound):
            problems.append(f"networking.inbound[{at}].{problem}")
        elif inbound.ready:
            dialled = advertised or inbound.address or address
            endpoints.append(Endpoint(address=dialled, port=inbound.port, tags=inbound.tags))
    return tuple(endpoints)


def _inbound_problem(inbound: Inbound) -> str:
    """Why the inbound cannot be an endpoint: one that Envoy rejects would take its whole service from everybody."""
    if not inbound.tags.service:
        return 'tags: must have the tag "kuma.io/service"; the inbound receives no traffic'
    if not 0 < inbound.port <= MAX_PORT:
        return f"port: {inbound.port} is not between 1 and {MAX_PORT}; the inbound receives no traffic"
    if inbound.address and not is_ip(inbound.address):
        return f'address: "{inbound.address}" is no IP address; the inbound receives no traffic'
    return ""


def protocol_of(tags: Tags) -> Protocol:
    """What the tag `kuma.io/protocol` says, in any case of letters; UNKNOWN without it (R §1.2)."""
    return _BY_TAG.get(tags.get(PROTOCOL, "").lower(), Protocol.UNKNOWN)


def common_protocol(protocols: Iterable[Protocol]) -> Protocol | None:
    """What endpoints that speak `protocols` can all be proxied as (X §3.3 no. 4); None for no endpoints."""
    found = set(protocols)
    if not found:
        return None
    if Protocol.UNKNOWN in found:
        return Protocol.UNKNOWN
    stacks = [_STACKS[protocol] for protocol in found]
    return next(candidate for candidate in stacks[0] if all(candidate in stack for stack in stacks))


def selected(selector: EndpointSelector, endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Of the endpoints of the selector's service, those that have all its tags with equal values (X §4.3)."""
    if not selector.tags:
        return tuple(endpoints)
    wanted = selector.tags.items()
    return tuple(endpoint for endpoint in endpoints if wanted <= endpoint.tags.items())


class MeshContext:
    """All of one mesh at one moment: the endpoints of each service. Answers the facts that a build asks for."""

    __slots__ = ("_services", "contributions")

    def __init__(
        self, dataplanes: Mapping[str, Dataplane], names: Names, unreachable: AbstractSet[str] = frozenset()
    ) -> None:
        """`dataplanes` by name; those named in `unreachable` have an address, but no endpoints."""
        self.contributions: Final = {name: contribution(dataplane, names) for name, dataplane in dataplanes.items()}
        self._services: dict[str, list[Endpoint]] = {}
        for name, added in self.contributions.items():
            for endpoint in () if name in unreachable else added.endpoints:
                self._services.setdefault(endpoint.tags.service, []).append(endpoint)

    @property
    def services(self) -> frozenset[str]:
        """The services with at least one endpoint."""
        return frozenset(self._services)

    def endpoints(self, selector: EndpointSelector) -> tuple[Endpoint, ...]:
        """The endpoints that the selector names, in no particular order."""
        return selected(selector, self._services.get(selector.service, ()))

    def protocol(self, service: str) -> Protocol | None:
        """Common protocol of all endpoints of the service, None where there are none."""
        return common_protocol(protocol_of(endpoint.tags) for endpoint in self._services.get(service, ()))

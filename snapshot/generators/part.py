"""Part: one listener with its clusters, serialised once and shared (L5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple

from snapshot.cache.resource import XdsResource
from snapshot.model.meta import ResourceKey
from snapshot.topology.proxy import EndpointSelector

MAX_PORT: Final = 65535

Socket = tuple[str, int]
"""IP address in its one canonical form, and port."""


class PartIssue(NamedTuple):
    """An issue of a shared part; `object` None stands for the Dataplane of whoever has the part."""

    object: ResourceKey | None
    reason: str


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Part:
    """One listener with its clusters; every proxy whose inputs are equal has the identical object.

    `origins[i]` are the policies that made `resources[i]`. `socket` is what the listener binds, None without one.
    `endpoints` says what the ClusterLoadAssignments hold that the clusters name. `inner` are the shared parts that this
    one was put together from; holding them keeps them remembered.
    """

    resources: tuple[XdsResource, ...] = ()
    origins: tuple[tuple[ResourceKey, ...], ...] = ()
    endpoints: Mapping[str, EndpointSelector] = field(default_factory=dict)
    socket: Socket | None = None
    issues: tuple[PartIssue, ...] = ()
    inner: tuple[Part, ...] = ()


@lru_cache(maxsize=65536)
def canonical_ip(text: str) -> str:
    """The one form of an IP address, which may have several (`::1`, `0:0:0:0:0:0:0:1`); ValueError for other text."""
    return str(ip_address(text))


def check_socket(address_field: str, address: str, port_field: str, port: int) -> Socket:
    """`address` and `port` as a Socket; ValueError names the field where Envoy would refuse one of them."""
    try:
        ip = canonical_ip(address)
    except ValueError:
        raise ValueError(f'{address_field}: "{address}" is no IP address') from None
    if not 0 < port <= MAX_PORT:
        raise ValueError(f"{port_field}: {port} is not between 1 and {MAX_PORT}")
    return ip, port

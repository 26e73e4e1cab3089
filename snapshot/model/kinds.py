"""The kinds of resources of this version with their specs. What surrounds them (paths, access): `snapshot.registry`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from snapshot.model.dataplane import Dataplane
from snapshot.model.decoding import DecodeError
from snapshot.model.insight import DataplaneInsight
from snapshot.model.mesh import Mesh
from snapshot.model.meta import Spec
from snapshot.model.policies import CircuitBreaker, Retry, Timeout, TrafficPermission
from snapshot.model.secret import Secret
from snapshot.model.traffic_route import TrafficRoute


class Scope(enum.Enum):
    """Where a name is unique: in one mesh, or everywhere."""

    GLOBAL = "global"
    MESH = "mesh"


class Kind(NamedTuple):
    """The spec of one type and its scope."""

    spec: type[Spec]
    scope: Scope


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "Mesh": Kind(Mesh, Scope.GLOBAL),
        "Dataplane": Kind(Dataplane, Scope.MESH),
        "DataplaneInsight": Kind(DataplaneInsight, Scope.MESH),
        "TrafficRoute": Kind(TrafficRoute, Scope.MESH),
        "TrafficPermission": Kind(TrafficPermission, Scope.MESH),
        "Timeout": Kind(Timeout, Scope.MESH),
        "CircuitBreaker": Kind(CircuitBreaker, Scope.MESH),
        "Retry": Kind(Retry, Scope.MESH),
        "Secret": Kind(Secret, Scope.MESH),
        "GlobalSecret": Kind(Secret, Scope.GLOBAL),
    }
)

LATER_KINDS = frozenset({
    "Config", "ExternalService", "FaultInjection", "HealthCheck", "MeshGateway", "MeshGatewayRoute", "MeshInsight",
    "ProxyTemplate", "RateLimit", "ServiceInsight", "TrafficLog", "TrafficTrace", "VirtualOutbound", "Zone",
    "ZoneEgress", "ZoneEgressInsight", "ZoneIngress", "ZoneIngressInsight", "ZoneInsight",
})  # fmt: skip
"""Types of Kuma 1.5 that this version refuses by name, rather than accept what would have no effect."""


class UnknownType(DecodeError):  # noqa: N818 - the word of the contract between the packages
    """A resource of a type that this version does not have; the text lists those it has."""

    def __init__(self, type_name: str) -> None:
        known = ", ".join(sorted(KINDS))
        shown = type_name if len(type_name) <= 100 else f"{type_name[:100]}…"  # noqa: PLR2004 - enough to recognise it
        why = "not supported by this version" if type_name in LATER_KINDS else "no such type"
        super().__init__("type", f"{shown}: {why}. Supported types: {known}")

    def __str__(self) -> str:
        return self.message


def kind_of(type_name: str) -> Kind:
    """The kind named `type_name`. Raises UnknownType."""
    if (kind := KINDS.get(type_name)) is None:
        raise UnknownType(type_name)
    return kind

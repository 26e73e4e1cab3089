"""The one table of resource types: what each is called, where it lives, who may touch it, and what makes it valid.

A new type is a spec in `model`, its kind in `model.kinds`, its rules in `model.rules` and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from snapshot.model.kinds import KINDS, Scope, UnknownType, kind_of
from snapshot.model.meta import Spec
from snapshot.model.rules import circuit_breaker, dataplane, mesh, retry, timeout, traffic_permission, traffic_route
from snapshot.model.rules.meta import validate_meta
from snapshot.model.validation import Violation

__all__ = ["TYPES", "Scope", "TypeDescriptor", "UnknownType", "by_argument", "by_path", "descriptor"]


Rules = Callable[[Any], list[Violation]]


def _no_rules(_spec: Any) -> list[Violation]:
    """Secrets and insights have no rules of their own (R §2.5)."""
    return []


class TypeDescriptor(NamedTuple):
    """One type (R §1.1)."""

    name: str
    path: str
    """Last element of its REST path."""
    cli_one: str
    """How kumactl calls one of them; "" where it has no word."""
    cli_many: str
    validate_spec: Rules
    read_only: bool = False
    """Whether users may only read it."""
    admin_only: bool = False
    """Whether only administrators may even read it."""
    owned_by_mesh: bool = False
    """Whether it goes when its mesh goes. A Dataplane blocks that, a Secret is removed by name, an insight goes with
    its Dataplane."""
    inspectable: bool = False
    """Whether `/meshes/{mesh}/<path>/{name}/dataplanes` exists."""

    @property
    def spec(self) -> type[Spec]:
        """The class of its specs."""
        return KINDS[self.name].spec

    @property
    def scope(self) -> Scope:
        """Where its names are unique."""
        return KINDS[self.name].scope

    def validate(self, spec: Any, mesh: str, name: str) -> list[Violation]:
        """All violations: of the name and the mesh, then of the spec in the order of R §2."""
        return validate_meta(self.name, mesh, name) + self.validate_spec(spec)


def _policy(name: str, path: str, cli_one: str, cli_many: str, rules: Rules) -> TypeDescriptor:
    return TypeDescriptor(name, path, cli_one, cli_many, rules, owned_by_mesh=True, inspectable=True)


_DESCRIPTORS = (
    TypeDescriptor("Mesh", "meshes", "mesh", "meshes", mesh.validate),
    TypeDescriptor("Dataplane", "dataplanes", "dataplane", "dataplanes", dataplane.validate),
    TypeDescriptor("DataplaneInsight", "dataplane-insights", "", "", _no_rules, read_only=True),
    _policy("CircuitBreaker", "circuit-breakers", "circuit-breaker", "circuit-breakers", circuit_breaker.validate),
    _policy("Retry", "retries", "retry", "retries", retry.validate),
    _policy("Timeout", "timeouts", "timeout", "timeouts", timeout.validate),
    _policy(
        "TrafficPermission",
        "traffic-permissions",
        "traffic-permission",
        "traffic-permissions",
        traffic_permission.validate,
    ),
    _policy("TrafficRoute", "traffic-routes", "traffic-route", "traffic-routes", traffic_route.validate),
    TypeDescriptor("Secret", "secrets", "secret", "secrets", _no_rules, admin_only=True),
    TypeDescriptor("GlobalSecret", "global-secrets", "global-secret", "global-secrets", _no_rules, admin_only=True),
)

TYPES: Mapping[str, TypeDescriptor] = MappingProxyType({one.name: one for one in _DESCRIPTORS})
_BY_PATH = {one.path: one for one in _DESCRIPTORS}
_BY_ARGUMENT = {word: one for one in _DESCRIPTORS for word in (one.cli_one, one.cli_many) if word}


def descriptor(type_name: str) -> TypeDescriptor:
    """The descriptor of the type named `type_name`. Raises UnknownType, whose text lists what exists."""
    kind_of(type_name)
    return TYPES[type_name]


def by_path(path: str) -> TypeDescriptor | None:
    """The descriptor of the type whose REST path ends in `path`, or None."""
    return _BY_PATH.get(path)


def by_argument(word: str) -> TypeDescriptor | None:
    """The descriptor of the type that kumactl calls `word`, one or many, or None."""
    return _BY_ARGUMENT.get(word)

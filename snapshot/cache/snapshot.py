"""Snapshot: everything one proxy should hold, immutable; and what changed from one to the next."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from snapshot.cache.resource import XdsResource

type_to_names = Mapping[str, frozenset[str]]


class NodeState(Protocol):
    """What a stream may ask about the newest state of its node. All reads within one step see one state (XP-181)."""

    def get(self, type_url: str, name: str) -> XdsResource | None:
        """The resource of that type and name that this node should have, or None."""
        ...

    def names(self, type_url: str) -> Collection[str]:
        """All names of that type that belong to this node's state: a live set-like view, so that asking costs nothing.

        A resource that `get` gives and `names` does not list is served by name only (XP-162).
        """
        ...


@dataclass(frozen=True, slots=True)
class Changes:
    """Names whose content appeared, changed or disappeared, by type URL: a hint where to look, not content."""

    names: type_to_names = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.names.values())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The resources of one proxy, by type URL and name.

    ClusterLoadAssignments are not held by value: `endpoint_names` are the names the clusters refer to; their content is
    the mesh's, shared by all its proxies (L2).
    """

    resources: Mapping[str, Mapping[str, XdsResource]]
    endpoint_names: frozenset[str]

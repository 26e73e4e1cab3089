"""Node: the newest state of one connected proxy, as its streams read it, and what it depends on.

Never here: the rules of what is built when (`engine.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from snapshot.cache import type_url
from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import Snapshot
from snapshot.engine.world import Issue
from snapshot.model.meta import ProxyKey
from snapshot.pipeline import Built
from snapshot.topology.proxy import EndpointSelector, NodeInfo, Proxy

Names = dict[str, frozenset[str]]
"""Names of resources by type URL."""

NO_NAMES: Final[frozenset[str]] = frozenset()


class SharedEndpoints:
    """One ClusterLoadAssignment of a mesh, shared by all nodes whose clusters name it (L2).

    `resource` is always the newest; None only while it could not be built even once.
    """

    __slots__ = ("mesh", "name", "resource", "selector", "users")

    def __init__(self, mesh: str, name: str, selector: EndpointSelector) -> None:
        self.mesh: Final = mesh
        self.name: Final = name
        self.selector: Final = selector
        self.resource: XdsResource | None = None
        self.users: set[Node] = set()


class Node:
    """A connected proxy. It is a `NodeState`: reads see the newest state, and keep the last one where it is withdrawn.

    `ready` says whether the state is in force. `built` is the last good build, `proxy` what it was built from; without
    one the next look at this node builds it whatever its input. `facts` are the services whose protocol the build asked
    for, `endpoints` the shared assignments it uses, by name.
    """

    __slots__ = ("built", "endpoints", "facts", "info", "issues", "key", "proxy", "ready")

    def __init__(self, key: ProxyKey, info: NodeInfo) -> None:
        self.key: Final = key
        self.info = info
        self.ready = False
        self.proxy: Proxy | None = None
        self.built: Built | None = None
        self.endpoints: dict[str, SharedEndpoints] = {}
        self.facts: frozenset[str] = NO_NAMES
        self.issues: tuple[Issue, ...] = ()

    def get(self, url: str, name: str) -> XdsResource | None:
        """The resource of that type URL and name that this node should have, or None."""
        if url == type_url.ENDPOINT:
            shared = self.endpoints.get(name)
            return shared.resource if shared else None
        return self.built.snapshot.resources.get(url, {}).get(name) if self.built else None

    def names(self, url: str) -> Collection[str]:
        """All names of that type URL that belong to this node's state."""
        if url == type_url.ENDPOINT:
            return self.endpoints.keys()
        return self.built.snapshot.resources.get(url, {}).keys() if self.built else ()


def changed_names(old: Snapshot, new: Snapshot) -> Names:
    """The names whose content differs between two snapshots, by type URL; types without any are absent.

    Shared objects are told apart by identity first, so that unchanged resources cost one pointer comparison each.
    """
    changed: Names = {}
    if old is not new:
        for url in old.resources.keys() | new.resources.keys():
            if names := _changed(old.resources.get(url, {}), new.resources.get(url, {})):
                changed[url] = names
    return changed


def _changed(old: Mapping[str, XdsResource], new: Mapping[str, XdsResource]) -> frozenset[str]:
    differing = [(name, before, after) for name, after in new.items() if (before := old.get(name)) is not after]
    names = [name for name, before, after in differing if before is None or before.version != after.version]
    if len(old) != len(new) - sum(before is None for _, before, _ in differing):
        names.extend(old.keys() - new.keys())
    return frozenset(names)


def all_names(node: Node) -> Names:
    """Every name of the node's state, by type URL."""
    resources = node.built.snapshot.resources if node.built else {}
    return {**{url: frozenset(named) for url, named in resources.items()}, type_url.ENDPOINT: frozenset(node.endpoints)}


def merged(first: Mapping[str, frozenset[str]], second: Mapping[str, frozenset[str]]) -> Names:
    """The names of both; types without any are absent."""
    urls = first.keys() | second.keys()
    return {url: names for url in urls if (names := first.get(url, NO_NAMES) | second.get(url, NO_NAMES))}

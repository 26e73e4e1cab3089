"""Node: the newest state of one connected proxy, as its streams read it, and what it depends on.

Never here: the rules of what is built when (`engine.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from snapshot.cache import type_url
from snapshot.cache.resource import XdsResource
from snapshot.engine.world import Issue
from snapshot.generators.part import Part
from snapshot.model.meta import ProxyKey
from snapshot.pipeline import Built
from snapshot.topology.proxy import EndpointSelector, NodeInfo, Proxy

Names = dict[str, frozenset[str]]
"""Names of resources by type URL."""

RUN: Final = 32
"""How many parts of a build are compared at once."""

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


def changed_names(old: Built, new: Built) -> Names:
    """The names whose content differs between two builds, by type URL; types without any are absent.

    A part stands for its resources, and both builds share the parts that did not change: runs of identical parts are
    skipped at the price of a comparison of pointers, and only the names of the remaining ones are looked at.
    """
    if len(old.parts) != len(new.parts):
        before, after = old.snapshot.resources, new.snapshot.resources
        found = {url: _changed(before.get(url, {}), after.get(url, {})) for url in before.keys() | after.keys()}
        return {url: names for url, names in found.items() if names}
    changed: dict[str, set[str]] = {}
    for was, now in _differing(old.parts, new.parts):
        for resource in (*was.resources, *now.resources):
            url, name = resource.type_url, resource.name
            held = old.snapshot.resources.get(url, {}).get(name)
            wanted = new.snapshot.resources.get(url, {}).get(name)
            if held is not wanted and held != wanted:
                changed.setdefault(url, set()).add(name)
    return {url: frozenset(names) for url, names in changed.items()}


def _differing(old: tuple[Part, ...], new: tuple[Part, ...]) -> Iterator[tuple[Part, Part]]:
    for start in range(0, len(new), RUN):
        run = slice(start, start + RUN)
        if old[run] != new[run]:
            yield from ((was, now) for was, now in zip(old[run], new[run], strict=True) if was is not now)


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

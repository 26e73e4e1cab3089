"""Invariants: what must hold of an engine between two changes. Tests check it after every batch; slow.

Never here: what the engine built (the oracle judges that).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from snapshot.engine.catalog import MeshCatalog
from snapshot.engine.oracle import mesh_context
from snapshot.engine.world import World
from snapshot.model.meta import ProxyKey
from snapshot.topology.proxy import EndpointSelector


class InvariantBrokenError(Exception):
    """The engine's own bookkeeping contradicts itself or the world; this is a fault of the engine."""


def check(world: World, meshes: Mapping[str, MeshCatalog]) -> None:
    """Raise InvariantBrokenError that lists everything that does not hold."""
    broken = [f"mesh {name}: {what}" for name, mesh in meshes.items() for what in _broken(world, mesh)]
    joined = {ProxyKey(name, node) for name, mesh in meshes.items() for node in mesh.nodes}
    if joined != world.nodes.keys():
        broken.append(f"joined nodes: {joined ^ world.nodes.keys()} are known only to one side")
    if broken:
        raise InvariantBrokenError("; ".join(broken))


def _broken(world: World, mesh: MeshCatalog) -> Iterator[str]:
    if mesh.unused:
        yield "is kept although nothing uses it"
    yield from _broken_services(world, mesh)
    yield from _broken_nodes(mesh)
    yield from _broken_names(mesh)


def _broken_services(world: World, mesh: MeshCatalog) -> Iterator[str]:
    context = mesh_context(world, mesh.name)
    for name in context.services | mesh.services.keys():
        service = mesh.services.get(name)
        if service is None:
            yield f"service {name} is unknown"
            continue
        if service.unused:
            yield f"service {name} is kept although nothing uses it"
        have = sorted(service.endpoints(EndpointSelector(name)), key=repr)
        if have != sorted(context.endpoints(EndpointSelector(name)), key=repr):
            yield f"service {name} has the endpoints {have}"
        if service.protocol is not context.protocol(name):
            yield f"service {name} speaks {service.protocol}"
        if service.readers != {node for node in mesh.nodes.values() if name in node.facts}:
            yield f"service {name} is read by others than it says"
        for key, shared in service.shared.items():
            users = {node for node in mesh.nodes.values() if node.ready and node.endpoints.get(key[0]) is shared}
            if not shared.users or shared.users != users:
                yield f"assignment {key[0]} is used by others than it says"


def _broken_nodes(mesh: MeshCatalog) -> Iterator[str]:
    placed = mesh.index.tag_sets()
    for name, node in mesh.nodes.items():
        own = mesh.dataplanes.get(name)
        buildable = mesh.exists and own is not None and own.contribution.address is not None
        if buildable != (node in placed):
            yield f"node {name} is found by selectors: {node in placed}"
        if own is not None and own.spec is not None and placed.get(node, own.spec.tag_sets) != own.spec.tag_sets:
            yield f"node {name} is found by old tags"
        if node.ready and (node.built is None or not buildable):
            yield f"node {name} has a state in force that cannot be"
        if node.ready and node.built is not None and node.endpoints.keys() != node.built.endpoints.keys():
            yield f"node {name} uses other assignments than were built for it"
        for issue in node.issues:
            if node not in mesh.complaints.get(issue.object, {}):
                yield f"node {name} has an issue that is not found"


def _broken_names(mesh: MeshCatalog) -> Iterator[str]:
    named = {(name, dataplane) for name, dataplanes in mesh.named.items() for dataplane in dataplanes}
    if named != {(name, dataplane) for dataplane, own in mesh.dataplanes.items() for name in own.names}:
        yield "domain names and their Dataplanes do not agree"
    if mesh.troubled != {name for name, own in mesh.dataplanes.items() if own.contribution.problems}:
        yield "Dataplanes with problems are not the ones that are listed"

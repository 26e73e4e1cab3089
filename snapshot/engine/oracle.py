"""The oracle: everything that every proxy should have, built from nothing, slowly and obviously.

Never here: anything remembered from an earlier build. The incremental engine must always agree with this.
"""

from __future__ import annotations

from collections.abc import Mapping

from snapshot.cache import type_url
from snapshot.cache.memo import Memo
from snapshot.cache.resource import XdsResource
from snapshot.engine.world import World
from snapshot.model.meta import ProxyKey, Resource, ResourceKey
from snapshot.pipeline import build, build_endpoints
from snapshot.topology.mesh_context import MeshContext, Names
from snapshot.topology.outbounds import MeshPolicies, routed_proxy

Resources = Mapping[str, Mapping[str, XdsResource]]
"""By type URL and name; a type without resources is absent."""


def build_all(world: World) -> Mapping[ProxyKey, Resources]:
    """What each joined proxy should have.

    A proxy is absent as long as it cannot be built: no Mesh, no Dataplane, or an address that was never resolved.
    """
    return {key: built for key in world.nodes if (built := build_one(world, key)) is not None}


def build_one(world: World, key: ProxyKey) -> Resources | None:
    """What the joined proxy `key` should have; None as long as it cannot be built."""
    if ResourceKey("Mesh", "", key.mesh) not in world.resources:
        return None
    context = mesh_context(world, key.mesh)
    own = world.resources.get(ResourceKey("Dataplane", key.mesh, key.name))
    if own is None or (address := context.contributions[key.name].address) is None:
        return None
    policies = MeshPolicies.of(policies_by_type(world, key.mesh))
    proxy = routed_proxy(key, own.spec, address, world.nodes[key], policies)
    built = build(proxy, context, world.settings, Memo())
    endpoints = {name: build_endpoints(name, context.endpoints(selector)) for name, selector in built.endpoints.items()}
    resources = {**built.snapshot.resources, type_url.ENDPOINT: endpoints}
    return {url: dict(named) for url, named in resources.items() if named}


def mesh_context(world: World, mesh: str) -> MeshContext:
    """What the mesh offers now."""
    dataplanes = {
        key.name: resource.spec
        for key, resource in world.resources.items()
        if key.type == "Dataplane" and key.mesh == mesh
    }
    unreachable = frozenset(proxy.name for proxy in world.unreachable if proxy.mesh == mesh)
    return MeshContext(dataplanes, Names(world.names, world.failed_names), unreachable)


def policies_by_type(world: World, mesh: str) -> Mapping[str, list[Resource]]:
    """The resources of the mesh by the name of their type."""
    found: dict[str, list[Resource]] = {}
    for key, resource in world.resources.items():
        if key.mesh == mesh:
            found.setdefault(key.type, []).append(resource)
    return found

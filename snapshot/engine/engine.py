"""Engine: the newest state of every connected proxy, kept by work in proportion to what changed (laws L1–L7).

A batch of changes is folded into the world first; then what they touch is looked at once, in this order: what
Dataplanes contribute, the facts that this changed, policies, proxies, shared endpoints.
Never here: the rules of any of these (`snapshot.topology`, `snapshot.pipeline`), IO, time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import assert_never

from snapshot.cache import type_url
from snapshot.cache.snapshot import NodeState
from snapshot.engine.batch import Batch
from snapshot.engine.builder import Builder, withdraw
from snapshot.engine.catalog import MeshCatalog, Service
from snapshot.engine.invariants import check
from snapshot.engine.node import Node
from snapshot.engine.world import (
    Change,
    Issue,
    NameFailed,
    NameResolved,
    NodeJoined,
    NodeLeft,
    Publication,
    ReachabilityChanged,
    ResourceGone,
    ResourcePut,
    Work,
    World,
)
from snapshot.model.dataplane import Dataplane
from snapshot.model.meta import ProxyKey, Resource, ResourceKey
from snapshot.topology.mesh_context import Names, selected
from snapshot.topology.outbounds import ENVOY_REQUEST_TIMEOUT, OUTBOUND_POLICIES
from snapshot.topology.proxy import NodeInfo, Settings


class Engine:
    """Takes changes, keeps what every joined proxy should have, and says who has news."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.world = World(settings=settings or Settings())
        self._names = Names(self.world.names, self.world.failed_names)
        self._builder = Builder(self.world.settings)
        self._meshes: dict[str, MeshCatalog] = {}

    def apply(self, changes: Sequence[Change]) -> Publication:
        """Fold `changes` into the world in their order, and bring everything they touch up to date, each once.

        Never raises for what an object says: an object that cannot be used is skipped and reported (`issues`), a proxy
        whose build fails keeps its last good state and is tried again at the next change that concerns it (XP-113).
        """
        batch = Batch()
        made_before = self._builder.made
        for change in changes:
            self._fold(change, batch)
        self._refresh_contributions(batch)
        self._select_nodes(batch)
        for node in batch.nodes:
            self._builder.refresh_node(self._meshes[node.key.mesh], node, batch)
        rebuilt = self._builder.rebuild_endpoints(batch)
        self._forget_unused(batch)
        work = Work(
            proxies_routed=batch.proxies_routed,
            proxies_built=batch.proxies_built,
            resources_built=self._builder.made - made_before,
            endpoints_built=batch.endpoints_built,
            facts_read=batch.facts_read,
        )
        return Publication(batch.changes(rebuilt), work, tuple(batch.failures))

    # Folding: the world and the marks

    def _fold(self, change: Change, batch: Batch) -> None:
        match change:
            case ResourcePut(resource):
                self.world.resources[resource.key] = resource
                self._fold_resource(resource.key, resource, batch)
            case ResourceGone(key):
                if self.world.resources.pop(key, None) is not None:
                    self._fold_resource(key, None, batch)
            case NameResolved(name, address):
                self._fold_name(name, address, None, batch)
            case NameFailed(name, reason):
                self._fold_name(name, self.world.names.get(name), reason, batch)
            case ReachabilityChanged(proxy, reachable):
                (self.world.unreachable.discard if reachable else self.world.unreachable.add)(proxy)
                batch.dataplanes[proxy] = None
            case NodeJoined(proxy, info):
                self._join(proxy, info, batch)
            case NodeLeft(proxy):
                self._leave(proxy, batch)
            case _:
                assert_never(change)

    def _fold_resource(self, key: ResourceKey, resource: Resource | None, batch: Batch) -> None:
        if key.type == "Mesh":
            self._fold_mesh(key.name, resource is not None, batch)
        elif key.type == "Dataplane":
            self._fold_dataplane(key, resource, batch)
        elif key.type in OUTBOUND_POLICIES:
            versions = self._mesh(key.mesh, batch).put_policy(key, resource)
            batch.policies.setdefault(key.mesh, []).extend(versions)

    def _fold_mesh(self, name: str, exists: bool, batch: Batch) -> None:
        mesh = self._mesh(name, batch)
        if mesh.exists != exists:
            mesh.exists = exists
            batch.nodes.update(dict.fromkeys(mesh.nodes.values()))

    def _fold_dataplane(self, key: ResourceKey, resource: Resource | None, batch: Batch) -> None:
        mesh = self._mesh(key.mesh, batch)
        mesh.rejected.pop(key, None)
        spec = resource.spec if resource else None
        if spec is not None and not isinstance(spec, Dataplane):
            mesh.rejected[key] = "skipped: its content is no Dataplane"
            spec = None
        if mesh.put_dataplane(key.name, spec):
            proxy = ProxyKey(key.mesh, key.name)
            batch.dataplanes[proxy] = None
            if (node := mesh.nodes.get(key.name)) is not None:
                batch.nodes[node] = None

    def _fold_name(self, name: str, address: str | None, failure: str | None, batch: Batch) -> None:
        world = self.world
        if address is not None:
            world.names[name] = address
        if failure is None:
            world.failed_names.pop(name, None)
        else:
            world.failed_names[name] = failure
        for mesh in self._meshes.values():
            for dataplane in mesh.named.get(name, ()):
                batch.dataplanes[ProxyKey(mesh.name, dataplane)] = None

    def _join(self, proxy: ProxyKey, info: NodeInfo, batch: Batch) -> None:
        self.world.nodes[proxy] = info
        mesh = self._mesh(proxy.mesh, batch)
        node = mesh.nodes.get(proxy.name)
        if node is None:
            node = mesh.nodes[proxy.name] = Node(proxy, info)
        elif node.info == info:
            return
        node.info = info
        batch.nodes[node] = None

    def _leave(self, proxy: ProxyKey, batch: Batch) -> None:
        self.world.nodes.pop(proxy, None)
        mesh = self._mesh(proxy.mesh, batch)
        if (node := mesh.nodes.pop(proxy.name, None)) is not None:
            withdraw(mesh, node)
            batch.nodes.pop(node, None)

    def _mesh(self, name: str, batch: Batch) -> MeshCatalog:
        batch.meshes[name] = None
        known = self._meshes.get(name)
        if known is None:
            known = self._meshes[name] = MeshCatalog(name)
        return known

    # Looking again at what is marked

    def _refresh_contributions(self, batch: Batch) -> None:
        touched: dict[Service, MeshCatalog] = {}
        for proxy in batch.dataplanes:
            if (mesh := self._meshes.get(proxy.mesh)) is None:
                continue
            reachable = proxy not in self.world.unreachable
            refreshed = mesh.refresh_dataplane(proxy.name, self._names, reachable=reachable)
            touched.update(dict.fromkeys(refreshed.services, mesh))
            batch.stale.update(refreshed.stale)
            if refreshed.address and (node := mesh.nodes.get(proxy.name)) is not None:
                batch.nodes[node] = None
        for service, mesh in touched.items():
            if service.refresh_protocol():
                for reader in service.readers:
                    reader.proxy = None  # equal input is no reason to skip this build: a fact changed
                    batch.nodes[reader] = None
            mesh.forget_unused(service.name)

    def _select_nodes(self, batch: Batch) -> None:
        """Mark the nodes that the old or the new version of a policy can concern; equal input ends it there."""
        for name, versions in batch.policies.items():
            index = self._meshes[name].index
            for policy in versions:
                batch.nodes.update(dict.fromkeys(index.selected(policy.spec.sources)))
                if _concerns_servers(policy):
                    batch.nodes.update(dict.fromkeys(index.selected(policy.spec.destinations)))

    def _forget_unused(self, batch: Batch) -> None:
        for name in batch.meshes:
            if (mesh := self._meshes.get(name)) is not None and mesh.unused:
                del self._meshes[name]

    # Reading

    def state(self, proxy: ProxyKey) -> NodeState | None:
        """The state of a joined proxy, one live object as long as it is joined; None as long as it cannot be built.

        Unknown is never empty: a proxy whose Dataplane or Mesh is gone has no state, not an empty one (XP-15).
        """
        node = self._node(proxy)
        return node if node is not None and node.ready else None

    def _node(self, proxy: ProxyKey) -> Node | None:
        mesh = self._meshes.get(proxy.mesh)
        return mesh.nodes.get(proxy.name) if mesh else None

    def issues(self) -> tuple[Issue, ...]:
        """Everything that has no effect, and why, sorted by object."""
        found = chain.from_iterable(self._issues(mesh) for mesh in self._meshes.values())
        return tuple(sorted({*found, *self._builder.endpoint_issues}, key=_issue_order))

    def issues_of(self, key: ResourceKey) -> tuple[Issue, ...]:
        """What of this object has no effect, and why: of the object itself first, then for each proxy."""
        mesh = self._meshes.get(key.name if key.type == "Mesh" else key.mesh)
        if mesh is None:
            return ()
        found = [*_own_issues(mesh, key)]
        for node in mesh.complaints.get(key, ()):
            found += [issue for issue in node.issues if issue.object == key]
        if key.type == "Mesh":
            found += [issue for issue in self._builder.endpoint_issues if issue.object == key]
        return tuple(sorted(set(found), key=_issue_order))

    @staticmethod
    def _issues(mesh: MeshCatalog) -> Iterator[Issue]:
        for name in mesh.troubled:
            yield from _own_issues(mesh, ResourceKey("Dataplane", mesh.name, name))
        for key in mesh.rejected:
            yield from _own_issues(mesh, key)
        for complaining in mesh.complaints.values():
            for node in complaining:
                yield from node.issues

    def provenance(self, proxy: ProxyKey, url: str, name: str) -> tuple[ResourceKey, ...]:
        """The objects that made this resource of this proxy, () where the proxy has no such resource.

        For a ClusterLoadAssignment these are the Dataplanes whose inbounds are its endpoints.
        """
        node = self._node(proxy)
        if node is None or not node.ready or node.built is None:
            return ()
        if url != type_url.ENDPOINT:
            return node.built.provenance.get((url, name), ())
        if (shared := node.endpoints.get(name)) is None:
            return ()
        members = self._meshes[proxy.mesh].service(shared.selector.service).members
        owners = (owner for owner, endpoints in members.items() if selected(shared.selector, endpoints))
        return tuple(ResourceKey("Dataplane", proxy.mesh, owner) for owner in sorted(owners))

    def reach(self, key: ResourceKey) -> frozenset[ProxyKey]:
        """The joined proxies whose state this object has a part in.

        A Mesh reaches all its proxies; a Dataplane its own proxy, those that have its endpoints and those whose build
        asked what its services speak; any other object the proxies that have a resource made by it.
        """
        mesh = self._meshes.get(key.name if key.type == "Mesh" else key.mesh)
        if mesh is None:
            return frozenset()
        ready = [node for node in mesh.nodes.values() if node.ready]
        if key.type == "Mesh":
            return frozenset(node.key for node in ready)
        if key.type == "Dataplane":
            return frozenset(node.key for node in mesh.reached_by(key.name) if node.ready)
        return frozenset(node.key for node in ready if node.built and key in node.built.provenance.objects())

    def check_invariants(self) -> None:
        """Raise InvariantBrokenError where the bookkeeping is wrong; slow, for tests."""
        check(self.world, self._meshes)


def _concerns_servers(policy: Resource) -> bool:
    """Whether the policy also decides the proxies that it leads to (`MeshPolicies.long_request`)."""
    conf = policy.spec.conf if policy.key.type == "Timeout" else None
    http = conf.http if conf else None
    return http is not None and (http.request_timeout or 0) > ENVOY_REQUEST_TIMEOUT


def _own_issues(mesh: MeshCatalog, key: ResourceKey) -> Iterator[Issue]:
    if key in mesh.rejected:
        yield Issue(key, mesh.rejected[key])
    if key.type == "Dataplane" and (own := mesh.dataplanes.get(key.name)) is not None:
        yield from (Issue(key, problem) for problem in own.contribution.problems)


def _issue_order(issue: Issue) -> tuple[ResourceKey, tuple[str, ...], str]:
    return issue.object, issue.proxy or (), issue.reason

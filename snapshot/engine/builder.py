"""Builder: brings one node, or one shared ClusterLoadAssignment, up to date, and keeps the dependencies of both.

Never here: which of them must be (`engine.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from snapshot.cache import type_url
from snapshot.cache.memo import Memo
from snapshot.cache.resource import XdsResource
from snapshot.engine.batch import Batch
from snapshot.engine.catalog import MeshCatalog, Service
from snapshot.engine.dependencies import RecordedFacts
from snapshot.engine.node import NO_NAMES, Node, SharedEndpoints, all_names, changed_names, merged
from snapshot.engine.world import Failure, Issue
from snapshot.model.dataplane import Dataplane
from snapshot.model.meta import ResourceKey
from snapshot.pipeline import Built, build, build_endpoints
from snapshot.topology.outbounds import routed_proxy
from snapshot.topology.proxy import EndpointSelector, Proxy, Settings


class Builder:
    """Builds with one set of settings and one memo."""

    __slots__ = ("_endpoint_issues", "_memo", "_settings")

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._memo: Final = Memo()
        self._endpoint_issues: dict[SharedEndpoints, Issue] = {}

    @property
    def made(self) -> int:
        """How many builders ran so far because no equal input was remembered."""
        return self._memo.made

    @property
    def endpoint_issues(self) -> tuple[Issue, ...]:
        """Why assignments in use are not the newest."""
        self._endpoint_issues = {shared: issue for shared, issue in self._endpoint_issues.items() if shared.users}
        return tuple(self._endpoint_issues.values())

    def refresh_node(self, mesh: MeshCatalog, node: Node, batch: Batch) -> None:
        """Build `node` if what decides it changed; withdraw it where it cannot be built for now.

        A build that raises leaves the state as it was, and is tried again at the next change that concerns it (XP-113).
        """
        own = mesh.dataplanes.get(node.key.name)
        if own is None or own.spec is None or own.contribution.address is None:
            withdraw(mesh, node)
        elif not mesh.exists:
            withdraw(mesh, node)
            reason = f'mesh "{mesh.name}" does not exist; this proxy gets no configuration'
            mesh.report(node, (_issue(node, reason),))
        else:
            mesh.index.place(node, own.spec.tag_sets)
            self._build(mesh, node, own.spec, own.contribution.address, batch)

    def _build(self, mesh: MeshCatalog, node: Node, spec: Dataplane, address: str, batch: Batch) -> None:
        facts = RecordedFacts(mesh.services)
        try:
            batch.proxies_routed += 1
            proxy = routed_proxy(node.key, spec, address, node.info, mesh.policies)
            if node.proxy == proxy:
                return
            batch.proxies_built += 1
            built = build(proxy, facts, self._settings, self._memo)
            for resources in built.snapshot.resources.values():
                self._check_sizes(resources.values())
        except Exception as error:  # noqa: BLE001 - one proxy's failure must not stop the others; it is reported
            reason = f"cannot be built, what it had stays in force: {type(error).__name__}: {error}"
            node.proxy = None
            issue = _issue(node, reason)
            mesh.report(node, (issue,))
            batch.failures.append(Failure(issue, error))
            _read(mesh, node, node.facts | facts.services)
        else:
            _read(mesh, node, frozenset(facts.services))
            self._accept(mesh, node, proxy, built, batch)
        batch.facts_read += len(facts.services)

    def _accept(self, mesh: MeshCatalog, node: Node, proxy: Proxy, built: Built, batch: Batch) -> None:
        mesh.report(node, tuple(Issue(issue.object, issue.reason, node.key) for issue in built.issues))
        node.proxy = proxy
        before = node.built
        if before is None or not node.ready:
            names = all_names(node)
            node.built, node.endpoints, node.ready = built, _acquire(mesh, node, built.endpoints, batch), True
            batch.tell(node, merged(names, all_names(node)))
        elif before.parts != built.parts:
            names = changed_names(before, built)
            node.built = built
            if before.endpoints != built.endpoints:
                used, node.endpoints = node.endpoints, _acquire(mesh, node, built.endpoints, batch)
                names[type_url.ENDPOINT] = frozenset(name for name, _ in used.items() ^ node.endpoints.items())
                _release(mesh, node, used, node.endpoints)
            batch.tell(node, names)

    def rebuild_endpoints(self, batch: Batch) -> list[SharedEndpoints]:
        """Make the fresh and the stale assignments that are in use; returns those that their users must be told of."""
        for shared, service in batch.fresh.items():
            if shared.users:
                self._rebuild(shared, service, batch)
        stale = [(s, service) for s, service in batch.stale.items() if s.users and s not in batch.fresh]
        return [shared for shared, service in stale if self._rebuild(shared, service, batch)]

    def _rebuild(self, shared: SharedEndpoints, service: Service, batch: Batch) -> bool:
        batch.endpoints_built += 1
        try:
            made = build_endpoints(shared.name, service.endpoints(shared.selector))
            self._check_sizes((made,))
        except Exception as error:  # noqa: BLE001 - one assignment's failure must not stop the others; it is reported
            reason = f"the endpoints of {shared.name} stay as they were: {type(error).__name__}: {error}"
            issue = self._endpoint_issues[shared] = Issue(ResourceKey("Mesh", "", shared.mesh), reason)
            batch.failures.append(Failure(issue, error))
            return False
        self._endpoint_issues.pop(shared, None)
        if made == shared.resource:
            return False
        shared.resource = made
        return True

    def _check_sizes(self, resources: Iterable[XdsResource]) -> None:
        """A resource that no proxy should be made to take is refused before anybody gets it (XP-133)."""
        limit = self._settings.resource_bytes
        for resource in resources:
            if len(resource.body) > limit:
                kind = resource.type_url.rpartition(".")[2]
                raise ValueError(
                    f"{kind} {resource.name} has {len(resource.body)} bytes, at most {limit} are allowed "
                    "(xdsServer.limits.resourceSize)"
                )


def withdraw(mesh: MeshCatalog, node: Node) -> None:
    """Take the node's state out of force and forget what it depends on; what it read last stays readable to it."""
    mesh.index.remove(node)
    _read(mesh, node, NO_NAMES)
    if node.ready:
        _release(mesh, node, node.endpoints, {})
    node.ready = False
    node.proxy = None
    mesh.report(node, ())


def _issue(node: Node, reason: str) -> Issue:
    return Issue(ResourceKey("Dataplane", node.key.mesh, node.key.name), reason, node.key)


def _read(mesh: MeshCatalog, node: Node, services: frozenset[str]) -> None:
    """The node depends on the facts about `services` from now on."""
    if services == node.facts:
        return
    for name in services - node.facts:
        mesh.service(name).readers.add(node)
    for name in node.facts - services:
        mesh.services[name].readers.discard(node)
        mesh.forget_unused(name)
    node.facts = services


def _acquire(
    mesh: MeshCatalog, node: Node, wanted: Mapping[str, EndpointSelector], batch: Batch
) -> dict[str, SharedEndpoints]:
    return {name: _shared(mesh, name, selector, node, batch) for name, selector in wanted.items()}


def _shared(mesh: MeshCatalog, name: str, selector: EndpointSelector, node: Node, batch: Batch) -> SharedEndpoints:
    service = mesh.service(selector.service)
    shared = service.shared.get((name, selector))
    if shared is None:
        shared = service.shared[name, selector] = SharedEndpoints(mesh.name, name, selector)
        batch.fresh[shared] = service
    shared.users.add(node)
    return shared


def _release(
    mesh: MeshCatalog, node: Node, used: Mapping[str, SharedEndpoints], kept: Mapping[str, SharedEndpoints]
) -> None:
    for name, shared in used.items():
        if kept.get(name) is shared:
            continue
        shared.users.discard(node)
        if not shared.users:
            mesh.services[shared.selector.service].shared.pop((name, shared.selector), None)
            mesh.forget_unused(shared.selector.service)

"""All of one proxy: generators, then policies, then serialisation. Read this file first.

Never here: endpoints of services (they belong to the mesh, L2), or what changed since the last build.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from snapshot.cache.memo import Memo
from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import Snapshot
from snapshot.model.meta import ResourceKey
from snapshot.topology.proxy import BuildIssue, Endpoint, EndpointSelector, Facts, Proxy, Settings


@dataclass(frozen=True, slots=True)
class Built:
    """Everything one proxy should have.

    `endpoints` says what each ClusterLoadAssignment named in `snapshot.endpoint_names` holds; `provenance` which
    objects made each resource, by (type URL, name).
    """

    snapshot: Snapshot
    endpoints: Mapping[str, EndpointSelector]
    issues: tuple[BuildIssue, ...]
    provenance: Mapping[tuple[str, str], tuple[ResourceKey, ...]]


def build(proxy: Proxy, facts: Facts, settings: Settings, memo: Memo) -> Built:
    """Translate `proxy`. A part that cannot be built is left out and reported in `Built.issues`; the rest stands."""
    raise NotImplementedError


def build_endpoints(name: str, endpoints: Iterable[Endpoint]) -> XdsResource:
    """The ClusterLoadAssignment `name` with these endpoints, in any order; empty without any (X §4.3)."""
    raise NotImplementedError

"""What the engine is told (changes), what it knows (World) and what it answers (Publication)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from snapshot.cache.snapshot import Changes
from snapshot.model.meta import ProxyKey, Resource, ResourceKey
from snapshot.topology.proxy import NodeInfo, Settings


@dataclass(frozen=True, slots=True)
class ResourcePut:
    """A resource was created or replaced."""

    resource: Resource


@dataclass(frozen=True, slots=True)
class ResourceGone:
    """A resource was deleted."""

    key: ResourceKey


@dataclass(frozen=True, slots=True)
class NameResolved:
    """A domain name has this address from now on. A name that stops resolving keeps its last answer."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class NameFailed:
    """The last attempt to resolve the name failed; what it had (if anything) stays in force and this is reported."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReachabilityChanged:
    """A proxy whose stream died of silence is unreachable: its endpoints go, its Dataplane stays (architecture §7)."""

    proxy: ProxyKey
    reachable: bool


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """An Envoy with this identity is connected and wants to be configured. Also sent when its NodeInfo changes."""

    proxy: ProxyKey
    node: NodeInfo


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """No Envoy with this identity is connected any more; its build can be forgotten."""

    proxy: ProxyKey


Change = ResourcePut | ResourceGone | NameResolved | NameFailed | ReachabilityChanged | NodeJoined | NodeLeft


@dataclass(slots=True)
class World:
    """Everything that decides what every proxy gets. Only proxies in `nodes` are built."""

    settings: Settings = field(default_factory=Settings)
    resources: dict[ResourceKey, Resource] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    failed_names: dict[str, str] = field(default_factory=dict)
    unreachable: set[ProxyKey] = field(default_factory=set)
    nodes: dict[ProxyKey, NodeInfo] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Issue:
    """Why an object, or a part of it, has no effect. `proxy` is set where it concerns the build of one proxy only."""

    object: ResourceKey
    reason: str
    proxy: ProxyKey | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a batch of changes cost, counted: the benchmarks and the laws' tests assert these.

    `proxies_routed` were matched with their policies, of which `proxies_built` were translated; `resources_built` are
    the builders that ran because no equal input was remembered; `endpoints_built` the ClusterLoadAssignments made;
    `facts_read` the distinct answers that builds asked for.
    """

    proxies_routed: int = 0
    proxies_built: int = 0
    resources_built: int = 0
    endpoints_built: int = 0
    facts_read: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A build that raised: what `issue` says to users, and the exception for the log (XP-113)."""

    issue: Issue
    error: Exception


@dataclass(frozen=True, slots=True)
class Publication:
    """What a batch of changes made different: only proxies with news are in `changes` (L4)."""

    changes: Mapping[ProxyKey, Changes]
    work: Work = field(default_factory=Work)
    failures: tuple[Failure, ...] = ()

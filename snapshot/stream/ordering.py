"""Make before break: what waits for what between the types of one stream (P §10, §11). Pure questions, no state."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import NodeState
from snapshot.cache.type_url import CLUSTER
from snapshot.stream.limits import REMOVAL_WAIT_S
from snapshot.stream.watch import Leaving, Watch

NOW: Final = -math.inf
NEVER: Final = math.inf


def changed_clusters(clusters: Watch, state: NodeState) -> Iterator[XdsResource]:
    """Clusters that were added or changed and are not sent yet; the cost is that of the marks."""
    for name in clusters.candidates(state) if clusters.everything else clusters.dirty:
        resource, held = clusters.find(state, name), clusters.held.get(name)
        if resource is not None and (held is None or held.version != resource.version):
            yield resource


def adds_cluster(clusters: Watch, state: NodeState) -> bool:
    """Whether a cluster that the client does not have is still to be sent: new routes may lead to it (XP-93)."""
    return any(resource.name not in clusters.held for resource in changed_clusters(clusters, state))


def endpoints_due_later(clusters: Watch, state: NodeState) -> frozenset[str]:
    """Endpoints of changed clusters, which count only after their cluster (XP-85)."""
    return frozenset(resource.eds_service_name for resource in changed_clusters(clusters, state)) - {""}


def kept_endpoints(clusters: Watch | None) -> frozenset[str]:
    """Names of the endpoints of clusters that are gone and that the client still has to keep (XP-94)."""
    if clusters is None or not clusters.leaving:
        return frozenset()
    return frozenset(clusters.held[name].eds_service_name for name in clusters.leaving) - {""}


def release_at_s(type_url: str, leaving: Leaving, routing: tuple[Watch, ...], *, alone: bool) -> float:
    """When a removal may leave: after the new routes are acknowledged, or 5 s; never while they are refused (XP-95).

    `routing` are the listener and route watches of the stream; `alone` says that it serves one type only, so that
    nothing is known of the routes.
    """
    if alone:
        return leaving.since_s + REMOVAL_WAIT_S if type_url == CLUSTER else NOW
    return max((_settled_at_s(watch, leaving) for watch in routing), default=NOW)


def _settled_at_s(watch: Watch, leaving: Leaving) -> float:
    if watch.acked_epoch >= leaving.epoch:
        return NOW
    if watch.refused:
        return NEVER
    waiting = watch.unanswered()
    if waiting is not None:
        return max(waiting.sent_at_s, leaving.since_s if watch.marked else NOW) + REMOVAL_WAIT_S
    return leaving.since_s + REMOVAL_WAIT_S if watch.marked else NOW

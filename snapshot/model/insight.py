"""DataplaneInsight: what the control plane knows of a proxy's streams (R §9.1). Written by it alone."""

from __future__ import annotations

from datetime import datetime

from snapshot.model.meta import Spec, UInt64
from snapshot.model.tags import NO_TAGS, Tags


class DiscoveryServiceStats(Spec, frozen=True, kw_only=True):
    """Counters of one type."""

    responses_sent: UInt64 = 0
    responses_acknowledged: UInt64 = 0
    responses_rejected: UInt64 = 0


class DiscoveryStatus(Spec, frozen=True, kw_only=True):
    """Counters of one stream."""

    last_update_time: datetime | None = None
    total: DiscoveryServiceStats | None = None
    cds: DiscoveryServiceStats | None = None
    eds: DiscoveryServiceStats | None = None
    lds: DiscoveryServiceStats | None = None
    rds: DiscoveryServiceStats | None = None


class KumaDpVersion(Spec, frozen=True, kw_only=True):
    """Build of the kuma-dp that started the proxy."""

    version: str = ""
    git_tag: str = ""
    git_commit: str = ""
    build_date: str = ""


class EnvoyVersion(Spec, frozen=True, kw_only=True):
    """Build of the Envoy."""

    version: str = ""
    build: str = ""


class Version(Spec, frozen=True, kw_only=True):
    """What runs beside the service."""

    kuma_dp: KumaDpVersion | None = None
    envoy: EnvoyVersion | None = None
    dependencies: Tags = NO_TAGS


class DiscoverySubscription(Spec, frozen=True, kw_only=True):
    """One ADS stream of the proxy; `disconnect_time` is absent while it is open."""

    id: str = ""
    control_plane_instance_id: str = ""
    connect_time: datetime | None = None
    disconnect_time: datetime | None = None
    status: DiscoveryStatus | None = None
    version: Version | None = None
    generation: int = 0


class DataplaneInsight(Spec, frozen=True, kw_only=True):
    """The spec of a DataplaneInsight resource; the newest subscription is the last."""

    subscriptions: tuple[DiscoverySubscription, ...] = ()

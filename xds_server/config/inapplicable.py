"""Kuma's keys that cannot have an effect here: accepted, shown in `/config`, warned about once each when set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from xds_server.config.tree import Grant, Seconds

_POLLING: Final = "changes are pushed, nothing polls"
_NO_CACHE: Final = "there is no such cache: the read model is always current"
_POSTGRES: Final = "store.type postgres is not supported by this version"
_MULTIZONE: Final = "only mode standalone is supported by this version"
_DNS: Final = "the control plane runs no DNS server in this version"
_MADS: Final = "monitoring assignments are not supported by this version"

INAPPLICABLE: Final[Mapping[str, tuple[Any, str]]] = {
    "store.kubernetes.systemNamespace": ("kuma-system", "only environment universal is supported by this version"),
    "store.postgres.host": ("127.0.0.1", _POSTGRES),
    "store.postgres.port": (15432, _POSTGRES),
    "store.postgres.user": ("kuma", _POSTGRES),
    "store.postgres.password": ("kuma", _POSTGRES),
    "store.postgres.dbName": ("kuma", _POSTGRES),
    "store.postgres.connectionTimeout": (5, _POSTGRES),
    "store.postgres.maxOpenConnections": (50, _POSTGRES),
    "store.postgres.maxIdleConnections": (50, _POSTGRES),
    "store.postgres.minReconnectInterval": (Seconds(10.0), _POSTGRES),
    "store.postgres.maxReconnectInterval": (Seconds(60.0), _POSTGRES),
    "store.postgres.tls.mode": ("disable", _POSTGRES),
    "store.postgres.tls.certPath": ("", _POSTGRES),
    "store.postgres.tls.keyPath": ("", _POSTGRES),
    "store.postgres.tls.caPath": ("", _POSTGRES),
    "store.cache.enabled": (True, _NO_CACHE),
    "store.cache.expirationTime": (Seconds(1.0), _NO_CACHE),
    "store.upsert.conflictRetryBaseBackoff": (Seconds(0.1), "conflicting writes are repeated at once"),
    "store.upsert.conflictRetryMaxTimes": (5, "conflicting writes are repeated at once"),
    "xdsServer.dataplaneConfigurationRefreshInterval": (Seconds(1.0), _POLLING),
    "xdsServer.dataplaneStatusFlushInterval": (Seconds(10.0), "insights are written in batches when they change"),
    "xdsServer.nackBackoff": (Seconds(5.0), "after a rejection only a different configuration is sent"),
    "monitoringAssignmentServer.port": (5676, _MADS),
    "monitoringAssignmentServer.apiVersions": (("v1",), _MADS),
    "monitoringAssignmentServer.assignmentRefreshInterval": (Seconds(1.0), _MADS),
    "monitoringAssignmentServer.defaultFetchTimeout": (Seconds(30.0), _MADS),
    "metrics.dataplane.idleTimeout": (Seconds(300.0), "subscriptions end with their stream"),
    "metrics.zone.subscriptionLimit": (10, _MULTIZONE),
    "metrics.zone.idleTimeout": (Seconds(300.0), _MULTIZONE),
    "metrics.mesh.minResyncTimeout": (Seconds(1.0), _POLLING),
    "metrics.mesh.maxResyncTimeout": (Seconds(20.0), _POLLING),
    "reports.enabled": (False, "nothing is ever reported to anybody"),
    "guiServer.apiServerUrl": ("", "there is no GUI in this version"),
    "dnsServer.domain": ("mesh", _DNS),
    "dnsServer.port": (5653, _DNS),
    "dnsServer.CIDR": ("240.0.0.0/4", _DNS),
    "dnsServer.serviceVipEnabled": (True, _DNS),
    "multizone.global.kds.grpcPort": (5685, _MULTIZONE),
    "multizone.global.kds.refreshInterval": (Seconds(1.0), _MULTIZONE),
    "multizone.global.kds.zoneInsightFlushInterval": (Seconds(10.0), _MULTIZONE),
    "multizone.global.kds.tlsCertFile": ("", _MULTIZONE),
    "multizone.global.kds.tlsKeyFile": ("", _MULTIZONE),
    "multizone.global.kds.maxMsgSize": (10485760, _MULTIZONE),
    "multizone.zone.globalAddress": ("", _MULTIZONE),
    "multizone.zone.kds.refreshInterval": (Seconds(1.0), _MULTIZONE),
    "multizone.zone.kds.rootCaFile": ("", _MULTIZONE),
    "multizone.zone.kds.maxMsgSize": (10485760, _MULTIZONE),
    "diagnostics.debugEndpoints": (False, "there are no profiling endpoints"),
    "dpServer.hds.refreshInterval": (Seconds(10.0), _POLLING),
    "access.static.generateZoneToken.users": (Grant().users, _MULTIZONE),
    "access.static.generateZoneToken.groups": (Grant().groups, _MULTIZONE),
    "experimental.meshGateway": (False, "MeshGateway is not supported by this version"),
    "apiServer.auth.clientCertsDir": ("", "client certificates are not supported by this version"),
}

IRREGULAR: Final[Mapping[str, tuple[str, ...]]] = {
    "monitoringAssignmentServer.port": (
        "KUMA_MONITORING_ASSIGNMENT_SERVER_PORT",
        "KUMA_MONITORING_ASSIGNMENT_SERVER_GRPC_PORT",
    ),
    "experimental.meshGateway": ("KUMA_EXPERIMENTAL_MESHGATEWAY",),
}
"""Environment variables of those that are not the path in capitals."""

REFUSED: Final = frozenset({"experimental.meshGateway", "apiServer.auth.clientCertsDir"})
"""Those where silence would leave somebody believing in a protection or a feature that is not there."""

SECRETS: Final = frozenset({"store.postgres.password"})
"""Shown as `*****`."""

IGNORED_PREFIXES: Final = ("runtime.kubernetes.",)
"""Whole branches of Kuma that only exist elsewhere."""

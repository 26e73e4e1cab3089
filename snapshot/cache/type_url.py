"""The type URLs of xDS v3 that this server serves."""

from __future__ import annotations

from typing import Final

_PREFIX: Final = "type.googleapis.com/"

CLUSTER: Final = _PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINT: Final = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = _PREFIX + "envoy.config.listener.v3.Listener"
ROUTE: Final = _PREFIX + "envoy.config.route.v3.RouteConfiguration"
SECRET: Final = _PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"

PUSH_ORDER: Final = (CLUSTER, ENDPOINT, SECRET, LISTENER, ROUTE)
"""Order of the types within a push (architecture §4, XP-93)."""

WILDCARD_TYPES: Final = frozenset({CLUSTER, LISTENER})
"""Types whose empty first subscription means all of them, and whose SotW responses are complete (XP-22, XP-68)."""

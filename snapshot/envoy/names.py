"""Names that Envoy knows its extensions by, and the form that names take in its statistics."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

HTTP_CONNECTION_MANAGER: Final = "envoy.filters.network.http_connection_manager"
TCP_PROXY: Final = "envoy.filters.network.tcp_proxy"
KAFKA_BROKER: Final = "envoy.filters.network.kafka_broker"
ROUTER: Final = "envoy.filters.http.router"
GRPC_STATS: Final = "envoy.filters.http.grpc_stats"
TLS_INSPECTOR: Final = "envoy.filters.listener.tls_inspector"
TLS: Final = "envoy.transport_sockets.tls"
HTTP_PROTOCOL_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_NOT_IN_STATS: Final = re.compile(r"[^A-Za-z0-9_-]")


@lru_cache(maxsize=4096)
def stat_name(name: str) -> str:
    """`name` with every character that splits statistics replaced by `_`."""
    return _NOT_IN_STATS.sub("_", name)

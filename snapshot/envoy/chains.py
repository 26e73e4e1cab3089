"""What stands at the end of filter chains: TCP proxies and HTTP connection managers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from envoy.extensions.filters.http.grpc_stats.v3.config_pb2 import FilterConfig as GrpcStats
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from google.protobuf.wrappers_pb2 import BoolValue

from snapshot.envoy.listeners import ChainDraft
from snapshot.envoy.names import GRPC_STATS, ROUTER
from snapshot.envoy.values import packed


def tcp_chain(stat_prefix: str, clusters: Sequence[tuple[str, int]], *before: Any) -> ChainDraft:
    """Proxies bytes to `clusters`, each with its weight; `before` are network filters in front."""
    proxy = TcpProxy(stat_prefix=stat_prefix)
    if len(clusters) == 1:
        proxy.cluster = clusters[0][0]
    else:
        proxy.weighted_clusters.clusters.extend(
            TcpProxy.WeightedCluster.ClusterWeight(name=name, weight=weight) for name, weight in clusters
        )
    return ChainDraft(proxy, list(before))


def http_chain(stat_prefix: str, route_config: Any, *, grpc: bool = False) -> ChainDraft:
    """Proxies HTTP of any version by `route_config`; `grpc` counts calls by method."""
    return ChainDraft(
        HttpConnectionManager(stat_prefix=stat_prefix, route_config=route_config, http_filters=_http_filters(grpc=grpc))
    )


@cache
def _http_filters(*, grpc: bool) -> tuple[Any, ...]:
    """The filters of every manager; messages copy them."""
    router = HttpFilter(name=ROUTER, typed_config=packed(Router()))
    if not grpc:
        return (router,)
    stats = GrpcStats(emit_filter_state=True, stats_for_all_methods=BoolValue(value=True))
    return HttpFilter(name=GRPC_STATS, typed_config=packed(stats)), router


def forward_client_certificate(chain: ChainDraft) -> None:
    """Tell the application who called, by the URI of the client's certificate, and drop what the client claims."""
    chain.http.forward_client_cert_details = HttpConnectionManager.SANITIZE_SET
    chain.http.set_current_client_cert_details.uri = True

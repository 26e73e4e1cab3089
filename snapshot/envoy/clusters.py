"""Clusters: drafts that policies complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.config_source_pb2 import V3, AggregatedConfigSource, ConfigSource
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from snapshot.envoy.names import HTTP_PROTOCOL_OPTIONS, stat_name
from snapshot.envoy.values import duration, packed, socket_address

DEFAULT_CONNECT_TIMEOUT_NS: Final = 10_000_000_000


@dataclass(slots=True)
class ClusterDraft:
    """A Cluster whose HTTP options are not packed yet; None speaks HTTP/1.1 where HTTP is spoken."""

    cluster: Any
    http: Any = None

    def use_http2(self) -> Any:
        """Speak HTTP/2 upstream; the options, for more settings."""
        if self.http is None:
            self.http = HttpProtocolOptions()
        self.http.explicit_http_config.http2_protocol_options.SetInParent()
        return self.http

    def finish(self) -> Any:
        """The complete Cluster."""
        if self.http is not None:
            self.cluster.typed_extension_protocol_options[HTTP_PROTOCOL_OPTIONS].CopyFrom(packed(self.http))
        return self.cluster


def _named(name: str, kind: int) -> Any:
    alternative = stat_name(name)
    return Cluster(
        name=name,
        alt_stat_name=alternative if alternative != name else "",
        type=kind,
        connect_timeout=duration(DEFAULT_CONNECT_TIMEOUT_NS),
    )


def static_cluster(name: str, ip: str, port: int) -> ClusterDraft:
    """A cluster of the one endpoint `ip:port`."""
    cluster = _named(name, Cluster.STATIC)
    endpoint = LbEndpoint(endpoint=Endpoint(address=socket_address(ip, port)))
    cluster.load_assignment.CopyFrom(
        ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])])
    )
    return ClusterDraft(cluster)


def eds_cluster(name: str) -> ClusterDraft:
    """A cluster whose endpoints are the ClusterLoadAssignment `name`, from the aggregated stream."""
    cluster = _named(name, Cluster.EDS)
    source = ConfigSource(ads=AggregatedConfigSource(), resource_api_version=V3)
    cluster.eds_cluster_config.eds_config.CopyFrom(source)
    return ClusterDraft(cluster)

"""Timeout: bounds on connecting, on requests and on silence (X §3.4)."""

from __future__ import annotations

from typing import Any, Final

from snapshot.envoy.clusters import ClusterDraft
from snapshot.envoy.listeners import ListenerDraft
from snapshot.envoy.values import duration
from snapshot.model.meta import Duration
from snapshot.model.policies import GrpcTimeout, HttpTimeout, TcpTimeout, TimeoutConf
from snapshot.policies.bounds import Reader
from snapshot.topology.proxy import Protocol

_PLAIN_HTTP: Final = frozenset({Protocol.HTTP, Protocol.HTTP2})
_NONE: Final = Duration(0)
_NO_TIMEOUT: Final = TimeoutConf()


def apply_to_cluster(draft: ClusterDraft, protocol: Protocol, conf: TimeoutConf | None) -> list[str]:
    """Set the timeouts of a cluster of an outbound that proxies `protocol`; `conf` None where no policy matched.

    Clusters of HTTP always state their idle timeout, 0s for none.
    """
    reader = Reader()
    conf = conf or _NO_TIMEOUT
    connect = reader.positive("conf.connectTimeout", conf.connect_timeout, "10s is used")
    if connect is not None:
        draft.cluster.connect_timeout.CopyFrom(duration(connect))
    if protocol in _PLAIN_HTTP:
        http = conf.http or HttpTimeout()
        idle = reader.not_negative("conf.http.idleTimeout", http.idle_timeout, "there is none") or _NONE
        draft.use_http2().common_http_protocol_options.idle_timeout.CopyFrom(duration(idle))
    elif protocol is Protocol.GRPC:
        grpc = conf.grpc or GrpcTimeout()
        longest = reader.not_negative("conf.grpc.maxStreamDuration", grpc.max_stream_duration, "there is none")
        if longest:
            draft.use_http2().common_http_protocol_options.max_stream_duration.CopyFrom(duration(longest))
    return reader.reasons


def apply_to_listener(listener: ListenerDraft, protocol: Protocol, conf: TimeoutConf | None) -> list[str]:
    """Set the timeouts of the listener of an outbound; nothing where no policy matched.

    `http.requestTimeout` bounds requests of gRPC too, as in Kuma 1.5.
    """
    if conf is None:
        return []
    reader = Reader()
    for chain in listener.chains:
        if chain.tcp is not None:
            _tcp(chain.tcp, conf.tcp or TcpTimeout(), reader)
        else:
            _http(chain.http, protocol, conf, reader)
    return reader.reasons


def _tcp(proxy: Any, conf: TcpTimeout, reader: Reader) -> None:
    idle = reader.not_negative("conf.tcp.idleTimeout", conf.idle_timeout, "there is none") or _NONE
    proxy.idle_timeout.CopyFrom(duration(idle))


def _http(manager: Any, protocol: Protocol, conf: TimeoutConf, reader: Reader) -> None:
    if protocol is Protocol.GRPC:
        grpc = conf.grpc or GrpcTimeout()
        silence = reader.not_negative("conf.grpc.streamIdleTimeout", grpc.stream_idle_timeout, "there is none")
        manager.stream_idle_timeout.CopyFrom(duration(silence or _NONE))
    else:
        manager.common_http_protocol_options.idle_timeout.CopyFrom(duration(_NONE))
    http = conf.http or HttpTimeout()
    request = reader.not_negative("conf.http.requestTimeout", http.request_timeout, "Envoy's default of 15s is used")
    if request is None:
        return
    for host in manager.route_config.virtual_hosts:
        for route in host.routes:
            route.route.timeout.CopyFrom(duration(request))

"""Envoy's bootstrap as plain values in protobuf-JSON form (X §9.3, modernised by X §0.2). Pure."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

_HTTP2: Final = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicitHttpConfig": {"http2ProtocolOptions": {}},
    }
}
_KEEPALIVE: Final = {"tcpKeepalive": {"keepaliveProbes": 3, "keepaliveTime": 10, "keepaliveInterval": 10}}
_STATS_TAGS: Final = (
    ("name", r"^grpc\.((.+)\.)"),
    ("status", r"^grpc.*streams_closed(_([0-9]+))"),
    ("kafka_name", r"^kafka(\.(\S*[0-9]))\."),
    ("kafka_type", r"^kafka\..*\.(.*)"),
    ("worker", r"(worker_([0-9]+)\.)"),
    ("listener", r"((.+?)\.)rbac\."),
)
_MAX_SOCKET_PATH: Final = 100
ADS: Final = "ads_cluster"
VALIDATION: Final = "cp_validation_ctx"


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapValues:
    """All that differs between two bootstraps. `admin_port` 0: no admin. `pin` "": by CA and name."""

    mesh: str
    name: str
    cluster: str
    metadata: Mapping[str, Any]
    admin_address: str
    admin_port: int
    admin_access_log: str
    xds_host: str
    xds_port: int
    connect_timeout_s: float
    delta: bool
    hds: bool
    credential: str
    ca_pem: bytes
    pin: str
    access_log_sink: bool


def bootstrap(values: BootstrapValues) -> dict[str, Any]:
    """The bootstrap."""
    made: dict[str, Any] = {
        "node": {"id": f"{values.mesh}.{values.name}", "cluster": values.cluster, "metadata": dict(values.metadata)},
        "layeredRuntime": {
            "layers": [
                {
                    "name": "kuma",
                    "staticLayer": {
                        "re2.max_program_size.error_level": 4294967295,
                        "re2.max_program_size.warn_level": 1000,
                    },
                }
            ]
        },
        "statsConfig": {"statsTags": [{"tagName": name, "regex": regex} for name, regex in _STATS_TAGS]},
        "dynamicResources": {
            "ldsConfig": _over_ads(),
            "cdsConfig": _over_ads(),
            "adsConfig": _grpc_source(values, delta=values.delta),
        },
        "staticResources": {"clusters": [_ads_cluster(values)], "secrets": [_validation(values)]},
    }
    if values.admin_port:
        made["admin"] = _admin(values)
    if values.hds:
        made["hdsConfig"] = _grpc_source(values, delta=False)
    if values.access_log_sink:
        made["staticResources"]["clusters"].append(_access_log_sink(values))
    return made


def _over_ads() -> dict[str, Any]:
    """Without the 0 Envoy would open its listeners empty after 15 s; so it waits for its first configuration."""
    return {"ads": {}, "resourceApiVersion": "V3", "initialFetchTimeout": "0s"}


def _grpc_source(values: BootstrapValues, *, delta: bool) -> dict[str, Any]:
    service: dict[str, Any] = {"envoyGrpc": {"clusterName": ADS}}
    if values.credential:
        service["initialMetadata"] = [{"key": "authorization", "value": values.credential}]
    return {
        "apiType": "DELTA_GRPC" if delta else "GRPC",
        "transportApiVersion": "V3",
        "setNodeOnFirstMessageOnly": True,
        "grpcServices": [service],
    }


def _admin(values: BootstrapValues) -> dict[str, Any]:
    return {
        "address": _socket(values.admin_address, values.admin_port),
        "accessLog": [
            {
                "name": "envoy.access_loggers.file",
                "typedConfig": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": values.admin_access_log,
                },
            }
        ],
    }


def _ads_cluster(values: BootstrapValues) -> dict[str, Any]:
    tls: dict[str, Any] = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "commonTlsContext": {
            "tlsParams": {"tlsMinimumProtocolVersion": "TLSv1_2"},
            "validationContextSdsSecretConfig": {"name": VALIDATION},
        },
    }
    if not is_ip(values.xds_host):  # a server name is a name (RFC 6066 §3)
        tls["sni"] = values.xds_host
    return {
        "name": ADS,
        "type": "STATIC" if is_ip(values.xds_host) else "STRICT_DNS",
        "connectTimeout": f"{values.connect_timeout_s:g}s",
        "upstreamConnectionOptions": _KEEPALIVE,
        "typedExtensionProtocolOptions": _HTTP2,
        "loadAssignment": _one_endpoint(ADS, _socket(values.xds_host, values.xds_port)),
        "transportSocket": {"name": "envoy.transport_sockets.tls", "typedConfig": tls},
    }


def _validation(values: BootstrapValues) -> dict[str, Any]:
    """By pin where one was used, and then by no name; else by CA and the name that kuma-dp came to."""
    if values.pin:
        return {"name": VALIDATION, "validationContext": {"verifyCertificateSpki": [values.pin]}}
    kind = "IP_ADDRESS" if is_ip(values.xds_host) else "DNS"
    return {
        "name": VALIDATION,
        "validationContext": {
            "trustedCa": {"inlineBytes": base64.b64encode(values.ca_pem).decode()},
            "matchTypedSubjectAltNames": [{"sanType": kind, "matcher": {"exact": values.xds_host}}],
        },
    }


def _access_log_sink(values: BootstrapValues) -> dict[str, Any]:
    """Kuma's kuma-dp listens there; ours runs no such helper and says so."""
    path = str(Path(tempfile.gettempdir()) / f"kuma-al-{values.name}-{values.mesh}")[:_MAX_SOCKET_PATH] + ".sock"
    return {
        "name": "access_log_sink",
        "type": "STATIC",
        "connectTimeout": f"{values.connect_timeout_s:g}s",
        "upstreamConnectionOptions": _KEEPALIVE,
        "typedExtensionProtocolOptions": _HTTP2,
        "loadAssignment": _one_endpoint("access_log_sink", {"pipe": {"path": path}}),
    }


def _one_endpoint(cluster: str, address: dict[str, Any]) -> dict[str, Any]:
    return {"clusterName": cluster, "endpoints": [{"lbEndpoints": [{"endpoint": {"address": address}}]}]}


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socketAddress": {"address": host, "portValue": port}}


def is_ip(host: str) -> bool:
    """Whether this is an address and not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True

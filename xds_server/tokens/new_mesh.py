"""What a mesh is born with: its default policies and a signing key, in one batch (R §6.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from snapshot.model.meta import ResourceKey
from xds_server.store.contract import ABSENT, Put
from xds_server.tokens.keys import DATAPLANE, secret_spec

_EVERYTHING: Final = [{"match": {"kuma.io/service": "*"}}]
_FROM_ALL_TO_ALL: Final = {"sources": _EVERYTHING, "destinations": _EVERYTHING}
_RETRY: Final = {
    "numRetries": 5,
    "perTryTimeout": "16s",
    "backOff": {"baseInterval": "0.025s", "maxInterval": "0.250s"},
}

DEFAULT_POLICIES: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "TrafficPermission": ("allow-all", {}),
    "TrafficRoute": (
        "route-all",
        {"conf": {"loadBalancer": {"roundRobin": {}}, "destination": {"kuma.io/service": "*"}}},
    ),
    "Timeout": (
        "timeout-all",
        {
            "conf": {
                "connectTimeout": "5s",
                "tcp": {"idleTimeout": "3600s"},
                "http": {"requestTimeout": "15s", "idleTimeout": "3600s"},
                "grpc": {"streamIdleTimeout": "300s"},
            }
        },
    ),
    "CircuitBreaker": (
        "circuit-breaker-all",
        {
            "conf": {
                "thresholds": {
                    "maxConnections": 1024,
                    "maxPendingRequests": 1024,
                    "maxRetries": 3,
                    "maxRequests": 1024,
                }
            }
        },
    ),
    "Retry": (
        "retry-all",
        {"conf": {"http": _RETRY, "tcp": {"maxConnectAttempts": 5}, "grpc": _RETRY}},
    ),
}
"""Type → (name without `-<mesh>`, spec without sources and destinations)."""


def new_mesh(name: str, spec: Mapping[str, Any], signing_key_pem: bytes) -> list[Put]:
    """The batch that creates a mesh; `signing_key_pem` is a fresh key (`keys.new_key_pem`)."""
    mesh = ResourceKey("Mesh", "", name)
    key = DATAPLANE.key(name, 1)
    # a key or policy that is left over from an earlier mesh of the name is replaced: nobody else's key counts here
    return [
        Put(mesh, spec, expected_version=ABSENT),
        *(
            Put(ResourceKey(type_name, name, f"{prefix}-{name}"), {**_FROM_ALL_TO_ALL, **conf}, owner=mesh)
            for type_name, (prefix, conf) in DEFAULT_POLICIES.items()
        ),
        Put(key, secret_spec(signing_key_pem), owner=mesh),
    ]

"""PartDraft: one listener of a proxy with the clusters that it leads to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from snapshot.envoy.clusters import ClusterDraft
from snapshot.envoy.listeners import ListenerDraft
from snapshot.topology.proxy import EndpointSelector, Protocol

HTTP_PROTOCOLS: Final = frozenset({Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC})
"""The protocols that are proxied request by request."""

HTTP2_PROTOCOLS: Final = frozenset({Protocol.HTTP2, Protocol.GRPC})
"""The protocols whose applications are spoken to in HTTP/2."""

TAGS_HEADER: Final = "x-kuma-tags"
"""Tells the receiving proxy, and no application, which tags the caller has (X §2)."""


@dataclass(slots=True)
class PartDraft:
    """What one generator made. `address` and `port` are what the listener binds; without listener there are clusters.

    `clusters` are the complete ones; `services` names those that lead to services of the mesh, with their endpoints.
    """

    address: str
    port: int
    listener: ListenerDraft | None = None
    clusters: list[ClusterDraft] = field(default_factory=list)
    services: dict[str, EndpointSelector] = field(default_factory=dict)


def join_host_port(ip: str, port: int) -> str:
    """`ip:port`, an IPv6 address in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"

"""PartDraft: one listener of a proxy with the clusters that it leads to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from snapshot.envoy.clusters import ClusterDraft
from snapshot.envoy.listeners import ListenerDraft
from snapshot.topology.proxy import EndpointSelector, Protocol

HTTP_PROTOCOLS: Final = frozenset({Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC})
"""The protocols that are proxied request by request."""

HTTP2_PROTOCOLS: Final = frozenset({Protocol.HTTP2, Protocol.GRPC})
"""The protocols whose applications are spoken to in HTTP/2."""

TAGS_HEADER: Final = "x-kuma-tags"
"""Tells the receiving proxy, and no application, which tags the caller has (X §2)."""


class DraftedCluster(NamedTuple):
    """A cluster and, where its endpoints are those of a service, which ones."""

    draft: ClusterDraft
    selector: EndpointSelector | None = None


@dataclass(slots=True)
class PartDraft:
    """What one generator made. `address` and `port` are what the listener binds."""

    address: str = ""
    port: int = 0
    listener: ListenerDraft | None = None
    clusters: list[DraftedCluster] = field(default_factory=list)


def join_host_port(ip: str, port: int) -> str:
    """`ip:port`, an IPv6 address in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"

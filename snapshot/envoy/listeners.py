"""Listeners and their filter chains: drafts that policies complete."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from envoy.config.core.v3.base_pb2 import INBOUND, OUTBOUND
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain, FilterChainMatch, ListenerFilter
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2 import TlsInspector
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy

from snapshot.envoy.names import HTTP_CONNECTION_MANAGER, TCP_PROXY, TLS_INSPECTOR
from snapshot.envoy.values import packed, socket_address

__all__ = ["INBOUND", "OUTBOUND", "ChainDraft", "ListenerDraft", "listener"]


@dataclass(slots=True)
class ChainDraft:
    """A filter chain whose last network filter is not packed yet. `before` are the packed filters in front of it."""

    terminal: Any
    before: list[Any] = field(default_factory=list)
    transport_protocol: str = ""
    transport_socket: Any = None

    @property
    def http(self) -> Any:
        """The HttpConnectionManager, or None where this chain proxies TCP."""
        return self.terminal if isinstance(self.terminal, HttpConnectionManager) else None

    @property
    def tcp(self) -> Any:
        """The TcpProxy, or None where this chain proxies HTTP."""
        return self.terminal if isinstance(self.terminal, TcpProxy) else None

    def finish(self) -> Any:
        """The complete FilterChain."""
        name = TCP_PROXY if self.http is None else HTTP_CONNECTION_MANAGER
        chain = FilterChain(filters=[*self.before, Filter(name=name, typed_config=packed(self.terminal))])
        if self.transport_protocol:
            chain.filter_chain_match.CopyFrom(FilterChainMatch(transport_protocol=self.transport_protocol))
        if self.transport_socket is not None:
            chain.transport_socket.CopyFrom(self.transport_socket)
        return chain


@dataclass(slots=True)
class ListenerDraft:
    """A Listener whose chains are not packed yet; without chains it gets an empty one, which closes connections."""

    listener: Any
    chains: list[ChainDraft] = field(default_factory=list)

    def inspect_tls(self) -> None:
        """Look into the first bytes, so that chains can be chosen by transport protocol."""
        inspector = ListenerFilter(name=TLS_INSPECTOR, typed_config=packed(TlsInspector()))
        self.listener.listener_filters.append(inspector)

    def finish(self) -> Any:
        """The complete Listener."""
        self.listener.filter_chains.extend([chain.finish() for chain in self.chains] or [FilterChain()])
        return self.listener


def listener(name: str, ip: str, port: int, direction: int, *chains: ChainDraft) -> ListenerDraft:
    """A TCP listener on `ip:port`; `direction` is INBOUND or OUTBOUND."""
    message = Listener(name=name, traffic_direction=direction, address=socket_address(ip, port))
    return ListenerDraft(message, list(chains))

"""The numbers of the gRPC server, in one place, and the channel options they become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xds_server.ads.age import core_age_s, core_grace_s

MIB: Final = 1 << 20
_FOREVER_MS: Final = (1 << 31) - 1
"""What the core takes as "never"; larger numbers it could not hold."""
SPARE_S: Final = 20.0
"""By how much the kernel's own patience with unacknowledged data exceeds that of the keepalive ping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdsSettings:
    """Limits and times of the gRPC server. Times in seconds; a limit of 0 is off."""

    identifier: str = "koguma"
    """`control_plane.identifier` of every response (XP-76): instance and build."""
    keepalive_s: float = 30.0
    """Silence after which a peer is pinged (XP-136)."""
    ping_timeout_s: float = 10.0
    """How long a ping may stay unanswered."""
    handshake_timeout_s: float = 8.0
    """A connection that has not finished TLS and HTTP/2 by then is closed."""
    first_request_s: float = 10.0
    """A stream that has said nothing by then is ended: nobody knows whose it is."""
    write_timeout_s: float = 60.0
    """A write that has waited longer ends its stream (XP-120)."""
    requests_per_s: float = 100.0
    """Requests above this rate on one stream are slowed (XP-152)."""
    max_message_bytes: int = 64 * MIB
    """Largest request (XP-129). Responses are not limited (XP-130)."""
    streams_per_proxy: int = 4096
    """Open streams of one node id. Envoy without ADS opens one for each EDS name (XP-6)."""
    connections_per_address: int = 20_000
    """Connections of one peer address that have streams; loopback is exempt."""
    drain_s: float = 10.0
    """How long a graceful stop takes to end the open streams (XP-141)."""
    max_connection_age_s: float = 0.0
    """When a connection's streams are ended, a tenth more or less; its client comes back on another (XP-140)."""
    so_reuseport: bool = False
    """Several processes on one port (`--workers`); otherwise a taken port is an error."""


def channel_options(settings: AdsSettings) -> list[tuple[str, int]]:
    """Options of gRPC's C core, by its names; measured reasons beside them.

    The core never acts on `keepalive_timeout`: a dead peer is noticed by `ping_timeout` alone (default 60 s). It does
    hand `keepalive_timeout` to the kernel as TCP_USER_TIMEOUT, so that value must be larger than keepalive and ping
    together: else the kernel ends the connection first, and a vanished peer looks like one that left.
    """
    kernel_s = settings.keepalive_s + settings.ping_timeout_s + SPARE_S
    age_s = settings.max_connection_age_s
    ages = [
        ("grpc.max_connection_age_ms", _ms(core_age_s(age_s))),
        ("grpc.max_connection_age_grace_ms", _ms(core_grace_s(age_s))),
    ]
    return [
        *(ages if age_s else ()),
        ("grpc.so_reuseport", int(settings.so_reuseport)),  # on by default: a taken port would be shared silently
        ("grpc.http2.bdp_probe", 0),  # a tenth of the CPU of a push
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_s)),
        ("grpc.http2.ping_timeout_ms", _ms(settings.ping_timeout_s)),
        ("grpc.keepalive_timeout_ms", _ms(kernel_s)),
        ("grpc.keepalive_permit_without_calls", 1),  # XP-138
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),  # XP-137
        ("grpc.http2.max_ping_strikes", 0),  # Envoy may ping every second
        ("grpc.server_handshake_timeout_ms", _ms(settings.handshake_timeout_s)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", 1_000_000),  # XP-139, Kuma's number
        # calls that the loop has not picked up yet; beyond 1000 the core would refuse at random (a connect storm)
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 200_000),
        ("grpc.max_metadata_size", 64 * 1024),
    ]


def _ms(seconds: float) -> int:
    return min(round(seconds * 1000), _FOREVER_MS)

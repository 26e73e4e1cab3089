"""The bounds of one stream: what a client may ask for, how large responses are, how long an answer is awaited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20
ACK_WAIT_S: Final = 5.0
"""How long a response may stay unanswered before the newest state is sent anyway (XP-125)."""
REMOVAL_WAIT_S: Final = 5.0
"""How long a removed cluster waits for the new routes to be acknowledged (XP-95)."""
ENDPOINTS_WAIT_S: Final = 2.0
"""How long new routes wait for the client to ask for the endpoints of a new cluster they may lead to (XP-94)."""
NACK_TEXT_BYTES: Final = 4096
"""How much of a client's complaint is kept (XP-58)."""
MAX_OUTSTANDING: Final = 16
"""Responses of one type whose answers are still told apart; an answer to an older one is an unknown nonce (XP-46)."""
MAX_ANSWERED: Final = 4
"""Answered responses of one type that a late complaint can still name (XP-51)."""
MAX_UNKNOWN_TYPES: Final = 32
"""Types this server does not have that one stream may ask for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes. `max_response` is what the client can receive (4 MiB for gRPC clients, XP-131), None for Envoy.

    Names are counted over all that one type of a stream subscribes to, so that delta messages cannot add up without
    bound. `initial_resource_versions` may list very many names (XP-129): it is bounded by its size, and by what one
    message may make everybody else wait for (`initial_versions` names cost about half a second).
    """

    names: int = 20_000
    name_length: int = 4096
    names_bytes: int = 4 * MIB
    initial_versions: int = 100_000
    initial_versions_bytes: int = 32 * MIB
    part_bytes: int = 2 * MIB
    first_wildcard_bytes: int = 32 * MIB
    max_response: int | None = None
    resend_eds_on_reconnect: bool = False


GRPC_CLIENT_BYTES: Final = 4 * MIB
"""What a gRPC client receives at most by default; a larger response ends its stream again and again (XP-131)."""

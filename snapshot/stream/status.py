"""What a stream can tell about one type of its client: for CSDS, `kumactl status` and metrics (XP-58, XP-164)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from snapshot.cache.resource import XdsResource


class SyncState(enum.Enum):
    """How one type of one client stands; the names are those of Envoy's ConfigStatus (XP-164)."""

    UNKNOWN = "UNKNOWN"
    """No state of the node exists yet, or this server does not have the type."""
    NOT_SENT = "NOT_SENT"
    """Subscribed, and nothing has been sent."""
    STALE = "STALE"
    """Sent and not answered, or a newer state is waiting to be sent."""
    SYNCED = "SYNCED"
    """The newest was sent and acknowledged."""
    ERROR = "ERROR"
    """The last answer was a NACK."""


@dataclass(frozen=True, slots=True)
class NackRecord:
    """The last refusal: when (seconds of the caller's clock), of which version and nonce, and the client's words."""

    time_s: float
    version: str
    nonce: str
    detail: str


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """One type of one stream. `resources` is what the client was last sent, by name; times are the caller's clock."""

    type_url: str
    state: SyncState
    sent_version: str
    acked_version: str
    nonce: str
    sent_at_s: float | None
    nack: NackRecord | None
    resources: Mapping[str, XdsResource]

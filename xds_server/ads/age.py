"""Ends the streams of connections that have grown old, so that clients spread over instances again (XP-140).

gRPC's core says GOAWAY by itself, at `core_age_s`: from then on the client opens no stream on that connection. What the
core does not do is end the streams gently: it cuts them when its grace is over, which would look like a dead peer. So
they are ended here, after the GOAWAY and long before the cut.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

JITTER: Final = 0.1
"""Ages differ by this share both ways, so that clients that came together do not come back together."""
CORE_SHARE: Final = 0.8
"""The core has a jitter of its own of a tenth: 0.8 and a tenth of it come before the earliest end of ours, at 0.9."""
GRACE_S: Final = 30.0


def core_age_s(max_age_s: float) -> float:
    """When the core is to say GOAWAY."""
    return max_age_s * CORE_SHARE


def core_grace_s(max_age_s: float) -> float:
    """How long after its earliest GOAWAY the core may cut a connection: 30 s after our latest end."""
    return max_age_s * (1 + JITTER - CORE_SHARE * (1 - JITTER)) + GRACE_S


class Ages:
    """One timer for each connection, and none where `max_age_s` is 0.

    `expired(peer)` is called in the loop when a connection is old enough. A connection without streams is remembered
    until then: its streams come and go, the core's count of its age does not.
    """

    def __init__(self, max_age_s: float, expired: Callable[[str], None]) -> None:
        self._max_age_s = max_age_s
        self._expired = expired
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def opened(self, peer: str) -> None:
        """A stream of this connection begins."""
        if not self._max_age_s or peer in self._timers:
            return
        age_s = self._max_age_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # jitter, not a secret
        self._timers[peer] = asyncio.get_running_loop().call_later(age_s, self._end, peer)

    def close(self) -> None:
        """Forget everything."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _end(self, peer: str) -> None:
        del self._timers[peer]
        self._expired(peer)

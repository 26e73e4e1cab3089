"""The only place that reads time. Everything else is given a `Clock`, so that tests can own it.

Never here: time-outs of single calls (`asyncio.timeout` is about the loop, not about what time it is).
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What time it is, and how to wait for a later one."""

    def now(self) -> datetime:
        """Wall-clock time in UTC: for what is stored or shown. It may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back: for durations and deadlines of this process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when `monotonic_s` has grown by `seconds`; at once (after one turn of the loop) for 0 or less."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Wall-clock time in UTC, microseconds."""
        return datetime.now(UTC)  # noqa: TID251  # the one place that may

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep in the running loop."""
        await asyncio.sleep(max(0.0, seconds))

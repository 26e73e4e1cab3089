"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2022, 4, 5, 12, tzinfo=UTC)


class FakeClock:
    """Implements `xds_server.clock.Clock`; `await advance(s)` wakes sleepers in the order of their deadlines."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = 0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic_s(self) -> float:
        return 1000.0 + self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, self._order, future))
        await future

    def jump(self, seconds: float) -> None:
        """Move the time without waking anybody: for code that only reads it."""
        self._elapsed_s += seconds

    async def advance(self, seconds: float) -> None:
        """Move the time, waking each sleeper at its moment and letting it run as far as it gets without real IO."""
        end_s = self._elapsed_s + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end_s:
            deadline_s, _, future = heapq.heappop(self._sleepers)
            self._elapsed_s = max(self._elapsed_s, deadline_s)
            if not future.done():
                future.set_result(None)
            await settle()
        self._elapsed_s = max(self._elapsed_s, end_s)  # a woken task may have jumped further
        await settle()


async def settle(turns: int = 50) -> None:
    """Let every task run until it waits for something: `turns` turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)

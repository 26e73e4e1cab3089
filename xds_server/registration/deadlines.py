"""One timer for any number of deadlines: nothing runs until the earliest is due."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from snapshot.model.meta import ProxyKey
from xds_server.clock import Clock

SLACK: Final = 64
"""Replaced deadlines that may lie about before they are swept: a proxy that comes and goes for ever costs nothing."""

_log = structlog.get_logger(__name__)


class Deadlines:
    """At most one deadline for each proxy, for one epoch of its lease. `due(proxy, epoch)` is awaited when it comes."""

    def __init__(self, clock: Clock, due: Callable[[ProxyKey, int], Coroutine[Any, Any, None]]) -> None:
        self._clock = clock
        self._due = due
        self._current: dict[ProxyKey, tuple[float, int]] = {}
        self._heap: list[tuple[float, ProxyKey, int]] = []
        self._earlier = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the time."""
        self._task = asyncio.create_task(self._run(), name="lease-deadlines")

    async def stop(self) -> None:
        """End; nothing is due any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def set(self, proxy: ProxyKey, epoch: int, wait_s: float) -> None:
        """The proxy's deadline is in `wait_s` seconds, whatever it was."""
        at_s = self._clock.monotonic_s() + max(0.0, wait_s)
        self._current[proxy] = (at_s, epoch)
        heapq.heappush(self._heap, (at_s, proxy, epoch))
        if len(self._heap) > 2 * len(self._current) + SLACK:
            self._heap = [(due_s, key, one) for key, (due_s, one) in self._current.items()]
            heapq.heapify(self._heap)
        if self._heap[0][1] == proxy:
            self._earlier.set()

    def drop(self, proxy: ProxyKey) -> None:
        """The proxy has no deadline."""
        self._current.pop(proxy, None)

    def epoch_of(self, proxy: ProxyKey) -> int | None:
        """The epoch that the proxy's deadline is for, None without one."""
        current = self._current.get(proxy)
        return current[1] if current else None

    async def _run(self) -> None:
        while True:
            self._earlier.clear()
            due = self._take_due()
            for outcome in await asyncio.gather(*(self._due(*one) for one in due), return_exceptions=True):
                if isinstance(outcome, Exception):
                    _log.error("a deadline could not be dealt with", exc_info=outcome)
            if not due:
                await self._sleep()

    def _take_due(self) -> list[tuple[ProxyKey, int]]:
        now_s = self._clock.monotonic_s()
        due: list[tuple[ProxyKey, int]] = []
        while self._heap:
            at_s, proxy, epoch = self._heap[0]
            current = self._current.get(proxy) == (at_s, epoch)
            if current and at_s > now_s:
                break
            heapq.heappop(self._heap)
            if current:
                del self._current[proxy]
                due.append((proxy, epoch))
        return due

    async def _sleep(self) -> None:
        """Until the earliest deadline, or until there is an earlier one."""
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(self._earlier.wait())]
        if self._heap:
            waiting.append(asyncio.create_task(self._clock.sleep(self._heap[0][0] - self._clock.monotonic_s())))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

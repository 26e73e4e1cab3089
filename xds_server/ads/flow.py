"""Keeps one client from costing too much: the pace of its requests, and writes that it does not read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from snapshot.model.meta import ProxyKey
from xds_server.ads.ports import End

TURN_BYTES: Final = 8 << 20
TURN_WRITERS: Final = 4
"""Handing over 2 MB takes about 2 ms."""
LARGE_BYTES: Final = 1 << 20
MANY_PROXIES: Final = 100
BURST_S: Final = 1.0
"""How much unused pace may be saved up: a client that connects asks for several types at once."""


class Pace:
    """Slows requests above a rate (XP-152): `delay_s` says how long to wait before reading on. Rate 0 is no limit."""

    __slots__ = ("_earliest_s", "_gap_s")

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1.0 / per_s if per_s else 0.0
        self._earliest_s = 0.0

    def delay_s(self, now_s: float) -> float:
        """Count a request at `now_s`; seconds to wait before the next one is read, 0.0 within the rate."""
        self._earliest_s = earliest_s = max(self._earliest_s, now_s - BURST_S) + self._gap_s
        return earliest_s - now_s if earliest_s > now_s else 0.0


class WriteWatch:
    """Ends streams whose write waits too long. One timer for the whole server, and only while something is written."""

    def __init__(self, limit_s: float, monotonic_s: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._monotonic_s = monotonic_s
        self._writing: dict[Callable[[], None], float] = {}  # oldest first: the limit is the same for all
        self._timer: asyncio.TimerHandle | None = None

    def began(self, stuck: Callable[[], None], now_s: float) -> None:
        """A write began at `now_s`; `stuck` is called if it has not ended after the limit."""
        self._writing[stuck] = now_s
        if self._timer is None and self._limit_s:
            self._timer = asyncio.get_running_loop().call_later(self._limit_s, self._look)

    def ended(self, stuck: Callable[[], None]) -> None:
        """The write ended."""
        self._writing.pop(stuck, None)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now_s = self._monotonic_s()
        limit_s = now_s - self._limit_s + 0.001
        for stuck in [stuck for stuck, since_s in self._writing.items() if since_s <= limit_s]:
            del self._writing[stuck]
            stuck()
        if self._writing:
            oldest_s = next(iter(self._writing.values()))
            self._timer = asyncio.get_running_loop().call_later(oldest_s + self._limit_s - now_s, self._look)


class Turns:
    """Spreads many bytes over many turns of the loop, so that no turn holds up everything else (XP-128).

    A writer that finds `full` awaits `turn` before it builds its response, and tells `spent` what it then wrote.
    """

    __slots__ = ("_bytes", "_waiting")

    def __init__(self) -> None:
        self._bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def full(self) -> bool:
        """Enough has been written in this turn."""
        return self._bytes >= TURN_BYTES

    def spent(self, size: int) -> None:
        """A response of `size` bytes was handed to the core."""
        before, self._bytes = self._bytes, self._bytes + size
        if before < TURN_BYTES <= self._bytes:
            asyncio.get_running_loop().call_soon(self._next)

    async def turn(self) -> None:
        """Return in a later turn, first come, first served; at once where this one is not full."""
        if not self.full:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _next(self) -> None:
        """A new turn, with writers for about as much as it may take; the rest stays in line."""
        woken = 0
        while self._waiting and woken < TURN_WRITERS:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                woken += 1
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._bytes = 0


class LargeResponses:
    """Notices when responses of one type are large for many proxies; `log` is called once for each type (XP-134)."""

    def __init__(self, log: Callable[[str, int], None]) -> None:
        self._log = log
        self._proxies: dict[str, set[ProxyKey]] = {}

    def sent(self, type_url: str, proxy: ProxyKey) -> None:
        """A response of more than `LARGE_BYTES` went to this proxy."""
        proxies = self._proxies.setdefault(type_url, set())
        if len(proxies) <= MANY_PROXIES:
            proxies.add(proxy)
            if len(proxies) > MANY_PROXIES:
                self._log(type_url, len(proxies))


async def converse(
    read: Coroutine[Any, Any, None], write: Coroutine[Any, Any, None], ended: asyncio.Future[End]
) -> None:
    """Read and write in a task each until one of them ends, or `ended` is set: then the other ends too (XP-185).

    Returns after `read` returned (a half-close); raises what either raised, or the End that was set.
    """
    reader, writer = asyncio.create_task(read), asyncio.create_task(write)
    try:
        await asyncio.wait((reader, writer, ended), return_when=asyncio.FIRST_COMPLETED)
    finally:
        reader.cancel()
        writer.cancel()
        await asyncio.wait((reader, writer))
    if ended.done():
        raise ended.result()
    for task in (writer, reader):
        if not task.cancelled():
            task.result()


async def undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """Carry `work` through although this task may be cancelled meanwhile; the cancellation is passed on afterwards.

    The core cancels a handler when the peer resets the call, which may well be while we are cleaning up after its end.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled() and task.exception() is not None:
            raise cancelled from task.exception()
        raise cancelled

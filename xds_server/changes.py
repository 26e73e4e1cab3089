"""Wake-ups inside the process: latest wins, and nothing queues up.

Never here: what changed. A woken part reads the newest state itself.
"""

from __future__ import annotations

import asyncio


class Watermark:
    """A number that only grows, and the tasks that wait for it. For use in one event loop."""

    def __init__(self, value: int = 0) -> None:
        self._value = value
        self._waiting: list[tuple[int, asyncio.Future[int]]] = []
        self._failure: Exception | None = None

    @property
    def value(self) -> int:
        """The highest number so far."""
        return self._value

    def advance(self, value: int) -> None:
        """Raise the mark to `value`; a lower one changes nothing."""
        if value <= self._value:
            return
        self._value = value
        still: list[tuple[int, asyncio.Future[int]]] = []
        for after, future in self._waiting:
            if future.done():
                continue
            if after < value:
                future.set_result(value)
            else:
                still.append((after, future))
        self._waiting = still

    def fail(self, failure: Exception) -> None:
        """The mark will never move again: everyone who waits, or will, gets `failure`."""
        self._failure = failure
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(failure)
        self._waiting = []

    async def above(self, after: int) -> int:
        """Return the mark as soon as it is greater than `after`."""
        if self._value > after:
            return self._value
        if self._failure is not None:
            raise self._failure
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        entry = (after, future)
        self._waiting.append(entry)
        try:
            return await future
        finally:
            # a waiter that was cancelled leaves nothing behind, however rarely the mark moves
            if not future.done() or future.cancelled():
                self._waiting = [waiting for waiting in self._waiting if waiting is not entry]

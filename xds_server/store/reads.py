"""Reads by key, gathered: what arrives while one read is under way is answered by the next, in one statement.

A thousand proxies that register at once ask for three rows each; a statement and a change of threads for each of them
costs more than everything else that the store does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from snapshot.model.meta import ResourceKey
from xds_server.store.contract import Stored

Found = dict[ResourceKey, Stored]


class GroupReader:
    """Answers from `read`, which is never called twice at a time. Belongs to one event loop."""

    def __init__(self, read: Callable[[Sequence[ResourceKey]], Awaitable[Found]]) -> None:
        self._read = read
        self._waiting: list[tuple[Sequence[ResourceKey], asyncio.Future[Found]]] = []
        self._task: asyncio.Task[None] | None = None

    async def get_many(self, keys: Sequence[ResourceKey]) -> Found:
        """The rows that exist, as they were at some moment after the call. Raises what `read` raises."""
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.append((keys, future))
        if self._task is None:
            self._task = asyncio.create_task(self._serve(), name="store-reads")
        return await future

    async def _serve(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._answer(group)
        finally:
            self._task = None

    async def _answer(self, group: Sequence[tuple[Sequence[ResourceKey], asyncio.Future[Found]]]) -> None:
        try:
            found = await self._read(list(dict.fromkeys(key for keys, _ in group for key in keys)))
        except Exception as error:  # noqa: BLE001  # every caller must hear of it
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
        else:
            for keys, future in group:
                if not future.done():
                    future.set_result({key: found[key] for key in keys if key in found})

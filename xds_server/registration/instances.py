"""Which control planes over one store are alive: each says so every few seconds, in one row of its own.

A store that admits one instance only (SQLite) needs none of it, and then nothing is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from snapshot.model.meta import ResourceKey
from xds_server.clock import Clock
from xds_server.store import Delete, Put, ResourceStore, StoreError

INSTANCE_TYPE: Final = "Instance"
"""Internal type: one row for each control plane, global, named by its instance id."""
HEARTBEAT_S: Final = 10.0
FRESH_S: Final = 30.0
FORGET_S: Final = 24 * 3600.0
BEATS_PER_LOOK: Final = 6

_log = structlog.get_logger(__name__)


class Instances:
    """Says that this instance is alive, and knows who else is. `look` is awaited about once a minute."""

    def __init__(
        self, store: ResourceStore, clock: Clock, instance_id: str, look: Callable[[], Awaitable[None]]
    ) -> None:
        self._store = store
        self._clock = clock
        self._instance_id = instance_id
        self._look = look
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Say hello, and keep saying it."""
        if self._store.single_instance:
            return
        await self._beat()
        await self._forget_the_dead()
        self._task = asyncio.create_task(self._run(), name="heartbeat")

    async def stop(self) -> None:
        """Fall silent. The row stays: it says until when this instance was alive."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def seen_s(self, instance_id: str) -> float | None:
        """When the instance last said that it was alive (wall clock, Unix), None where nobody knows."""
        if self._store.single_instance:
            return None
        stored = await self._store.get(ResourceKey(INSTANCE_TYPE, "", instance_id))
        return None if stored is None else float(stored.spec["seen"])

    async def alive(self, instance_id: str) -> bool:
        """Whether the instance is at work."""
        if instance_id == self._instance_id:
            return True
        seen_s = await self.seen_s(instance_id)
        return seen_s is not None and self._clock.now().timestamp() - seen_s < FRESH_S

    async def _run(self) -> None:
        beats = 0
        while True:
            await self._clock.sleep(HEARTBEAT_S)
            beats += 1
            try:
                await self._beat()
                if beats % BEATS_PER_LOOK == 0:
                    await self._look()
            except StoreError as error:
                _log.warning("the heartbeat of this instance could not be stored", reason=str(error))

    async def _beat(self) -> None:
        key = ResourceKey(INSTANCE_TYPE, "", self._instance_id)
        await self._store.apply(Put(key, {"seen": self._clock.now().timestamp()}, logged=False))

    async def _forget_the_dead(self) -> None:
        now_s = self._clock.now().timestamp()
        for stored in (await self._store.list(INSTANCE_TYPE)).items:
            if now_s - float(stored.spec["seen"]) > FORGET_S:
                await self._store.apply(Delete(stored.key, missing_ok=True))

"""A store in memory: for tests and throw-away meshes. Everything is lost with the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from snapshot.model.meta import ResourceKey
from xds_server.changes import Watermark
from xds_server.clock import Clock
from xds_server.store.batch import carry_out
from xds_server.store.contract import (
    Applied,
    Change,
    LogTrimmed,
    Observer,
    Operation,
    Page,
    Stored,
    StoreUnavailable,
)
from xds_server.store.observing import observed_operations, unobserved

KEPT_CHANGES = 100_000
"""Default number of log entries that a store keeps."""


class MemoryStore:
    """Implements `ResourceStore`. Several control planes of one event loop may share it."""

    def __init__(self, clock: Clock, *, kept_changes: int = KEPT_CHANGES, observer: Observer = unobserved) -> None:
        self._clock = clock
        self._kept_changes = kept_changes
        self._observer = observer
        self._rows: dict[ResourceKey, Stored] = {}
        self._owned: dict[ResourceKey, set[ResourceKey]] = {}
        self._log: dict[ResourceKey, int] = {}
        self._trimmed = 0
        self._head = Watermark()
        self._closed = False

    @property
    def single_instance(self) -> bool:
        """Never: whoever holds this object may be at work on it."""
        return False

    async def get(self, key: ResourceKey) -> Stored | None:
        """See `ResourceStore.get`."""
        return (await self.get_many((key,))).get(key)

    async def get_many(self, keys: Sequence[ResourceKey]) -> dict[ResourceKey, Stored]:
        """See `ResourceStore.get_many`."""
        await self._turn()
        started_s = time.perf_counter()
        found = {key: stored for key in keys if (stored := self._rows.get(key)) is not None}
        for key in keys:
            self._observer("get", key.type, time.perf_counter() - started_s)
        return found

    async def list(
        self,
        type_name: str,
        mesh: str | None = None,
        *,
        name_contains: str | None = None,
        offset: int = 0,
        size: int | None = None,
    ) -> Page:
        """See `ResourceStore.list`."""
        await self._turn()
        started_s = time.perf_counter()
        items = sorted(
            stored
            for key, stored in self._rows.items()
            if key.type == type_name and mesh in (None, key.mesh) and (name_contains or "") in key.name
        )
        self._observer("list", type_name, time.perf_counter() - started_s)
        return Page(items[offset:] if size is None else items[offset : offset + size], len(items))

    async def apply(self, *operations: Operation) -> Applied:
        """See `ResourceStore.apply`."""
        await self._turn()
        started_s = time.perf_counter()
        transaction = _Transaction(self._rows, self._owned, self._head.value)
        try:
            stored = carry_out(transaction, operations, self._clock.now())
        except BaseException:
            transaction.undo()
            raise
        for seq, key in transaction.logged:
            self._log.pop(key, None)
            self._log[key] = seq
        self._head.advance(transaction.head)
        self._trim()
        for operation, type_name in observed_operations(operations, stored):
            self._observer(operation, type_name, time.perf_counter() - started_s)
        return Applied(self._head.value, stored)

    async def changes(self, after: int, limit: int = 10_000) -> Sequence[Change]:
        """See `ResourceStore.changes`."""
        await self._turn()
        if not self._trimmed <= after <= self._head.value:
            raise LogTrimmed(after, self._trimmed + 1, self._head.value)
        found: list[Change] = []
        for key, seq in reversed(self._log.items()):
            if seq <= after:
                break
            stored = self._rows.get(key)
            found.append(Change(seq, key, "delete" if stored is None else "put", stored))
        return found[::-1][:limit]

    async def head(self) -> int:
        """See `ResourceStore.head`."""
        await self._turn()
        return self._head.value

    async def wait(self, after: int) -> int:
        """See `ResourceStore.wait`."""
        return await self._head.above(after)

    async def snapshot(self) -> tuple[int, Sequence[Stored]]:
        """See `ResourceStore.snapshot`."""
        await self._turn()
        return self._head.value, list(self._rows.values())

    async def close(self) -> None:
        """See `ResourceStore.close`."""
        self._closed = True
        self._head.fail(StoreUnavailable("the store is closed"))

    async def _turn(self) -> None:
        """Give other tasks the turns that a real store would, so that tests on this one meet the same interleavings."""
        await asyncio.sleep(0)
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _trim(self) -> None:
        self._trimmed = max(self._trimmed, self._head.value - self._kept_changes)
        for key, seq in list(self._log.items()):
            if seq > self._trimmed:
                break
            del self._log[key]


class _Transaction:
    """Writes through to the store's dicts and remembers how to take each write back."""

    def __init__(self, rows: dict[ResourceKey, Stored], owned: dict[ResourceKey, set[ResourceKey]], head: int) -> None:
        self._rows = rows
        self._owned = owned
        self._before: list[tuple[ResourceKey, Stored | None]] = []
        self.head = head
        self.logged: list[tuple[int, ResourceKey]] = []

    def get(self, key: ResourceKey) -> Stored | None:
        return self._rows.get(key)

    def owned_by(self, owner: ResourceKey) -> Sequence[Stored]:
        return [self._rows[key] for key in sorted(self._owned.get(owner, ()))]

    def write(self, stored: Stored, *, new: bool) -> None:
        self._before.append((stored.key, None if new else self._rows[stored.key]))
        self._set(stored.key, stored)

    def remove(self, key: ResourceKey) -> None:
        self._before.append((key, self._rows[key]))
        self._set(key, None)

    def log(self, key: ResourceKey, kind: Literal["put", "delete"], version: int, time: datetime) -> None:
        del kind, version, time  # the folded log needs only what is newest
        self.head += 1
        self.logged.append((self.head, key))

    def undo(self) -> None:
        for key, before in reversed(self._before):
            self._set(key, before)

    def _set(self, key: ResourceKey, stored: Stored | None) -> None:
        old = self._rows.pop(key, None)
        if old is not None and old.owner is not None:
            self._owned[old.owner].discard(key)
            if not self._owned[old.owner]:
                del self._owned[old.owner]
        if stored is not None:
            self._rows[key] = stored
            if stored.owner is not None:
                self._owned.setdefault(stored.owner, set()).add(key)

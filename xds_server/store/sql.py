"""The embedded store: SQLite in the data directory, one writer thread, one reader thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from snapshot.model.meta import ResourceKey
from xds_server.changes import Watermark
from xds_server.clock import Clock
from xds_server.store import rows
from xds_server.store.contract import (
    Applied,
    Change,
    Observer,
    Operation,
    Page,
    Stored,
    StoreUnavailable,
    StoreUnusable,
)
from xds_server.store.lock import DirectoryLock
from xds_server.store.memory import KEPT_CHANGES
from xds_server.store.observing import observed_operations, unobserved
from xds_server.store.reads import GroupReader
from xds_server.store.schema import migrate
from xds_server.store.sqlite import DATABASE_FILE, create_private, engine, explain, unavailable
from xds_server.store.writer import GroupWriter

T = TypeVar("T")


class SqlStore:
    """Implements `ResourceStore`. Made by `open`; belongs to the event loop that opened it."""

    def __init__(
        self, path: Path, lock: DirectoryLock, clock: Clock, head: int, kept_changes: int, observer: Observer
    ) -> None:
        self._path = path
        self._lock = lock
        self._clock = clock
        self._observer = observer
        self._head = Watermark(head)
        self._engines = (engine(path, writes=True), engine(path, writes=False))
        self._writer = GroupWriter(self._engines[0], path, self._head, max(1, kept_changes))
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._reads = GroupReader(lambda keys: self._read(lambda connection: rows.get_many(connection, keys)))
        self._connection: Connection | None = None
        self._closed = False

    @classmethod
    async def open(
        cls, directory: Path, clock: Clock, *, kept_changes: int = KEPT_CHANGES, observer: Observer = unobserved
    ) -> SqlStore:
        """Open (and at first create) the store in `directory`, and bring it to the present schema.

        Raises StoreUnusable when another process holds the directory, when the file is damaged or newer than this
        version, or when it cannot be written.
        """
        path = directory / DATABASE_FILE
        lock, head = await asyncio.to_thread(_prepare, path)
        return cls(path, lock, clock, head, kept_changes, observer)

    @property
    def single_instance(self) -> bool:
        """The directory's lock keeps every other process out."""
        return True

    async def get(self, key: ResourceKey) -> Stored | None:
        """See `ResourceStore.get`."""
        return (await self.get_many((key,))).get(key)

    async def get_many(self, keys: Sequence[ResourceKey]) -> dict[ResourceKey, Stored]:
        """See `ResourceStore.get_many`."""
        self._check_open()
        started_s = time.perf_counter()
        found = await self._reads.get_many(keys)
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
        started_s = time.perf_counter()
        page = await self._read(lambda connection: rows.page(connection, type_name, mesh, name_contains, offset, size))
        self._observer("list", type_name, time.perf_counter() - started_s)
        return page

    async def apply(self, *operations: Operation) -> Applied:
        """See `ResourceStore.apply`."""
        started_s = time.perf_counter()
        applied = await self._writer.write(operations, self._clock.now())
        seconds = time.perf_counter() - started_s
        for operation, type_name in observed_operations(operations, applied.stored):
            self._observer(operation, type_name, seconds)
        return applied

    async def changes(self, after: int, limit: int = 10_000) -> Sequence[Change]:
        """See `ResourceStore.changes`."""
        return await self._read(lambda connection: rows.folded_changes(connection, after, limit))

    async def head(self) -> int:
        """See `ResourceStore.head`."""
        self._check_open()
        return self._head.value

    async def wait(self, after: int) -> int:
        """See `ResourceStore.wait`."""
        return await self._head.above(after)

    async def snapshot(self) -> tuple[int, Sequence[Stored]]:
        """See `ResourceStore.snapshot`."""
        return await self._read(lambda connection: (rows.head(connection), rows.everything(connection)))

    async def close(self) -> None:
        """See `ResourceStore.close`."""
        if self._closed:
            return
        self._closed = True
        await self._writer.close()
        await asyncio.get_running_loop().run_in_executor(self._reader, self._disconnect)
        self._reader.shutdown()
        for made in self._engines:
            made.dispose()
        self._lock.release()
        self._head.fail(StoreUnavailable(f"store {self._path}: it is closed"))

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"store {self._path}: it is closed")

    async def _read(self, question: Callable[[Connection], T]) -> T:
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._ask, question)

    def _ask(self, question: Callable[[Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._engines[1].connect()
            with self._connection.begin():
                return question(self._connection)
        except SQLAlchemyError as error:
            self._disconnect()
            raise unavailable(error, self._path) from error

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _prepare(path: Path) -> tuple[DirectoryLock, int]:
    """Lock the directory, create the file, check it, migrate it; returns the lock and the head of the log."""
    create_private(path)
    try:
        lock = DirectoryLock(path.parent)
    except OSError as error:
        raise StoreUnusable(f"store {path}: {error}: check the permissions of the data directory") from error
    try:
        made = engine(path, writes=True)
        try:
            return lock, _check_and_migrate(made, path)
        finally:
            made.dispose()
    except BaseException:
        lock.release()
        raise


def _check_and_migrate(made: Engine, path: Path) -> int:
    try:
        with made.begin() as connection:
            verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            if verdict != "ok":
                raise StoreUnusable(
                    f"store {path}: it is damaged: restore a backup, or start with another --data-dir ({verdict})"
                )
            migrate(connection, f"store {path}")
            return rows.head(connection)
    except SQLAlchemyError as error:
        raise StoreUnusable(explain(error, path)) from error

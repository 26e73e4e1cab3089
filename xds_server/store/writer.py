"""Group commit: one thread writes, and everything that waits when it is free goes into one transaction.

A batch that fails its conditions fails alone; a storage that fails takes the whole group with it, and nothing of it
was acknowledged.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from xds_server.changes import Watermark
from xds_server.store import rows
from xds_server.store.batch import carry_out
from xds_server.store.contract import Applied, Delete, Operation, StoreUnavailable
from xds_server.store.group import GroupRows
from xds_server.store.sqlite import unavailable

GROUP_LIMIT: Final = 500
"""Most batches in one transaction: bounds how long the first of them waits for its acknowledgement."""


@dataclass(frozen=True, slots=True)
class _Job:
    operations: Sequence[Operation]
    now: datetime
    future: asyncio.Future[Applied]


_Outcome = Applied | Exception


class GroupWriter:
    """Owns the connection that writes. `head` is advanced in `loop` after each commit, before callers are told."""

    def __init__(self, engine: Engine, path: Path, head: Watermark, kept_changes: int) -> None:
        self._engine = engine
        self._path = path
        self._head = head
        self._kept_changes = kept_changes
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._oldest = 0
        self._closed = False
        # a daemon: a process that dies by an exception is not kept alive by its store
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def write(self, operations: Sequence[Operation], now: datetime) -> Applied:
        """Carry out a batch; see `ResourceStore.apply`."""
        if self._closed:
            raise StoreUnavailable(f"store {self._path}: it is closed")
        job = _Job(operations, now, self._loop.create_future())
        self._jobs.put(job)
        return await job.future

    async def close(self) -> None:
        """Write what was accepted, then stop."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        open_for_more = True
        while open_for_more:
            group, open_for_more = self._next_group()
            if group:
                outcomes = self._commit(group)
                self._loop.call_soon_threadsafe(self._deliver, group, outcomes)
        self._disconnect()

    def _next_group(self) -> tuple[list[_Job], bool]:
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == GROUP_LIMIT:
                return group, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, group: Sequence[_Job]) -> list[_Outcome]:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            connection = self._connection
            with connection.begin():
                table = GroupRows(connection, rows.head(connection))
                table.prefetch(operation for job in group for operation in job.operations)
                outcomes = [self._carry_out(connection, table, job) for job in group]
                table.flush()
                self._trim(connection, table.head)
        except SQLAlchemyError as error:
            self._disconnect()
            return [unavailable(error, self._path) for _ in group]
        except Exception as error:  # noqa: BLE001  # the thread must live, and every caller must hear of it
            self._disconnect()
            return [StoreUnavailable(f"store {self._path}: {error!r}") for _ in group]
        return outcomes

    def _carry_out(self, connection: Connection, table: GroupRows, job: _Job) -> _Outcome:
        if any(isinstance(operation, Delete) for operation in job.operations):
            return self._carry_out_directly(connection, table, job)
        table.begin()
        try:
            stored = carry_out(table, job.operations, job.now)
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to the caller of this batch, not to the group
            table.undo()
            return error
        return Applied(table.head, stored)

    @staticmethod
    def _carry_out_directly(connection: Connection, group: GroupRows, job: _Job) -> _Outcome:
        """A batch that deletes: what is owned, and what is not, only the tables know."""
        group.flush()
        table = rows.SqlRows(connection, group.head)
        connection.exec_driver_sql("SAVEPOINT batch")
        try:
            stored = carry_out(table, job.operations, job.now)
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001  # as above
            connection.exec_driver_sql("ROLLBACK TO batch")
            connection.exec_driver_sql("RELEASE batch")
            return error
        connection.exec_driver_sql("RELEASE batch")
        group.head = table.head
        return Applied(table.head, stored)

    def _trim(self, connection: Connection, head: int) -> None:
        """Drop old entries in strides of a tenth of what is kept, so that most commits need not look."""
        surplus = head - self._kept_changes - self._oldest
        if surplus > self._kept_changes // 10:
            rows.trim(connection, head - self._kept_changes + 1)
            self._oldest = rows.oldest(connection)

    def _deliver(self, group: Sequence[_Job], outcomes: Sequence[_Outcome]) -> None:
        self._head.advance(max((outcome.seq for outcome in outcomes if isinstance(outcome, Applied)), default=0))
        for job, outcome in zip(group, outcomes, strict=True):
            if job.future.done():
                continue  # its caller was cancelled; the write stands
            if isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

"""The rows of one group of batches: read together before, written together after, so that a batch costs no statement.

For batches that only put and check; one that deletes goes to the tables itself (`rows.SqlRows`), after a flush.
Never here: what a batch means (`batch.py`), transactions (`writer.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from sqlalchemy import Connection

from snapshot.model.meta import ResourceKey
from xds_server.store import rows
from xds_server.store.contract import LEASE_TYPE, Delete, Fence, Operation, Put, Stored


class _Pending(NamedTuple):
    """A row that is not written yet: `new` to the tables, or replacing what lies there."""

    new: bool
    values: rows.Values


class _Before(NamedTuple):
    """How a key was before a batch wrote it: what undoing needs."""

    key: ResourceKey
    stored: Stored | None
    pending: _Pending | None


class GroupRows:
    """Implements `xds_server.store.batch.Rows`, but for deletions, on an open transaction; `head` follows the log."""

    def __init__(self, connection: Connection, head: int) -> None:
        self._connection = connection
        self.head = head
        self._known: dict[ResourceKey, Stored | None] = {}
        self._pending: dict[ResourceKey, _Pending] = {}
        self._log: list[rows.Values] = []
        self._undo: list[_Before] = []
        self._mark = (head, 0)

    def prefetch(self, operations: Iterable[Operation]) -> None:
        """Read what the batches will ask for, in one statement."""
        wanted = [key for key in dict.fromkeys(_asked(operations)) if key not in self._known]
        found = rows.get_many(self._connection, wanted)
        self._known.update((key, found.get(key)) for key in wanted)

    def begin(self) -> None:
        """A batch begins."""
        self._undo.clear()
        self._mark = (self.head, len(self._log))

    def undo(self) -> None:
        """Forget what the batch wrote."""
        while self._undo:
            key, stored, pending = self._undo.pop()
            self._known[key] = stored
            if pending is None:
                del self._pending[key]
            else:
                self._pending[key] = pending
        self.head, entries = self._mark
        del self._log[entries:]

    def flush(self) -> None:
        """Write everything to the tables, and remember nothing."""
        made = self._pending.values()
        if inserts := [values for new, values in made if new]:
            rows.insert_all(self._connection, inserts)
        if updates := [values for new, values in made if not new]:
            rows.update_all(self._connection, updates)
        if self._log:
            rows.append_all(self._connection, self._log)
        self._known, self._pending, self._log = {}, {}, []

    def get(self, key: ResourceKey) -> Stored | None:
        """See `Rows.get`."""
        if key not in self._known:
            self._known[key] = rows.get(self._connection, key)
        return self._known[key]

    def write(self, stored: Stored, *, new: bool) -> None:
        """See `Rows.write`."""
        key, before = stored.key, self._pending.get(stored.key)
        fresh = new if before is None else before.new
        values = rows.inserted(stored) if fresh else rows.updated(stored)
        self._undo.append(_Before(key, self.get(key), before))
        self._known[key] = stored
        self._pending[key] = _Pending(fresh, values)

    def log(self, key: ResourceKey, kind: Literal["put", "delete"], version: int, time: datetime) -> None:
        """See `Rows.log`."""
        self.head += 1
        self._log.append(rows.logged(key, kind, version, time) | {"seq": self.head})

    def owned_by(self, owner: ResourceKey) -> Sequence[Stored]:
        """Only deletions ask, and `GroupWriter` takes those to the tables themselves."""
        raise AssertionError(f"a deletion of {owner} among batches that only put")

    def remove(self, key: ResourceKey) -> None:
        """As `owned_by`."""
        raise AssertionError(f"a deletion of {key} among batches that only put")


def _asked(operations: Iterable[Operation]) -> Iterator[ResourceKey]:
    for operation in operations:
        match operation:
            case Put(key=key, owner=owner):
                yield key
                if owner is not None:
                    yield owner
            case Fence(proxy=proxy):
                yield ResourceKey(LEASE_TYPE, *proxy)
            case Delete():
                pass  # goes to the tables itself

"""What a batch of operations means, for every store alike: conditions, versions, ownership, the log.

Pure but for the `Rows` it works on; the store around it makes the effects atomic and durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol, assert_never

from snapshot.model.meta import ResourceKey
from xds_server.store.contract import (
    ABSENT,
    LEASE_TYPE,
    AlreadyExists,
    Conflict,
    Delete,
    Fence,
    Fenced,
    NotFound,
    Operation,
    Put,
    Stored,
)


class Rows(Protocol):
    """The stored rows inside one open transaction."""

    def get(self, key: ResourceKey) -> Stored | None:
        """The row as this transaction sees it."""
        ...

    def owned_by(self, owner: ResourceKey) -> Sequence[Stored]:
        """What names `owner` as its owner, sorted by key."""
        ...

    def write(self, stored: Stored, *, new: bool) -> None:
        """Insert (`new`) or replace the row."""
        ...

    def remove(self, key: ResourceKey) -> None:
        """Remove the row, which exists and owns nothing any more."""
        ...

    def log(self, key: ResourceKey, kind: Literal["put", "delete"], version: int, time: datetime) -> None:
        """Append to the log."""
        ...


def carry_out(rows: Rows, operations: Sequence[Operation], now: datetime) -> tuple[Stored | None, ...]:
    """Do all operations in order. An exception means that the caller must undo what `rows` was told so far."""
    return tuple(_carry_out(rows, operation, now) for operation in operations)


def _carry_out(rows: Rows, operation: Operation, now: datetime) -> Stored | None:
    match operation:
        case Put():
            return _put(rows, operation, now)
        case Delete():
            _delete(rows, operation, now)
            return None
        case Fence():
            _check(rows, operation)
            return None
        case _:
            assert_never(operation)


def _put(rows: Rows, put: Put, now: datetime) -> Stored:
    before = rows.get(put.key)
    if put.expected_version is ABSENT:
        if before is not None:
            raise AlreadyExists(put.key)
    elif put.expected_version is not None:
        if before is None:
            raise NotFound(put.key)
        if before.version != put.expected_version:
            raise Conflict(put.key)
    if put.owner is not None:
        _check_owner(rows, put.key, put.owner)
    if before is None:
        stored = Stored(put.key, put.spec, 1, now, now, put.owner)
    else:
        stored = Stored(put.key, put.spec, before.version + 1, before.creation_time, now, put.owner or before.owner)
    rows.write(stored, new=before is None)
    if put.logged:
        rows.log(put.key, "put", stored.version, now)
    return stored


def _check_owner(rows: Rows, key: ResourceKey, owner: ResourceKey) -> None:
    """The owner exists, and is not owned (through others) by the key itself."""
    link: ResourceKey | None = owner
    while link is not None:
        if link == key:
            raise ValueError(f"{key} cannot own itself through {owner}")
        stored = rows.get(link)
        if stored is None:
            raise NotFound(link)
        link = stored.owner


def _delete(rows: Rows, delete: Delete, now: datetime) -> None:
    stored = rows.get(delete.key)
    if stored is None:
        if delete.missing_ok:
            return
        raise NotFound(delete.key)
    if delete.expected_version is not None and stored.version != delete.expected_version:
        raise Conflict(delete.key)
    _delete_tree(rows, stored, now)


def _delete_tree(rows: Rows, stored: Stored, now: datetime) -> None:
    """Owned things first, so that a follower of the log never sees a thing without its owner."""
    for owned in rows.owned_by(stored.key):
        _delete_tree(rows, owned, now)
    rows.remove(stored.key)
    rows.log(stored.key, "delete", stored.version, now)


def _check(rows: Rows, fence: Fence) -> None:
    lease = rows.get(ResourceKey(LEASE_TYPE, *fence.proxy))
    current = None if lease is None else int(lease.spec["epoch"])
    if current != fence.epoch:
        raise Fenced(fence, current)

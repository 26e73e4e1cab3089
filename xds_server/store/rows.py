"""Reads and writes the tables inside one transaction. Knows SQL and JSON, and nothing of what a batch means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, Select, and_, bindparam, delete, func, insert, select, update

from snapshot.model.meta import ResourceKey
from xds_server.store.contract import Change, LogTrimmed, Page, Stored
from xds_server.store.tables import changes, resources

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_KEY = (
    (resources.c.type == bindparam("key_type"))
    & (resources.c.mesh == bindparam("key_mesh"))
    & (resources.c.name == bindparam("key_name"))
)
_GET = select(resources).where(_KEY)
_WANTED = func.json_each(bindparam("keys")).table_valued("value", name="wanted")
_GET_MANY = select(resources).select_from(
    _WANTED.join(
        resources,
        and_(
            resources.c.type == func.json_extract(_WANTED.c.value, "$[0]"),
            resources.c.mesh == func.json_extract(_WANTED.c.value, "$[1]"),
            resources.c.name == func.json_extract(_WANTED.c.value, "$[2]"),
        ),
    )
)
"""One parameter for any number of keys; SQLite looks each of them up in the index (`IN (VALUES …)` reads the table)."""
_INSERT = insert(resources)
_UPDATE = update(resources).where(_KEY)
_REMOVE = delete(resources).where(_KEY)
_OWNED = (
    select(resources)
    .where(resources.c.owner_type == bindparam("key_type"))
    .where(resources.c.owner_mesh == bindparam("key_mesh"))
    .where(resources.c.owner_name == bindparam("key_name"))
    .order_by(resources.c.type, resources.c.mesh, resources.c.name)
)
_APPEND = insert(changes)
_NEWEST = (
    select(func.max(changes.c.seq).label("seq"), changes.c.type, changes.c.mesh, changes.c.name)
    .where(changes.c.seq > bindparam("after"))
    .group_by(changes.c.type, changes.c.mesh, changes.c.name)
    .order_by(func.max(changes.c.seq))
    .limit(bindparam("most"))
)
_HEAD = select(func.max(changes.c.seq))
_OLDEST = select(func.min(changes.c.seq))
_SPAN = select(func.min(changes.c.seq), func.max(changes.c.seq))

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _key_parameters(key: ResourceKey) -> dict[str, str]:
    return {"key_type": key.type, "key_mesh": key.mesh, "key_name": key.name}


def _stored(row: Row[Any]) -> Stored:
    columns: Sequence[Any] = row
    type_name, mesh, name, version, spec, creation, modification, owner_type, owner_mesh, owner_name = columns
    return Stored(
        ResourceKey(type_name, mesh, name),
        _decode(spec),
        version,
        _EPOCH + timedelta(microseconds=creation),
        _EPOCH + timedelta(microseconds=modification),
        None if owner_type is None else ResourceKey(owner_type, owner_mesh, owner_name),
    )


def get(connection: Connection, key: ResourceKey) -> Stored | None:
    """The row of `key`, or None."""
    row = connection.execute(_GET, _key_parameters(key)).one_or_none()
    return None if row is None else _stored(row)


def get_many(connection: Connection, keys: Iterable[ResourceKey]) -> dict[ResourceKey, Stored]:
    """The rows of those keys that exist: a statement for many costs hardly more than one for one."""
    found = map(_stored, connection.execute(_GET_MANY, {"keys": _encode(list(keys)).decode()}))
    return {stored.key: stored for stored in found}


def everything(connection: Connection) -> list[Stored]:
    """All rows, in no order."""
    return [_stored(row) for row in connection.execute(select(resources))]


def page(
    connection: Connection, type_name: str, mesh: str | None, name_contains: str | None, offset: int, size: int | None
) -> Page:
    """See `ResourceStore.list`."""

    def narrowed(statement: Select[Any]) -> Select[Any]:
        statement = statement.where(resources.c.type == type_name)
        if mesh is not None:
            statement = statement.where(resources.c.mesh == mesh)
        if name_contains:
            statement = statement.where(func.instr(resources.c.name, name_contains) > 0)
        return statement

    total = connection.execute(narrowed(select(func.count()).select_from(resources))).scalar_one()
    statement = narrowed(select(resources)).order_by(resources.c.mesh, resources.c.name).limit(size).offset(offset)
    return Page([_stored(row) for row in connection.execute(statement)], total)


def head(connection: Connection) -> int:
    """The newest number of the log; trimming always leaves that entry."""
    return connection.execute(_HEAD).scalar_one() or 0


def oldest(connection: Connection) -> int:
    """The oldest number that the log still holds, 0 where it is empty."""
    return connection.execute(_OLDEST).scalar_one() or 0


def folded_changes(connection: Connection, after: int, limit: int) -> list[Change]:
    """See `ResourceStore.changes`."""
    first, last = connection.execute(_SPAN).one()
    first, last = first or 1, last or 0
    if not first - 1 <= after <= last:
        raise LogTrimmed(after, first, last)
    newest = connection.execute(_NEWEST, {"after": after, "most": limit}).all()
    keys = [ResourceKey(*parts) for _, *parts in newest]
    found = get_many(connection, keys)
    return [
        Change(row[0], key, "put" if key in found else "delete", found.get(key))
        for row, key in zip(newest, keys, strict=True)
    ]


def trim(connection: Connection, before: int) -> None:
    """Drop the log's entries with numbers below `before`."""
    connection.execute(delete(changes).where(changes.c.seq < before))


Values = dict[str, str | int | None]
"""Parameters of one statement, by name."""


def _written(stored: Stored) -> Values:
    owner = stored.owner or (None, None, None)
    return {
        "version": stored.version,
        "spec": _encode(stored.spec).decode(),
        "modification_time": _microseconds(stored.modification_time),
        "owner_type": owner[0],
        "owner_mesh": owner[1],
        "owner_name": owner[2],
    }


def inserted(stored: Stored) -> Values:
    """The parameters of `insert_all` for a new row; raises TypeError where its spec is no JSON."""
    key = stored.key
    created: Values = {"type": key.type, "mesh": key.mesh, "name": key.name}
    created["creation_time"] = _microseconds(stored.creation_time)
    return created | _written(stored)


def updated(stored: Stored) -> Values:
    """The parameters of `update_all` for a row that is replaced; raises TypeError where its spec is no JSON."""
    return _written(stored) | _key_parameters(stored.key)


def logged(key: ResourceKey, kind: Literal["put", "delete"], version: int, time: datetime) -> Values:
    """The parameters of `append_all` for one entry of the log; `seq` may be added."""
    values: Values = {"type": key.type, "mesh": key.mesh, "name": key.name}
    return values | {"kind": kind, "version": version, "time": _microseconds(time)}


def insert_all(connection: Connection, rows: Sequence[Values]) -> None:
    """Insert rows."""
    connection.execute(_INSERT, rows)


def update_all(connection: Connection, rows: Sequence[Values]) -> None:
    """Replace rows."""
    connection.execute(_UPDATE, rows)


def append_all(connection: Connection, entries: Sequence[Values]) -> None:
    """Append entries that carry their own `seq`."""
    connection.execute(_APPEND, entries)


class SqlRows:
    """Implements `xds_server.store.batch.Rows` on an open transaction; `head` follows the log."""

    def __init__(self, connection: Connection, head: int) -> None:
        self._connection = connection
        self.head = head

    def get(self, key: ResourceKey) -> Stored | None:
        """See `Rows.get`."""
        return get(self._connection, key)

    def owned_by(self, owner: ResourceKey) -> Sequence[Stored]:
        """See `Rows.owned_by`."""
        return [_stored(row) for row in self._connection.execute(_OWNED, _key_parameters(owner))]

    def write(self, stored: Stored, *, new: bool) -> None:
        """See `Rows.write`."""
        if new:
            insert_all(self._connection, [inserted(stored)])
        else:
            update_all(self._connection, [updated(stored)])

    def remove(self, key: ResourceKey) -> None:
        """See `Rows.remove`."""
        self._connection.execute(_REMOVE, _key_parameters(key))

    def log(self, key: ResourceKey, kind: Literal["put", "delete"], version: int, time: datetime) -> None:
        """See `Rows.log`."""
        self.head = self._connection.execute(_APPEND, logged(key, kind, version, time)).lastrowid

"""How SQLite is opened, and what its errors mean to an operator.

WAL with `synchronous=FULL`: a commit that was acknowledged survives kill -9 and a power cut; readers never wait for
the writer and each sees one moment.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from xds_server.store.contract import StoreUnavailable, StoreUnusable

DATABASE_FILE: Final = "store.db"
BUSY_TIMEOUT_MS: Final = 5_000

_REMEDIES: Final = (
    ("SQLITE_FULL", "the disk is full: free some space; nothing of this write was stored"),
    ("SQLITE_BUSY", "another process holds a lock on it: close whatever has it open (a database browser?)"),
    ("SQLITE_LOCKED", "another process holds a lock on it: close whatever has it open (a database browser?)"),
    ("SQLITE_READONLY", "it cannot be written: check the permissions and mount options of the data directory"),
    ("SQLITE_CANTOPEN", "it cannot be opened: check the permissions of the data directory"),
    ("SQLITE_PERM", "it cannot be opened: check the permissions of the data directory"),
    ("SQLITE_NOTADB", "it is damaged or not a database: restore a backup, or start with another --data-dir"),
    ("SQLITE_CORRUPT", "it is damaged: restore a backup, or start with another --data-dir"),
    ("SQLITE_IOERR", "the disk reports an error: check the kernel log and the file system"),
)


def explain(error: Exception, path: Path) -> str:
    """`error` of a database operation as a sentence with the way out."""
    original = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(original, "sqlite_errorname", "")
    remedy = next((text for prefix, text in _REMEDIES if code.startswith(prefix)), None)
    return f"store {path}: {remedy} ({original})" if remedy else f"store {path}: {original or error}"


def unavailable(error: SQLAlchemyError, path: Path) -> StoreUnavailable:
    """What a caller is told of a failed operation."""
    return StoreUnavailable(explain(error, path))


def create_private(path: Path) -> None:
    """Make the file, and its directory, for this user alone: secrets lie in it. Side files inherit the mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreUnusable(
            f"store {path}: {error.strerror}: check the permissions of the data directory, or choose another "
            "with --data-dir"
        ) from error


def engine(path: Path, *, writes: bool) -> Engine:
    """An engine whose every connection has the right settings. One that writes takes the lock as it begins."""
    made = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})

    @event.listens_for(made, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # begin and commit are ours to say
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        if not writes:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @event.listens_for(made, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return made

"""The tables of the SQL stores. Their history is in `migrations/`; the two are compared by a test.

Names, meshes and types compare by their bytes. Times are microseconds since 1970, UTC.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

resources = Table(
    "resources",
    metadata,
    Column("type", String, primary_key=True),
    Column("mesh", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    Column("creation_time", BigInteger, nullable=False),
    Column("modification_time", BigInteger, nullable=False),
    Column("owner_type", String),
    Column("owner_mesh", String),
    Column("owner_name", String),
    Index("resources_owner", "owner_type", "owner_mesh", "owner_name"),
)

# Bodies are not repeated here: a follower reads the newest one from `resources`, and a deleted secret is really gone.
changes = Table(
    "changes",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("type", String, nullable=False),
    Column("mesh", String, nullable=False),
    Column("name", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("time", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

"""Brings a database to the schema that this version of the code works with."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from xds_server.store.contract import StoreUnusable


def migrate(connection: Connection, name: str) -> None:
    """Run the missing revisions inside the connection's transaction; `name` is the database in error texts.

    Raises StoreUnusable for a database that a newer version has written.
    """
    config = Config()
    config.set_main_option("script_location", "xds_server.store:migrations")
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    current = MigrationContext.configure(connection).get_current_revision()
    if current == newest:
        return
    known = {revision.revision for revision in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise StoreUnusable(
            f"{name} has schema {current}, which is newer than this version of kuma-cp knows (up to {newest}): "
            "run the version that wrote it, or start with another --data-dir"
        )
    command.upgrade(config, "head")

"""Runs revisions on the connection that `xds_server.store.schema` brings; Alembic calls this file by its name."""

from __future__ import annotations

from alembic import context

from xds_server.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()

"""Resources and the log of their changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "resources",
        sa.Column("type", sa.String, primary_key=True),
        sa.Column("mesh", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("creation_time", sa.BigInteger, nullable=False),
        sa.Column("modification_time", sa.BigInteger, nullable=False),
        sa.Column("owner_type", sa.String),
        sa.Column("owner_mesh", sa.String),
        sa.Column("owner_name", sa.String),
    )
    op.create_index("resources_owner", "resources", ["owner_type", "owner_mesh", "owner_name"])
    op.create_table(
        "changes",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("mesh", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("changes")
    op.drop_table("resources")

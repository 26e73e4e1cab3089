"""The history of the SQL tables, as Alembic revisions. A revision that was released is never edited."""

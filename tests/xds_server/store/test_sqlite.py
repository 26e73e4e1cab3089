"""What only the SQLite store can get wrong: its file, its directory, its schema, its threads."""

import asyncio
import sqlite3
import stat
import threading
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from tests.support.clock import FakeClock
from tests.support.stores import dataplane, mesh
from xds_server.store import Put, SqlStore, StoreUnavailable, StoreUnusable
from xds_server.store.tables import metadata


async def opened(directory, **options):
    return await SqlStore.open(directory, FakeClock(), **options)


async def test_everything_is_there_after_a_restart(tmp_path):
    store = await opened(tmp_path)
    await store.apply(Put(mesh(), {"n": 1}), Put(dataplane("a"), {}, owner=mesh()))
    before = await store.snapshot()
    await store.close()
    store = await opened(tmp_path)
    assert await store.snapshot() == before
    assert await store.head() == 2
    assert (await store.apply(Put(mesh(), {}))).seq == 3
    await store.close()


async def test_only_the_owner_can_read_it(tmp_path):
    directory = tmp_path / "new" / "data"
    store = await opened(directory)
    await store.apply(Put(mesh(), {}))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == dict.fromkeys(
        ("store.db", "store.db-wal", "store.db-shm", "kuma-cp.lock"), 0o600
    )
    await store.close()


async def test_a_second_control_plane_on_the_directory_is_refused(tmp_path):
    store = await opened(tmp_path)
    with pytest.raises(
        StoreUnusable, match=r"in use by another kuma-cp \(process \d+\): stop that one, or .*--data-dir"
    ):
        await opened(tmp_path)
    await store.close()
    await (await opened(tmp_path)).close()


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path):
    await (await opened(tmp_path)).close()
    database = sqlite3.connect(tmp_path / "store.db")
    with database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(StoreUnusable, match=r"schema 9999, which is newer than this version .*\(up to 0001\)"):
        await opened(tmp_path)
    with pytest.raises(StoreUnusable, match="schema 9999"):  # the lock was released
        await opened(tmp_path)


async def test_migrations_lead_to_the_tables_of_the_code(tmp_path):
    await (await opened(tmp_path)).close()
    made = create_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with made.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    made.dispose()


async def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "store.db").write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StoreUnusable, match="damaged or not a database: restore a backup, or start with another"):
        await opened(tmp_path)


async def test_a_damaged_database_is_refused(tmp_path):
    store = await opened(tmp_path)
    await store.apply(*(Put(dataplane(f"d{n}"), {"padding": "x" * 500}) for n in range(200)))
    await store.close()
    path = tmp_path / "store.db"
    content = bytearray(path.read_bytes())
    content[8192:40960] = b"\xff" * (40960 - 8192)
    path.write_bytes(content)
    with pytest.raises(StoreUnusable, match="damaged: restore a backup"):
        await opened(tmp_path)


async def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnusable, match=r"store .*file/data/store.db: .*--data-dir"):
        await opened(tmp_path / "file" / "data")


async def test_a_full_disk_fails_the_write_and_keeps_what_was_there(tmp_path):
    store = await opened(tmp_path)
    await store.apply(Put(mesh(), {}))
    limit = store._writer._engine
    store._writer._disconnect()
    connection = limit.connect()
    connection.exec_driver_sql("PRAGMA max_page_count=12")
    connection.rollback()
    store._writer._connection = connection
    with pytest.raises(StoreUnavailable, match="the disk is full: free some space; nothing of this write was stored"):
        await store.apply(Put(dataplane("a"), {}), Put(dataplane("b"), {"padding": "x" * 100_000}))
    assert await store.get(dataplane("a")) is None
    await store.apply(Put(dataplane("a"), {}))  # on a new connection, without the limit
    assert await store.head() == 2
    await store.close()


async def test_a_lock_held_by_another_program_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("xds_server.store.sqlite.BUSY_TIMEOUT_MS", 20)
    store = await opened(tmp_path)
    browser = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    browser.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="another process holds a lock on it"):
        await store.apply(Put(mesh(), {}))
    assert await store.get(mesh()) is None
    browser.execute("ROLLBACK")
    browser.close()
    assert (await store.apply(Put(mesh(), {}))).seq == 1
    await store.close()


async def test_concurrent_batches_are_committed_together(tmp_path):
    store = await opened(tmp_path)
    gate, sizes, commit = threading.Event(), [], store._writer._commit

    def gated(group):
        gate.wait(5)
        sizes.append(len(group))
        return commit(group)

    store._writer._commit = gated
    writes = [asyncio.create_task(store.apply(Put(dataplane(f"d{n}"), {}))) for n in range(100)]
    await asyncio.sleep(0.05)
    gate.set()
    await asyncio.gather(*writes)
    assert sum(sizes) == 100
    assert len(sizes) <= 3
    await store.close()


async def test_the_loop_runs_while_the_store_works(tmp_path):
    store = await opened(tmp_path)
    commit = store._writer._commit

    def slow(group):
        time.sleep(0.3)
        return commit(group)

    store._writer._commit = slow
    write = asyncio.create_task(store.apply(Put(mesh(), {})))
    started_s = time.monotonic()
    await asyncio.sleep(0.01)
    assert await store.get(mesh()) is None  # reads do not wait for the writer
    assert time.monotonic() - started_s < 0.25
    assert not write.done()
    await write
    await store.close()


async def test_closing_writes_what_was_accepted(tmp_path):
    store = await opened(tmp_path)
    writes = [asyncio.create_task(store.apply(Put(dataplane(f"d{n}"), {}))) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    store = await opened(tmp_path)
    assert (await store.list("Dataplane")).total == 50
    await store.close()


async def test_a_cancelled_caller_harms_nobody(tmp_path):
    store = await opened(tmp_path)
    write = asyncio.create_task(store.apply(Put(mesh(), {})))
    await asyncio.sleep(0)
    write.cancel()
    await asyncio.gather(write, return_exceptions=True)
    await store.apply(Put(dataplane("a"), {}))
    assert await store.head() == 2
    await store.close()

"""A group of batches in one transaction means what the batches mean one by one, and costs few statements."""

import asyncio
import random

import pytest
from sqlalchemy import event

from snapshot.model.meta import ProxyKey, ResourceKey
from tests.support.clock import FakeClock
from xds_server.store import ABSENT, LEASE_TYPE, Delete, Fence, MemoryStore, Put, SqlStore

MESH = ResourceKey("Mesh", "", "default")
KEYS = [MESH, *(ResourceKey("Dataplane", "default", f"dp-{n}") for n in range(4))]
LEASES = [ResourceKey(LEASE_TYPE, "default", f"dp-{n}") for n in range(2)]


def batch(chance):
    """A few operations, of which many cannot be carried out as they are."""

    def one():
        key = chance.choice([*KEYS, *LEASES])
        if chance.random() < 0.15:
            return Delete(key, chance.choice([None, 1]), missing_ok=chance.random() < 0.5)
        if chance.random() < 0.15:
            return Fence(ProxyKey("default", chance.choice(LEASES).name), chance.randrange(3))
        expected = chance.choice([None, None, ABSENT, 1, 2])
        owner = chance.choice([None, MESH]) if key != MESH else None
        return Put(key, {"epoch": chance.randrange(3)}, expected, owner=owner, logged=chance.random() < 0.8)

    return [one() for _ in range(chance.randint(1, 3))]


async def outcome(work):
    try:
        return await work
    except Exception as error:  # noqa: BLE001  # both stores must refuse alike
        return repr(error)


@pytest.fixture
async def sql(tmp_path):
    store = await SqlStore.open(tmp_path, FakeClock())
    yield store
    await store.close()


@pytest.mark.parametrize("seed", range(12))
async def test_a_group_means_what_its_batches_mean_one_by_one(sql, seed):
    chance = random.Random(seed)
    memory = MemoryStore(FakeClock())
    for _ in range(8):
        batches = [batch(chance) for _ in range(25)]
        together = await asyncio.gather(*(outcome(sql.apply(*operations)) for operations in batches))
        assert together == [await outcome(memory.apply(*operations)) for operations in batches]
        assert await sql.head() == await memory.head()
        assert await sql.changes(0) == await memory.changes(0)
        head, rows = await sql.snapshot()
        assert (head, sorted(rows, key=lambda row: row.key)) == (
            head,
            sorted((await memory.snapshot())[1], key=lambda row: row.key),
        )


async def test_a_storm_of_registrations_costs_few_statements(sql):
    await sql.apply(Put(MESH, {}))
    statements = []
    for engine in sql._engines:
        event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    async def register(n):
        dataplane, lease = ResourceKey("Dataplane", "default", f"p{n}"), ResourceKey(LEASE_TYPE, "default", f"p{n}")
        assert set(await sql.get_many((MESH, dataplane, lease))) == {MESH}
        await sql.apply(Put(dataplane, {}, ABSENT, owner=MESH), Put(lease, {"epoch": n}, ABSENT, owner=dataplane))
        assert set(await sql.get_many((MESH, dataplane, lease))) == {MESH, dataplane, lease}

    await asyncio.gather(*(register(n) for n in range(300)))
    assert len(statements) < 300


async def test_a_read_that_fails_is_told_to_everyone_who_waits(sql):
    await sql.close()
    waiting = await asyncio.gather(*(sql.get(key) for key in KEYS), return_exceptions=True)
    assert {type(error).__name__ for error in waiting} == {"StoreUnavailable"}

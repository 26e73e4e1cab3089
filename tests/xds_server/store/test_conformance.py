"""What every store promises (R §6.4, architecture §6)."""

import asyncio
from datetime import timedelta

import pytest

from snapshot.model.meta import ProxyKey, ResourceKey
from tests.support.clock import EPOCH
from tests.support.stores import STORES, dataplane, insight, lease, mesh, opened
from xds_server.store import (
    ABSENT,
    AlreadyExists,
    Conflict,
    Delete,
    Fence,
    Fenced,
    LogTrimmed,
    NotFound,
    Put,
    StoreUnavailable,
)


async def rows(store):
    return sorted((await store.snapshot())[1])


async def test_versions_count_writes_of_a_key_from_1(store):
    versions = [(await store.apply(Put(mesh(), {"n": n}))).stored[0].version for n in range(3)]
    assert versions == [1, 2, 3]
    await store.apply(Delete(mesh()))
    assert (await store.apply(Put(mesh(), {}))).stored[0].version == 1


async def test_what_was_put_is_read_back(store):
    spec = {
        "networking": {"address": "10.0.0.1", "inbound": [{"port": 1, "tags": {"kuma.io/service": "ü"}}]},
        "x": None,
    }
    applied = await store.apply(Put(dataplane("a"), spec))
    stored = await store.get(dataplane("a"))
    assert stored == applied.stored[0]
    assert stored.spec == spec
    assert await store.get(dataplane("b")) is None
    assert await store.get_many([dataplane("a"), dataplane("b")]) == {dataplane("a"): stored}


async def test_times_come_from_the_clock(store, clock):
    await store.apply(Put(mesh(), {}))
    clock.jump(90.000001)
    await store.apply(Put(mesh(), {}))
    stored = await store.get(mesh())
    assert stored.creation_time == EPOCH
    assert stored.modification_time == EPOCH + timedelta(seconds=90, microseconds=1)


@pytest.mark.parametrize(
    ("operation", "error", "text"),
    [
        (Put(mesh(), {}, ABSENT), AlreadyExists, 'Resource already exists: type="Mesh" name="default" mesh=""'),
        (Put(mesh(), {}, 7), Conflict, 'Resource conflict: type="Mesh" name="default" mesh=""'),
        (Put(mesh("no"), {}, 1), NotFound, 'Resource not found: type="Mesh" name="no" mesh=""'),
        (Put(dataplane("a"), {}, owner=mesh("no")), NotFound, 'Resource not found: type="Mesh" name="no" mesh=""'),
        (Delete(dataplane("a")), NotFound, 'Resource not found: type="Dataplane" name="a" mesh="default"'),
        (Delete(mesh(), 5), Conflict, 'Resource conflict: type="Mesh" name="default" mesh=""'),
        (Fence(ProxyKey("default", "a"), 1), Fenced, "epoch 1 of default.a is over: there is no lease"),
        (Fence(ProxyKey("default", "b"), 1), Fenced, "epoch 1 of default.b is over: the lease is at epoch 2"),
    ],
)
async def test_a_failed_condition_undoes_the_whole_batch(store, operation, error, text):
    await store.apply(Put(mesh(), {"n": 1}), Put(lease("b"), {"epoch": 2}))
    before = await store.head(), await rows(store)
    with pytest.raises(error) as raised:
        await store.apply(Put(dataplane("new"), {}), Put(mesh(), {"n": 2}), operation)
    assert str(raised.value) == text
    assert (await store.head(), await rows(store)) == before
    assert await store.changes(before[0]) == []


async def test_operations_of_a_batch_see_the_ones_before_them(store):
    applied = await store.apply(
        Put(mesh(), {}, ABSENT),
        Put(dataplane("a"), {}, ABSENT),
        Put(lease("a"), {"epoch": 9}, ABSENT, owner=dataplane("a")),
        Fence(ProxyKey("default", "a"), 9),
        Put(mesh(), {"n": 1}, 1),
        Delete(dataplane("a")),
    )
    assert [stored and stored.version for stored in applied.stored] == [1, 1, 1, None, 2, None]
    assert [stored.key for stored in (await store.snapshot())[1]] == [mesh()]


async def test_delete_may_tolerate_what_is_missing(store):
    before = await store.head()
    assert (await store.apply(Delete(mesh(), missing_ok=True))).seq == before


async def test_deleting_an_owner_deletes_what_it_owns_and_logs_each(store):
    await store.apply(Put(mesh(), {}), Put(dataplane("a"), {}, owner=mesh()), Put(dataplane("b"), {}))
    await store.apply(Put(insight("a"), {}, owner=dataplane("a")), Put(lease("a"), {"epoch": 1}, owner=dataplane("a")))
    head = await store.head()
    await store.apply(Delete(mesh()))
    assert [(c.key, c.kind, c.stored) for c in await store.changes(head)] == [
        (insight("a"), "delete", None),
        (lease("a"), "delete", None),
        (dataplane("a"), "delete", None),
        (mesh(), "delete", None),
    ]
    assert [stored.key for stored in (await store.snapshot())[1]] == [dataplane("b")]


async def test_an_update_without_owner_keeps_the_owner(store):
    await store.apply(Put(mesh(), {}), Put(dataplane("a"), {}, owner=mesh()))
    await store.apply(Put(dataplane("a"), {"n": 1}))
    assert (await store.get(dataplane("a"))).owner == mesh()


async def test_the_log_grows_by_one_for_each_change_and_folds_keys(store):
    assert await store.head() == 0
    await store.apply(Put(mesh(), {"n": 1}), Put(dataplane("a"), {}), Put(mesh(), {"n": 2}))
    assert await store.head() == 3
    assert [(c.seq, c.key, c.kind) for c in await store.changes(0)] == [(2, dataplane("a"), "put"), (3, mesh(), "put")]
    assert (await store.changes(2))[0].stored == await store.get(mesh())
    await store.apply(Delete(mesh()))
    assert [(c.seq, c.key, c.kind) for c in await store.changes(1)] == [
        (2, dataplane("a"), "put"),
        (4, mesh(), "delete"),
    ]
    assert [c.seq for c in await store.changes(0, limit=1)] == [2]


async def test_numbers_are_never_used_twice(store):
    await store.apply(Put(mesh(), {}))
    await store.apply(Delete(mesh()))
    await store.apply(Put(mesh(), {}))
    assert [c.seq for c in await store.changes(0)] == [3]


async def test_unlogged_status_wakes_nobody_but_its_deletion_is_logged(store):
    await store.apply(Put(dataplane("a"), {}))
    applied = await store.apply(Put(insight("a"), {"n": 1}, owner=dataplane("a"), logged=False))
    assert applied.seq == 1
    assert (await store.get(insight("a"))).spec == {"n": 1}
    await store.apply(Delete(dataplane("a")))
    assert [c.key for c in await store.changes(1)] == [insight("a"), dataplane("a")]


async def test_lists_are_sorted_filtered_and_paged(store):
    keys = [dataplane(name, m) for m in ("b", "a") for name in ("x2", "x10", "y", "Z")]
    await store.apply(*(Put(key, {}) for key in keys), Put(mesh(), {}))
    page = await store.list("Dataplane")
    assert [item.key for item in page.items] == sorted(keys)
    assert page.total == 8
    assert [i.key.name for i in (await store.list("Dataplane", "a")).items] == ["Z", "x10", "x2", "y"]
    assert [i.key.name for i in (await store.list("Dataplane", "a", name_contains="x")).items] == ["x10", "x2"]
    page = await store.list("Dataplane", offset=3, size=2)
    assert [item.key for item in page.items] == sorted(keys)[3:5]
    assert page.total == 8
    assert await store.list("Dataplane", offset=8, size=5) == ([], 8)
    assert await store.list("Dataplane", size=0) == ([], 8)
    assert await store.list("Nothing") == ([], 0)


async def test_wait_returns_as_soon_as_there_is_more(store):
    waiting = asyncio.create_task(store.wait(1))
    await store.apply(Put(mesh(), {}))
    assert not waiting.done()
    await store.apply(Put(mesh(), {}))
    assert await asyncio.wait_for(waiting, 5) == 2
    assert await store.wait(0) == 2


async def test_a_committed_change_is_readable_when_wait_returns(store):
    async def follow():
        head = await store.wait(0)
        return head, await store.changes(0)

    following = asyncio.create_task(follow())
    await store.apply(Put(mesh(), {}))
    head, changes = await following
    assert changes[-1].seq == head


async def test_concurrent_writers_of_one_version_have_one_winner(store):
    await store.apply(Put(mesh(), {}))
    outcomes = await asyncio.gather(*(store.apply(Put(mesh(), {"n": n}, 1)) for n in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19
    assert (await store.get(mesh())).version == 2


async def test_a_conflict_fails_its_own_batch_only(store):
    await store.apply(Put(mesh(), {}))
    batches = [store.apply(Put(dataplane(f"d{n}"), {}), Put(mesh(), {}, 99 if n % 2 else None)) for n in range(20)]
    outcomes = await asyncio.gather(*batches, return_exceptions=True)
    assert [isinstance(outcome, Conflict) for outcome in outcomes] == [n % 2 == 1 for n in range(20)]
    assert (await store.list("Dataplane")).total == 10
    assert (await store.get(mesh())).version == 11
    seqs = [outcome.seq for outcome in outcomes if not isinstance(outcome, Exception)]
    assert seqs == sorted(seqs)
    assert seqs[-1] == await store.head()


async def test_a_spec_that_is_no_json_fails_its_own_batch_only(tmp_path, clock):
    store = await opened("sqlite", tmp_path, clock)
    good, bad = await asyncio.gather(
        store.apply(Put(mesh(), {})), store.apply(Put(dataplane("a"), {"x": object()})), return_exceptions=True
    )
    assert good.seq == 1
    assert isinstance(bad, TypeError)
    await store.close()


@pytest.mark.parametrize("kind", STORES)
async def test_a_follower_that_is_too_far_behind_is_told(kind, tmp_path, clock):
    store = await opened(kind, tmp_path, clock, kept_changes=10)
    for n in range(30):
        await store.apply(Put(mesh(f"m{n}"), {}))
    with pytest.raises(LogTrimmed, match="cannot continue after 3"):
        await store.changes(3)
    with pytest.raises(LogTrimmed):
        await store.changes(31)
    assert [c.seq for c in await store.changes(20)] == list(range(21, 31))
    assert await store.changes(30) == []
    head, everything = await store.snapshot()
    assert (head, len(everything)) == (30, 30)
    await store.close()


async def test_a_closed_store_says_so(store):
    waiting = asyncio.create_task(store.wait(0))
    await asyncio.sleep(0)
    await store.close()
    for call in (store.get(mesh()), store.apply(Put(mesh(), {})), store.snapshot(), store.list("Mesh"), store.head()):
        with pytest.raises(StoreUnavailable, match="closed"):
            await call
    with pytest.raises(StoreUnavailable, match="closed"):
        await waiting
    await store.close()


@pytest.mark.parametrize("kind", STORES)
async def test_every_operation_is_observed(kind, tmp_path, clock):
    seen = []
    store = await opened(kind, tmp_path, clock, observer=lambda *event: seen.append(event))
    await store.apply(Put(mesh(), {}))
    await store.apply(Put(mesh(), {}))
    await store.get(mesh())
    await store.list("Mesh")
    await store.apply(Delete(mesh()))
    assert [event[:2] for event in seen] == [(op, "Mesh") for op in ("create", "update", "get", "list", "delete")]
    assert all(0 <= event[2] < 5 for event in seen)
    await store.close()


async def test_names_compare_by_their_bytes(store):
    names = ["a", "A", "ä", "a-b", "a.b", "aa"]
    await store.apply(*(Put(ResourceKey("T", "m", name), {}) for name in names))
    assert [item.key.name for item in (await store.list("T")).items] == sorted(names)


async def test_ownership_has_no_circles(store):
    await store.apply(Put(mesh(), {}), Put(dataplane("a"), {}, owner=mesh()))
    for key, owner in ((mesh(), mesh()), (mesh(), dataplane("a"))):
        with pytest.raises(ValueError, match="cannot own itself"):
            await store.apply(Put(key, {}, owner=owner))

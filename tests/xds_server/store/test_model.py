"""Any sequence of batches: every store agrees with a model that is too simple to be wrong."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshot.model.meta import ResourceKey
from tests.support.clock import FakeClock
from tests.support.stores import STORES, opened
from xds_server.store import ABSENT, Delete, Put, StoreError

KEYS = [ResourceKey(t, "m", n) for t in ("A", "B") for n in ("1", "2")]
keys = st.sampled_from(KEYS)
puts = st.builds(
    Put,
    keys,
    st.dictionaries(st.sampled_from("xy"), st.integers(0, 3), max_size=1),
    st.sampled_from([None, None, None, ABSENT, 1, 2]),
    st.sampled_from([None, None, *[k for k in KEYS if k.type == "A"]]),
)
deletes = st.builds(Delete, keys, st.sampled_from([None, None, 1]), st.booleans())
batches = st.lists(st.lists(st.one_of(puts, deletes), min_size=1, max_size=3), max_size=12)


class Model:
    """rows: key → (spec, version, owner); log: every change in order."""

    def __init__(self):
        self.rows, self.log = {}, []

    def batch(self, operations):
        rows, log = dict(self.rows), list(self.log)
        for operation in operations:
            if not (
                self.put(rows, log, operation) if isinstance(operation, Put) else self.delete(rows, log, operation)
            ):
                return False
        self.rows, self.log = rows, log
        return True

    @staticmethod
    def put(rows, log, put):
        old = rows.get(put.key)
        expected = {None: True, ABSENT: old is None}.get(
            put.expected_version, bool(old) and old[1] == put.expected_version
        )
        if not expected or (put.owner and put.owner not in rows):
            return False
        link = put.owner
        while link:
            if link == put.key:
                return False
            link = rows[link][2]
        rows[put.key] = (put.spec, (old[1] if old else 0) + 1, put.owner or (old[2] if old else None))
        log.append(put.key)
        return True

    def delete(self, rows, log, delete):
        if delete.key not in rows:
            return delete.missing_ok
        if delete.expected_version not in (None, rows[delete.key][1]):
            return False
        for key in [k for k, (_, _, owner) in sorted(rows.items()) if owner == delete.key]:
            self.delete(rows, log, Delete(key, missing_ok=True))
        del rows[delete.key]
        log.append(delete.key)
        return True


async def run(kind, history):
    with tempfile.TemporaryDirectory() as directory:
        store = await opened(kind, Path(directory), FakeClock())
        model = Model()
        try:
            for operations in history:
                expected = model.batch(operations)
                try:
                    await store.apply(*operations)
                except (StoreError, ValueError):
                    assert not expected
                else:
                    assert expected
                head, stored = await store.snapshot()
                assert {s.key: (s.spec, s.version, s.owner) for s in stored} == model.rows
                assert head == len(model.log)
            for after in range(len(model.log) + 1):
                newest = {key: seq for seq, key in enumerate(model.log, 1) if seq > after}
                assert [(c.seq, c.key, c.kind) for c in await store.changes(after)] == sorted(
                    (seq, key, "put" if key in model.rows else "delete") for key, seq in newest.items()
                )
        finally:
            await store.close()


@pytest.mark.parametrize("kind", STORES)
@settings(max_examples=30, deadline=None)
@given(history=batches)
def test_any_history_ends_as_in_the_model(kind, history):
    asyncio.run(run(kind, history))

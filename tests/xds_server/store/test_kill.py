"""kill -9 at any instant: everything acknowledged is there, nothing is half there (architecture §6)."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import store_writer
from tests.support.clock import FakeClock
from tests.support.store_writer import COUNTER, deleted_by, pair
from xds_server.store import SqlStore

ROOT = Path(__file__).parents[3]


def killed_while_writing(directory, first, wait_s):
    """The numbers that were acknowledged before the kill."""
    process = subprocess.Popen(
        [sys.executable, store_writer.__file__, directory, str(first)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with process:
        line = process.stdout.readline()
        time.sleep(wait_s)
        process.kill()
        lines = line + process.stdout.read()
    # a number whose line was cut off was acknowledged too, but nobody can tell which it was
    return [int(text) for text in lines.splitlines(keepends=True) if text.endswith("\n")]


async def verify(directory, acknowledged):
    store = await SqlStore.open(directory, FakeClock(), kept_changes=500)
    head, everything = await store.snapshot()
    stored = {row.key: row for row in everything}
    numbers = {row.spec["n"] for row in everything if row.key != COUNTER}
    for number in numbers | set(acknowledged):
        left, right = pair(number)
        assert (left in stored) == (right in stored), f"batch {number} is half there"
    deleted = {earlier for number in numbers for earlier in deleted_by(number)}
    assert not deleted & numbers, "a deletion is half done"
    assert not set(acknowledged) - numbers - deleted, "acknowledged and lost"
    changes = await store.changes(max(0, head - 500))
    assert changes[-1].seq == head
    for change in changes:
        assert (change.kind == "put") == (change.key in stored)
        assert change.stored == stored.get(change.key)
    await store.close()
    return max((row.spec["n"] for row in everything), default=0)


async def rounds(directory, amount, seed):
    chance, first, acknowledged = random.Random(seed), 1, []
    for _ in range(amount):
        acknowledged += killed_while_writing(directory, first, chance.uniform(0, 0.15))
        first = await verify(directory, acknowledged) + 1
    assert len(acknowledged) >= amount


async def test_killed_a_few_times(tmp_path):
    await rounds(tmp_path, 3, seed=1)


@pytest.mark.slow
async def test_killed_many_times(tmp_path):
    await rounds(tmp_path, 60, seed=2)

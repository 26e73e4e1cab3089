"""Writes batches into a store until it is killed, and prints each number once its batch was acknowledged.

Run as a process: `python store_writer.py DIRECTORY FIRST_NUMBER`. Batch n creates `left-n` and `right-n`, raises the
counter, and every third batch deletes the pairs of the two batches before it.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

from snapshot.model.meta import ResourceKey
from xds_server.clock import SystemClock
from xds_server.store import Delete, Put, SqlStore

COUNTER = ResourceKey("Counter", "", "counter")
WRITERS = 5
STRIDE = 3


def pair(number: int) -> tuple[ResourceKey, ResourceKey]:
    return ResourceKey("Left", "m", f"left-{number}"), ResourceKey("Right", "m", f"right-{number}")


def deleted_by(number: int) -> range:
    return range(number - STRIDE + 1, number) if number % STRIDE == 0 else range(0)


async def write(store: SqlStore, numbers: count[int]) -> None:
    for number in numbers:
        left, right = pair(number)
        operations = [Put(left, {"n": number}), Put(COUNTER, {"n": number}), Put(right, {"n": number}, owner=left)]
        if number % STRIDE == 0:
            operations += [Delete(pair(earlier)[0], missing_ok=True) for earlier in deleted_by(number)]
        await store.apply(*operations)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


async def main(directory: str, first: str) -> None:
    store = await SqlStore.open(Path(directory), SystemClock(), kept_changes=500)
    numbers = count(int(first))
    await asyncio.gather(*(write(store, numbers) for _ in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

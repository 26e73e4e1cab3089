"""The stores that the conformance suite runs on, and shorthands for what lies in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from snapshot.model.meta import ResourceKey
from tests.support.clock import FakeClock
from xds_server.store import MemoryStore, ResourceStore, SqlStore
from xds_server.store.contract import Observer
from xds_server.store.observing import unobserved


async def memory(directory: Path, clock: FakeClock, kept_changes: int, observer: Observer) -> ResourceStore:
    return MemoryStore(clock, kept_changes=kept_changes, observer=observer)


async def sqlite(directory: Path, clock: FakeClock, kept_changes: int, observer: Observer) -> ResourceStore:
    return await SqlStore.open(directory / "data", clock, kept_changes=kept_changes, observer=observer)


STORES: dict[str, Callable[[Path, FakeClock, int, Observer], Awaitable[ResourceStore]]] = {
    "memory": memory,
    "sqlite": sqlite,
}


async def opened(
    kind: str,
    directory: Path,
    clock: FakeClock,
    *,
    kept_changes: int = 100_000,
    observer: Observer = unobserved,
) -> ResourceStore:
    return await STORES[kind](directory, clock, kept_changes, observer)


def mesh(name: str = "default") -> ResourceKey:
    return ResourceKey("Mesh", "", name)


def dataplane(name: str, mesh_name: str = "default") -> ResourceKey:
    return ResourceKey("Dataplane", mesh_name, name)


def insight(name: str, mesh_name: str = "default") -> ResourceKey:
    return ResourceKey("DataplaneInsight", mesh_name, name)


def lease(name: str, mesh_name: str = "default") -> ResourceKey:
    return ResourceKey("Lease", mesh_name, name)

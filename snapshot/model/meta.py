"""What every stored resource has around its spec: its key, its version in the store, its times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, NewType

import msgspec


class EnumNames(NamedTuple):
    """Mark of a string that the schema knows as an enum: read by name or number, printed by name."""

    names: tuple[str, ...]


Duration = NewType("Duration", int)
"""A length of time in nanoseconds. Written in Go's syntax (`1h30m`), printed as seconds (`90.500s`), R §0."""

UInt64 = Annotated[int, "uint64"]
"""A 64-bit integer, printed as a string; a plain `int` in a spec is a uint32 (R §0)."""

NANOSECONDS = 1_000_000_000
NO_TIME = datetime(1, 1, 1, tzinfo=UTC)
"""The zero time, printed as `0001-01-01T00:00:00Z`."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every message inside a resource: frozen, hashable, compared by value.

    Encoding follows the annotations (R §0, `codec.py`): a field with a default that is not None is a plain proto3
    field (never printed at its default); `T | None` is a wrapper or a message, whose presence matters. The order of
    the fields is the order of printing.
    """


class OneOf(Spec, frozen=True, kw_only=True):
    """Base of messages whose fields exclude each other: at most one may be present."""


class Unsupported(Spec, frozen=True, kw_only=True):
    """A part that is recognised only to be refused by name; what it holds is not looked at."""


class ResourceKey(NamedTuple):
    """Identity of a stored resource. `mesh` is "" for global types."""

    type: str
    mesh: str
    name: str


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One stored resource.

    `version` counts the store's writes of this key, from 1. Times are UTC.
    `spec` is the frozen value of the type named by `key.type` (see `snapshot.registry`).
    """

    key: ResourceKey
    spec: Any
    version: int = 0
    creation_time: datetime = NO_TIME
    modification_time: datetime = NO_TIME


class ProxyKey(NamedTuple):
    """Identity of a data plane proxy: the key of its Dataplane without the type. Node id: `<mesh>.<name>`."""

    mesh: str
    name: str

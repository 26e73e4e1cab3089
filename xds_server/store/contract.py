"""What a store of resources promises. Every store passes the same conformance suite (`tests/xds_server/store`).

The store knows resources as JSON objects. Never here: what a type means, validation, defaults.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Protocol

from snapshot.model.meta import ProxyKey, ResourceKey

Spec = Mapping[str, Any]
"""A spec as `snapshot.model.codec.encode_spec` writes it. Treat it as frozen: stores hand out shared objects."""

LEASE_TYPE: Final = "Lease"
"""Internal type: the lease of a proxy, under the proxy's mesh and name, owned by its Dataplane (`registration/`)."""

Observer = Callable[[str, str, float], None]
"""Told of every operation: (create | update | delete | get | list, resource type, seconds)."""


class Stored(NamedTuple):
    """One resource as it lies in the store. `version` counts the writes of this key, from 1. Times are UTC."""

    key: ResourceKey
    spec: Spec
    version: int
    creation_time: datetime
    modification_time: datetime
    owner: ResourceKey | None = None


class Absent(enum.Enum):
    """Type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""As `expected_version`: there must be no such resource yet."""


@dataclass(frozen=True, slots=True)
class Put:
    """Create or replace a resource.

    `expected_version` None takes what is there. `owner` must exist, and None keeps the owner that is stored.
    `logged=False` is for status that changes all the time and that no follower acts on: it writes no log entry.
    """

    key: ResourceKey
    spec: Spec
    expected_version: int | Absent | None = None
    owner: ResourceKey | None = None
    logged: bool = True


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a resource and, in turn, everything it owns. Missing: `NotFound`, unless `missing_ok`."""

    key: ResourceKey
    expected_version: int | None = None
    missing_ok: bool = False


@dataclass(frozen=True, slots=True)
class Fence:
    """Condition: `epoch` is that of the proxy's current lease; else the batch fails with `Fenced`."""

    proxy: ProxyKey
    epoch: int


Operation = Put | Delete | Fence


class Applied(NamedTuple):
    """A batch that is durable. `seq` is the head of the log after it; `stored` goes with the operations one by one."""

    seq: int
    stored: tuple[Stored | None, ...]


class Page(NamedTuple):
    """A part of a list, and how many resources the whole list has."""

    items: Sequence[Stored]
    total: int


class Change(NamedTuple):
    """The newest change of one key; `stored` is what lies there at `seq`, None for a delete."""

    seq: int
    key: ResourceKey
    kind: Literal["put", "delete"]
    stored: Stored | None


class StoreError(Exception):
    """Base of everything a store raises on purpose."""


class KeyedError(StoreError):
    """An operation failed for a resource; the text is Kuma's (R §6.4)."""

    text = ""

    def __init__(self, key: ResourceKey) -> None:
        self.key = key
        super().__init__(f'{self.text}: type="{key.type}" name="{key.name}" mesh="{key.mesh}"')


class NotFound(KeyedError):  # noqa: N818  # named as the outcome that callers tell apart
    """There is no such resource."""

    text = "Resource not found"


class AlreadyExists(KeyedError):  # noqa: N818  # as NotFound
    """`ABSENT` was expected."""

    text = "Resource already exists"


class Conflict(KeyedError):  # noqa: N818  # as NotFound
    """The version is not the expected one: somebody else wrote in between."""

    text = "Resource conflict"


class Fenced(StoreError):  # noqa: N818  # as NotFound
    """The lease has passed to a newer stream, or is gone."""

    def __init__(self, fence: Fence, current: int | None) -> None:
        self.fence = fence
        self.current = current
        now = "there is no lease" if current is None else f"the lease is at epoch {current}"
        super().__init__(f"epoch {fence.epoch} of {fence.proxy.mesh}.{fence.proxy.name} is over: {now}")


class LogTrimmed(StoreError):  # noqa: N818  # as NotFound
    """The log does not continue from the given number: start over from `snapshot()`."""

    def __init__(self, after: int, oldest: int, head: int) -> None:
        self.after = after
        super().__init__(f"the change log holds numbers {oldest} to {head} and cannot continue after {after}")


class StoreUnavailable(StoreError):  # noqa: N818  # as NotFound
    """The storage failed (disk full, locked, closed); nothing of the batch was written. Later calls may succeed."""


class StoreUnusable(StoreError):  # noqa: N818  # as NotFound
    """The store cannot be opened, and waiting will not help; the text says what does."""


class ResourceStore(Protocol):
    """Resources by key, an append-only log of their changes, atomic batches.

    Numbers of the log grow by one for each logged change and are never used twice, whatever is deleted or trimmed.
    """

    @property
    def single_instance(self) -> bool:
        """Whether no other control plane can be at work on this store."""
        ...

    async def get(self, key: ResourceKey) -> Stored | None:
        """The resource, or None."""
        ...

    async def get_many(self, keys: Sequence[ResourceKey]) -> dict[ResourceKey, Stored]:
        """Those of `keys` that exist, all seen at one moment."""
        ...

    async def list(
        self,
        type_name: str,
        mesh: str | None = None,
        *,
        name_contains: str | None = None,
        offset: int = 0,
        size: int | None = None,
    ) -> Page:
        """Resources of a type (of one mesh), sorted by (mesh, name); `size` None means all that follow `offset`."""
        ...

    async def apply(self, *operations: Operation) -> Applied:
        """Carry out all operations in order, or none; returns when they are durable.

        Raises NotFound, AlreadyExists, Conflict, Fenced, StoreUnavailable.
        """
        ...

    async def changes(self, after: int, limit: int = 10_000) -> Sequence[Change]:
        """The log after `after`, folded: each key once, at its newest number, sorted by number. Raises LogTrimmed."""
        ...

    async def head(self) -> int:
        """The newest number of the log, 0 before the first change."""
        ...

    async def wait(self, after: int) -> int:
        """Return the head as soon as it is greater than `after`."""
        ...

    async def snapshot(self) -> tuple[int, Sequence[Stored]]:
        """The head, and everything that is stored at exactly that number."""
        ...

    async def close(self) -> None:
        """Finish what was accepted and let go of the storage. Later calls raise StoreUnavailable."""
        ...

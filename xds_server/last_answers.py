"""The last answers about domain names, kept in the store: a restart while DNS is broken changes nothing (R §1.2).

Written by a task of its own, in batches, and only what differs from what lies there; nothing waits for it.
Never here: asking (`resolver`), which names are in use (`reconciler`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Container, Iterable
from typing import Final

import structlog

from snapshot.model.meta import ResourceKey
from snapshot.topology.mesh_context import is_ip
from xds_server.clock import Clock
from xds_server.store import Delete, Operation, Put, ResourceStore, Stored, StoreError

RESOLVED_NAME_TYPE: Final = "ResolvedName"
"""Internal type: what a domain name was last resolved to, `{"address": ip}`, under that name, in no mesh."""
GATHER_S: Final = 0.05
"""How long answers are gathered before they are written: as much as kill -9 can take."""
BATCH: Final = 500
"""Most answers in one write: bounds how long registrations wait behind it."""
RETRY_S: Final = 5.0

_log = structlog.get_logger(__name__)


class LastAnswers:
    """What lies in the store is brought to what is in use and answered. `load` before `start`."""

    def __init__(self, store: ResourceStore, clock: Clock, in_use: Container[str]) -> None:
        """`in_use` is looked at when something is written: whoever changes it calls `mark`."""
        self._store = store
        self._clock = clock
        self._in_use = in_use
        self._addresses: dict[str, str] = {}  # never forgotten, like the engine's: a name may come back into use
        self._stored: dict[str, str | None] = {}
        self._marked: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def load(self, everything: Iterable[Stored]) -> None:
        """Take what an earlier process left among `everything` that is stored."""
        for stored in everything:
            if stored.key.type != RESOLVED_NAME_TYPE:
                continue
            name, address = stored.key.name, stored.spec.get("address")
            if isinstance(address, str) and is_ip(address):
                self._addresses[name] = self._stored[name] = address
            else:
                _log.error("a stored answer about a domain name is no address and is ignored", name=name)
                self._stored[name] = None
            self.mark(name)

    def known(self, names: Iterable[str]) -> dict[str, str]:
        """The addresses of those of `names` that were ever answered."""
        return {name: self._addresses[name] for name in names if name in self._addresses}

    def answered(self, name: str, address: str) -> None:
        """The name has this address now."""
        if self._addresses.get(name) != address:
            self._addresses[name] = address
            self.mark(name)

    def removed(self, name: str) -> None:
        """Somebody took it out of the store, perhaps another control plane that does not use the name."""
        self._stored.pop(name, None)
        self.mark(name)

    def mark(self, name: str) -> None:
        """What is stored of the name may differ from what should be: it came into use or went out of it, say."""
        self._marked[name] = None
        self._wake.set()

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="last-answers")

    async def stop(self) -> None:
        """Write what is not written yet, and end."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self._flush()
        except StoreError as error:
            _log.warning("the last answers about domain names could not be stored", reason=str(error))

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await self._clock.sleep(GATHER_S)
            self._wake.clear()
            try:
                await self._flush()
            except StoreError as error:
                _log.warning("answers about domain names could not be stored; trying again", reason=str(error))
            except Exception:  # noqa: BLE001  # what was answered is in force all the same
                _log.exception("answers about domain names could not be stored; trying again")
            else:
                continue
            await self._clock.sleep(RETRY_S)
            self._wake.set()

    async def _flush(self) -> None:
        while self._marked:
            names = list(itertools.islice(self._marked, BATCH))
            for name in names:
                del self._marked[name]
            try:
                await self._write(names)
            except BaseException:
                self._marked.update(dict.fromkeys(names))
                raise

    async def _write(self, names: Iterable[str]) -> None:
        wanted = {name: self._addresses.get(name) if name in self._in_use else None for name in names}
        operations: list[Operation] = []
        for name, address in wanted.items():
            key = ResourceKey(RESOLVED_NAME_TYPE, "", name)
            if address is not None and address != self._stored.get(name):
                operations.append(Put(key, {"address": address}, logged=False))
            elif address is None and name in self._stored:
                operations.append(Delete(key, missing_ok=True))
        if not operations:
            return
        await self._store.apply(*operations)
        for operation in operations:
            match operation:
                case Put(key, spec):
                    self._stored[key.name] = spec["address"]
                case Delete(key):
                    self._stored.pop(key.name, None)

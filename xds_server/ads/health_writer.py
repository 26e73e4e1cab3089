"""Writes what checkers say into the Dataplanes: in batches, only what differs, never against a newer owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from snapshot.model.codec import decode_spec, encode_spec
from snapshot.model.dataplane import Dataplane, Health
from snapshot.model.meta import ProxyKey, ResourceKey
from xds_server.ads.ports import Dataplanes, Observer
from xds_server.clock import Clock
from xds_server.store.contract import Conflict, Fence, Fenced, NotFound, Operation, Put, ResourceStore, StoreError

GATHER_S: Final = 0.02
"""How long reports are gathered: a storm of them becomes a few group commits."""
RETRY_S: Final = 1.0
"""Pause after the store failed; newer reports replace the older ones meanwhile."""
AT_ONCE: Final = 500
"""Proxies read and written at a time."""


def with_readiness(dataplane: Dataplane, ready: Mapping[int, bool]) -> Dataplane:
    """The Dataplane with `health.ready` of every inbound whose workload port is named; itself where nothing differs."""
    networking = dataplane.networking
    if networking is None:
        return dataplane
    inbounds = tuple(
        msgspec.structs.replace(inbound, health=Health(ready=ready[inbound.workload_port]))
        if inbound.service_probe is not None
        and inbound.workload_port in ready
        and (inbound.health is None or inbound.health.ready != ready[inbound.workload_port])
        else inbound
        for inbound in networking.inbound
    )
    if inbounds == networking.inbound:
        return dataplane
    return msgspec.structs.replace(dataplane, networking=msgspec.structs.replace(networking, inbound=inbounds))


class HealthWriter:
    """A `HealthSink` over the store. `epoch` answers the current lease of a proxy, None where it has none.

    Reports of one proxy between two batches fold into the newest.
    """

    def __init__(
        self,
        store: ResourceStore,
        dataplanes: Dataplanes,
        observer: Observer,
        clock: Clock,
        epoch: Callable[[ProxyKey], int | None] = lambda _proxy: None,
    ) -> None:
        self._store = store
        self._dataplanes = dataplanes
        self._observer = observer
        self._clock = clock
        self._epoch = epoch
        self._pending: dict[ProxyKey, dict[int, bool]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write, in a task of its own."""
        self._task = asyncio.create_task(self._run(), name="health-writer")

    async def stop(self) -> None:
        """End; what is not written yet is reported again by the next stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def report(self, proxy: ProxyKey, ready: Mapping[int, bool]) -> None:
        """Readiness by workload port. What the Dataplane says already costs nothing further."""
        if proxy in self._pending:
            self._pending[proxy].update(ready)
            return
        dataplane = self._dataplanes.get(proxy)
        if dataplane is not None and with_readiness(dataplane, ready) is not dataplane:
            self._pending[proxy] = dict(ready)
            self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await self._clock.sleep(GATHER_S)
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending now."""
        batch, self._pending = self._pending, {}
        proxies = list(batch)
        for start in range(0, len(proxies), AT_ONCE):
            part = {proxy: batch[proxy] for proxy in proxies[start : start + AT_ONCE]}
            try:
                again = await self._write(part)
            except StoreError as error:
                self._observer.log("warning", "readiness could not be written; trying again", error=str(error))
                again = part
                await self._clock.sleep(RETRY_S)
            for proxy, ready in again.items():
                self._pending[proxy] = {**ready, **self._pending.get(proxy, {})}
                self._wake.set()

    async def _write(self, batch: Mapping[ProxyKey, dict[int, bool]]) -> dict[ProxyKey, dict[int, bool]]:
        """Write each proxy on its own, side by side: the store groups them. Answers those that met another writer."""
        keys = {proxy: ResourceKey("Dataplane", proxy.mesh, proxy.name) for proxy in batch}
        stored = await self._store.get_many(list(keys.values()))
        writes: dict[ProxyKey, list[Operation]] = {}
        for proxy, key in keys.items():
            if key not in stored:
                continue
            dataplane = decode_spec("Dataplane", stored[key].spec).spec
            changed = with_readiness(dataplane, batch[proxy])
            if changed is not dataplane:
                put = Put(key, encode_spec(changed), expected_version=stored[key].version)
                epoch = self._epoch(proxy)
                writes[proxy] = [put] if epoch is None else [Fence(proxy, epoch), put]
        results = await asyncio.gather(
            *(self._store.apply(*operations) for operations in writes.values()), return_exceptions=True
        )
        again: dict[ProxyKey, dict[int, bool]] = {}
        for proxy, result in zip(writes, results, strict=True):
            match result:
                case Conflict():
                    again[proxy] = batch[proxy]
                case NotFound() | Fenced():
                    pass  # the Dataplane has gone, or belongs to a newer stream, which reports for itself
                case BaseException():
                    raise result
        return again

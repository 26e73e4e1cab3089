"""DataplaneInsights: what each stream of a proxy did, counted in memory and written in batches (R §9.1, §9.2).

At most one write a second for all proxies; the first change after quiet is written at once. Insights are owned by
their Dataplane, go with it, and wake nobody (they leave no entry in the log).
Never here: leases, metrics.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from snapshot.cache import type_url
from snapshot.model.codec import DecodeError, decode_spec, encode_spec
from snapshot.model.insight import (
    DataplaneInsight,
    DiscoveryServiceStats,
    DiscoveryStatus,
    DiscoverySubscription,
    Version,
)
from snapshot.model.meta import ProxyKey, ResourceKey
from xds_server.clock import Clock
from xds_server.store import Conflict, NotFound, Put, ResourceStore, Spec, StoreError

FLUSH_S: Final = 1.0
BATCH: Final = 500
"""Most insights in one write: bounds how long registrations wait behind it. The others follow a second later."""
PER_TURN: Final = 50
"""Most insights that are put together before others have their turn in the loop (XP-128)."""
INSIGHT_TYPE: Final = "DataplaneInsight"
COUNTERS: Final = {
    type_url.CLUSTER: "cds",
    type_url.ENDPOINT: "eds",
    type_url.LISTENER: "lds",
    type_url.ROUTE: "rds",
}
"""Types that are counted by themselves; all others only in `total`."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Stats:
    sent: int = 0
    acknowledged: int = 0
    rejected: int = 0

    def frozen(self) -> DiscoveryServiceStats:
        return DiscoveryServiceStats(
            responses_sent=self.sent,
            responses_acknowledged=self.acknowledged,
            responses_rejected=self.rejected,
        )


@dataclass(slots=True, eq=False)
class Subscription:
    """One stream as it is counted. The methods are called in the loop, and only count."""

    proxy: ProxyKey
    id: str
    connect_time: datetime
    version: Version | None
    _changed: Callable[[Subscription], None]
    _clock: Clock
    closed_time: datetime | None = None
    last_update_time: datetime | None = None
    stats: dict[str, _Stats] = field(default_factory=lambda: {name: _Stats() for name in ("total", *COUNTERS.values())})

    def sent(self, url: str) -> None:
        """A response of this type was written."""
        for stats in self._counted(url):
            stats.sent += 1

    def acknowledged(self, url: str) -> None:
        """A request answered a response, without an error."""
        for stats in self._counted(url):
            stats.acknowledged += 1

    def rejected(self, url: str) -> None:
        """A request refused a response."""
        for stats in self._counted(url):
            stats.rejected += 1

    def closed(self) -> None:
        """The stream is gone. Twice is as good as once."""
        if self.closed_time is None:
            self.closed_time = self._clock.now()
            self._changed(self)

    def _counted(self, url: str) -> Iterable[_Stats]:
        self.last_update_time = self._clock.now()
        self._changed(self)
        name = COUNTERS.get(url)
        return (self.stats["total"],) if name is None else (self.stats["total"], self.stats[name])

    def frozen(self, instance_id: str, disconnect_time: datetime | None) -> DiscoverySubscription:
        """The subscription as it is stored."""
        return DiscoverySubscription(
            id=self.id,
            control_plane_instance_id=instance_id,
            connect_time=self.connect_time,
            disconnect_time=disconnect_time,
            version=self.version,
            status=DiscoveryStatus(
                last_update_time=self.last_update_time,
                **{name: stats.frozen() for name, stats in self.stats.items()},
            ),
        )


async def nobody_else(_instance_id: str) -> bool:
    """Whether another control plane is alive, where there can be none."""
    return False


class Insights:
    """Counts and writes. `start` before the first stream."""

    def __init__(
        self,
        store: ResourceStore,
        clock: Clock,
        *,
        instance_id: str,
        subscription_limit: int = 2,
        instance_alive: Callable[[str], Awaitable[bool]] = nobody_else,
    ) -> None:
        self._store = store
        self._clock = clock
        self._instance_id = instance_id
        self._limit = subscription_limit
        self._instance_alive = instance_alive
        self._subscriptions: dict[ProxyKey, list[Subscription]] = {}
        # insertion-ordered sets; connects and disconnects go before counters
        self._urgent: dict[ProxyKey, None] = {}
        self._counted: dict[ProxyKey, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to close what a process that is gone left open, and to write as things change."""
        self._task = asyncio.create_task(self._run(), name="insights")

    async def stop(self) -> None:
        """Close every stream and write what is not written yet."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for subscription in [one for known in self._subscriptions.values() for one in known]:
            subscription.closed()
        try:
            while self._urgent or self._counted:
                await self._flush()
        except StoreError as error:
            _log.warning("the last insights could not be stored", reason=str(error))

    def opened(self, proxy: ProxyKey, version: Mapping[str, Any] | None = None) -> Subscription:
        """A stream of the proxy was admitted; `version` is what its node metadata says of kuma-dp and Envoy."""
        subscription = Subscription(
            proxy, str(uuid.uuid4()), self._clock.now(), _version(proxy, version), self._changed, self._clock
        )
        self._subscriptions.setdefault(proxy, []).append(subscription)
        self._mark(self._urgent, proxy)
        return subscription

    # Writing

    def _changed(self, subscription: Subscription) -> None:
        self._mark(self._urgent if subscription.closed_time else self._counted, subscription.proxy)

    def _mark(self, marks: dict[ProxyKey, None], proxy: ProxyKey) -> None:
        marks[proxy] = None
        self._wake.set()

    async def _run(self) -> None:
        await self._guarded(self._close_left_open())
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._guarded(self._flush())
            if self._urgent or self._counted:
                self._wake.set()
            await self._clock.sleep(FLUSH_S)

    @staticmethod
    async def _guarded(writing: Awaitable[None]) -> None:
        try:
            await writing
        except StoreError as error:
            _log.warning("insights could not be stored", reason=str(error))
        except Exception:  # noqa: BLE001  # insights are only told; their faults must not end the telling
            _log.exception("insights could not be stored")

    async def _flush(self) -> None:
        """Write the insights of at most BATCH proxies in one transaction."""
        batch = list(itertools.islice(dict.fromkeys((*self._urgent, *self._counted)), BATCH))
        for proxy in batch:
            self._urgent.pop(proxy, None)
            self._counted.pop(proxy, None)
        try:
            await self._write(batch)
        except BaseException:
            self._counted.update(dict.fromkeys(batch))
            raise
        for proxy in batch:
            self._forget_closed(proxy)

    async def _write(self, batch: list[ProxyKey]) -> None:
        found = await self._store.get_many(
            [ResourceKey(kind, *proxy) for proxy in batch for kind in ("Dataplane", INSIGHT_TYPE)]
        )
        puts: dict[ResourceKey, Put] = {}
        for count, proxy in enumerate(batch, 1):
            owner, key = ResourceKey("Dataplane", *proxy), ResourceKey(INSIGHT_TYPE, *proxy)
            if owner in found:  # no insight outlives its Dataplane
                stored = found.get(key)
                puts[owner] = Put(key, self._spec(proxy, stored.spec if stored else {}), owner=owner, logged=False)
            if count % PER_TURN == 0:
                await asyncio.sleep(0)  # what is counted meanwhile is marked, and written next time
        while puts:
            try:
                await self._store.apply(*puts.values())
            except NotFound as error:
                if puts.pop(error.key, None) is None:
                    raise
            else:
                return

    def _spec(self, proxy: ProxyKey, stored: Spec) -> dict[str, Any]:
        """What is stored, with this instance's subscriptions in it: the newest few, one open at most (R §9.2)."""
        mine = self._subscriptions.get(proxy, [])
        live = [one for one in mine if one.closed_time is None]
        newest = live[-1] if live else None
        frozen: list[DiscoverySubscription] = []
        for subscription, successor in itertools.zip_longest(mine, mine[1:]):
            ended = subscription.closed_time
            if ended is None and subscription is not newest:
                ended = successor.connect_time
            frozen.append(subscription.frozen(self._instance_id, ended))
        ids = {subscription.id for subscription in frozen}
        others = [one for one in _stored_insight(stored).subscriptions if one.id not in ids]
        if newest is not None:
            others = [_closed_by(one, newest.connect_time) for one in others]
        merged = sorted((*others, *frozen), key=_connected)
        return encode_spec(DataplaneInsight(subscriptions=tuple(merged[max(0, len(merged) - self._limit) :])))

    def _forget_closed(self, proxy: ProxyKey) -> None:
        """What was written and is closed needs no memory, as long as the marks say that nothing happened since."""
        if proxy in self._urgent or proxy in self._counted:
            return
        live = [one for one in self._subscriptions.get(proxy, ()) if one.closed_time is None]
        if live:
            self._subscriptions[proxy] = live
        else:
            self._subscriptions.pop(proxy, None)

    async def _close_left_open(self) -> None:
        """Streams of instances that are gone ended with them; nobody else will say so."""
        now = self._clock.now()
        left: list[Put] = []
        for stored in (await self._store.list(INSIGHT_TYPE)).items:
            subscriptions = _stored_insight(stored.spec).subscriptions
            closed = tuple([await self._closed_if_left(one, now) for one in subscriptions])
            if closed != subscriptions:
                spec = encode_spec(DataplaneInsight(subscriptions=closed))
                left.append(Put(stored.key, spec, stored.version, logged=False))
        for start in range(0, len(left), BATCH):
            writes = (self._store.apply(put) for put in left[start : start + BATCH])
            for outcome in await asyncio.gather(*writes, return_exceptions=True):
                # a newer stream has written, or the Dataplane went, in between: both leave nothing to be done here
                if isinstance(outcome, BaseException) and not isinstance(outcome, Conflict | NotFound):
                    raise outcome

    async def _closed_if_left(self, subscription: DiscoverySubscription, now: datetime) -> DiscoverySubscription:
        if subscription.disconnect_time is not None:
            return subscription
        if await self._instance_alive(subscription.control_plane_instance_id):
            return subscription
        return msgspec.structs.replace(subscription, disconnect_time=now)


def _insight(spec: Spec) -> DataplaneInsight:
    insight: DataplaneInsight = decode_spec(INSIGHT_TYPE, spec).spec
    return insight


def _stored_insight(spec: Spec) -> DataplaneInsight:
    """What is stored; one that cannot be read counts as empty, and the next write replaces it."""
    try:
        return _insight(spec)
    except DecodeError as error:
        _log.warning("a stored insight cannot be read and is replaced", reason=str(error))
        return DataplaneInsight()


def _connected(subscription: DiscoverySubscription) -> float:
    return subscription.connect_time.timestamp() if subscription.connect_time else 0.0


def _closed_by(subscription: DiscoverySubscription, successor_time: datetime) -> DiscoverySubscription:
    """A new stream ends every older one that is still open."""
    if subscription.disconnect_time is not None or _connected(subscription) > successor_time.timestamp():
        return subscription
    return msgspec.structs.replace(subscription, disconnect_time=successor_time)


def _version(proxy: ProxyKey, version: Mapping[str, Any] | None) -> Version | None:
    if not version:
        return None
    try:
        subscription = _insight({"subscriptions": [{"version": version}]}).subscriptions[0]
    except DecodeError as error:
        _log.warning("the version in a node's metadata cannot be read", proxy=proxy, reason=str(error))
        return None
    return subscription.version

"""Carries out what the rules of leases say: writes fenced batches, keeps count of the streams of this instance.

One lock for each proxy, so that its events are dealt with one after the other; one timer for all. Never sleeps in the
path of a registration. Never here: the rules themselves (`lease.py`), who may connect (`xds_server.tokens`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import structlog

from snapshot.model.codec import decode_spec, encode_spec
from snapshot.model.dataplane import Dataplane
from snapshot.model.meta import ProxyKey, ResourceKey
from snapshot.model.rules.mesh import membership_refusal
from snapshot.model.validation import Violation
from xds_server.clock import Clock
from xds_server.registration.dataplane import prepared
from xds_server.registration.deadlines import Deadlines
from xds_server.registration.instances import FRESH_S, Instances
from xds_server.registration.lease import (
    Bid,
    Ending,
    Lease,
    Patience,
    Verdict,
    admit,
    after_last_stream,
    goes_at_s,
    next_epoch,
)
from xds_server.store import (
    ABSENT,
    LEASE_TYPE,
    AlreadyExists,
    Conflict,
    Delete,
    Fence,
    Fenced,
    NotFound,
    Operation,
    Put,
    ResourceStore,
    Stored,
    StoreError,
)

ATTEMPTS: Final = 10
"""Each conflict means that another writer of the same Dataplane got through, so this many in a row is a fight."""
RETRY_S: Final = 1.0
PREFIX: Final = "could not register dataplane passed in kuma-dp run: "

Watch = Callable[[ResourceKey, Callable[[Stored | None], None]], Callable[[], None]]
"""`Reconciler.watch`."""
Validate = Callable[[Dataplane, str, str], Sequence[Violation]]
"""(spec, mesh, name) → violations: `registry.descriptor("Dataplane").validate`."""

_log = structlog.get_logger(__name__)


class Refused(Exception):  # noqa: N818  # an outcome, told to the client word for word
    """The registration is refused; the text says why and what to do."""


async def answers() -> bool:
    """The probe of a stream that is known to be alive as long as it is not released."""
    return True


def unheard(reason: str) -> None:
    """Nobody wants to know that a lease ended."""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What a stream asks for.

    `dataplane` is what `kuma-dp run` sent along, None where the Dataplane must be stored already. `holder` names the
    peer to people. `authorises(stored)` is None, or why the caller's credential does not reach the stored Dataplane.
    `is_alive` asks the peer of this stream, bounded in time. `ended(reason)` is called in the loop when an operator
    deletes the Dataplane or another owner takes over.
    """

    proxy: ProxyKey
    dataplane: Dataplane | None = None
    run_id: str = ""
    holder: str = ""
    authorises: Callable[[Dataplane], str | None] = lambda _stored: None
    is_alive: Callable[[], Awaitable[bool]] = answers
    ended: Callable[[str], None] = unheard


class Hold(NamedTuple):
    """One stream's part in the lease of its proxy; give it to `release` when the stream is gone."""

    proxy: ProxyKey
    stream: int


@dataclass(slots=True, eq=False)
class _Proxy:
    """What this instance knows of one proxy. `lease` is None where it owns none: not registered by it, or lost."""

    streams: dict[int, Claim] = field(default_factory=dict)
    lease: Lease | None = None
    last_ended: tuple[int, Ending] = (0, Ending.SHUTDOWN)
    unwatch: Callable[[], None] | None = None


class Registrar:
    """Registers, and in time removes, the Dataplanes of `kuma-dp run`. `start` before the first `register`."""

    def __init__(
        self,
        store: ResourceStore,
        watch: Watch,
        clock: Clock,
        *,
        instance_id: str,
        validate: Validate,
        zone: str = "",
        patience: Patience | None = None,
    ) -> None:
        self._store = store
        self._watch = watch
        self._clock = clock
        self._instance_id = instance_id
        self._validate = validate
        self._zone = zone
        self._patience = patience or Patience()
        self._proxies: dict[ProxyKey, _Proxy] = {}
        self._streams = 0
        self._locks: weakref.WeakValueDictionary[ProxyKey, asyncio.Lock] = weakref.WeakValueDictionary()
        self._deadlines = Deadlines(clock, self._expire)
        self._instances = Instances(store, clock, instance_id, self._adopt_all)
        self._started_s = 0.0
        self._verifying: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Find the leases that a former process left behind; they get their time to come back."""
        self._started_s = self._clock.now().timestamp()
        await self._instances.start()
        await self._adopt_all()
        self._deadlines.start()

    async def stop(self) -> None:
        """End the timers. Deletes nothing."""
        await self._deadlines.stop()
        await self._instances.stop()
        for task in self._verifying:
            task.cancel()
        await asyncio.gather(*self._verifying, return_exceptions=True)
        for known in self._proxies.values():
            self._unwatch(known)

    async def register(self, claim: Claim) -> Hold:
        """Upsert the Dataplane that came along and take its lease, in one batch. Raises Refused, StoreUnavailable."""
        async with self._lock(claim.proxy):
            for _ in range(ATTEMPTS):
                try:
                    lease = await self._try(claim)
                except (Conflict, AlreadyExists, NotFound, Fenced):
                    continue  # written by another in between: look again
                return self._enter(claim, lease)
        raise Refused(f"{PREFIX}it is being written by others all the time, {ATTEMPTS} attempts met a conflict")

    async def release(self, hold: Hold, how: Ending) -> None:
        """The stream is gone. What that means for the proxy is decided when its last stream here is gone."""
        async with self._lock(hold.proxy):
            known = self._proxies.get(hold.proxy)
            if known is None or known.streams.pop(hold.stream, None) is None:
                return  # a late close: the proxy has moved on
            known.last_ended = max(known.last_ended, (hold.stream, how), key=lambda ended: ended[0])
            if not known.streams:
                await self._last_stream_ended(hold.proxy, known)

    async def instance_alive(self, instance_id: str) -> bool:
        """Whether the control plane of that id is at work on this store."""
        return await self._instances.alive(instance_id)

    async def taken(self, proxy: ProxyKey, run_id: str) -> str | None:
        """Why a kuma-dp of this run would be refused the name now, naming both; None where it would not."""
        stored = await self._store.get(ResourceKey(LEASE_TYPE, *proxy))
        current = Lease.from_spec(stored.spec) if stored else None
        if current is None or admit(current, Bid(self._instance_id, run_id)) is not Verdict.CONTEST:
            return None
        if not await self._is_alive(current, self._proxies.get(proxy)):
            return None
        return _taken(proxy, current, Lease(0, self._instance_id, run_id))

    def epoch(self, proxy: ProxyKey) -> int | None:
        """Epoch of the lease that this instance holds on the proxy: the fence for what is written on its behalf."""
        known = self._proxies.get(proxy)
        return known.lease.epoch if known is not None and known.lease is not None else None

    # Registering

    async def _try(self, claim: Claim) -> Lease | None:
        proxy = claim.proxy
        dataplane_key, lease_key = ResourceKey("Dataplane", *proxy), ResourceKey(LEASE_TYPE, *proxy)
        mesh_key = ResourceKey("Mesh", "", proxy.mesh)
        found = await self._store.get_many((dataplane_key, lease_key, mesh_key))
        stored, stored_lease = found.get(dataplane_key), found.get(lease_key)
        known = self._proxies.get(proxy)
        if claim.dataplane is not None:
            writes = self._upsert(claim.dataplane, claim, stored, found.get(mesh_key))
        elif stored is None:
            raise Refused(
                f'resource "{proxy.mesh}.{proxy.name}" not found; create a Dataplane in Kuma CP first or pass it '
                "as an argument to kuma-dp"
            )
        elif stored_lease is None:
            return None  # made by an operator: no stream's end ever deletes it
        else:
            writes = []
        current = Lease.from_spec(stored_lease.spec) if stored_lease else None
        verdict = admit(current, Bid(self._instance_id, claim.run_id))
        if verdict is Verdict.JOIN and known is not None and known.lease == current and current is not None:
            if writes:
                await self._store.apply(Fence(proxy, current.epoch), *writes)
            return current
        if verdict is Verdict.CONTEST and current is not None:
            await self._contest(claim, current, known)
        lease = Lease(next_epoch(current, await self._store.head()), self._instance_id, claim.run_id, claim.holder)
        expected = stored_lease.version if stored_lease else ABSENT
        await self._store.apply(*writes, Put(lease_key, lease.to_spec(), expected, owner=dataplane_key))
        if verdict is Verdict.CONTEST and known is not None:
            self._evict(known, f"another kuma-dp took over: {_named(lease)}")
        return lease

    def _upsert(
        self, dataplane: Dataplane, claim: Claim, stored: Stored | None, mesh: Stored | None
    ) -> list[Operation]:
        """The write that stores the Dataplane, [] where it lies there already. Raises Refused."""
        proxy = claim.proxy
        if mesh is None:
            raise Refused(f"{PREFIX}mesh of name {proxy.mesh} is not found")
        before: Dataplane | None = decode_spec("Dataplane", stored.spec).spec if stored else None
        after = prepared(dataplane, self._zone, before)
        if before is not None and before != after and (refusal := claim.authorises(before)) is not None:
            raise Refused(
                f"{PREFIX}you are trying to override existing dataplane to which you don't have an access.: {refusal}"
            )
        if violations := self._validate(after, proxy.mesh, proxy.name):
            raise Refused(PREFIX + "; ".join(f"{violation.field}: {violation.message}" for violation in violations))
        if refusal := membership_refusal(proxy.mesh, decode_spec("Mesh", mesh.spec).spec, after):
            raise Refused(PREFIX + refusal)
        if before == after:
            return []
        expected = stored.version if stored else ABSENT
        return [Put(ResourceKey("Dataplane", *proxy), encode_spec(after), expected)]

    async def _contest(self, claim: Claim, current: Lease, known: _Proxy | None) -> None:
        """Raises Refused where the holder of the lease is alive."""
        if await self._is_alive(current, known):
            bidder = Lease(0, self._instance_id, claim.run_id, claim.holder)
            raise Refused(PREFIX + _taken(claim.proxy, current, bidder))

    async def _is_alive(self, current: Lease, known: _Proxy | None) -> bool:
        if current.instance != self._instance_id:
            return await self._instances.alive(current.instance)
        return any(await asyncio.gather(*(stream.is_alive() for stream in known.streams.values()))) if known else False

    def _enter(self, claim: Claim, lease: Lease | None) -> Hold:
        known = self._proxies.setdefault(claim.proxy, _Proxy())
        known.lease = lease
        self._streams += 1
        known.streams[self._streams] = claim
        self._deadlines.drop(claim.proxy)
        if lease is not None and known.unwatch is None:
            key = ResourceKey(LEASE_TYPE, *claim.proxy)
            known.unwatch = self._watch(key, lambda stored: self._lease_changed(claim.proxy, stored))
        return Hold(claim.proxy, self._streams)

    # Going

    async def _last_stream_ended(self, proxy: ProxyKey, known: _Proxy) -> None:
        lease = known.lease
        if lease is None:
            self._forget(proxy, known)
            return
        how = known.last_ended[1]
        now_s = self._clock.now().timestamp()
        after = after_last_stream(lease, how, now_s, self._patience)
        if after != lease:
            known.lease = after
            try:
                await self._store.apply(
                    Fence(proxy, lease.epoch), Put(ResourceKey(LEASE_TYPE, *proxy), after.to_spec())
                )
            except (Fenced, NotFound):
                self._forget(proxy, known)  # it has moved, or an operator deleted it
                return
            except StoreError as error:
                # the deadline holds even so; only the other instances learn of it late
                _log.warning("the end of a stream could not be stored", proxy=proxy, reason=str(error))
        wait_s = self._patience.restart_grace_s if after.until_s is None else after.until_s - now_s
        self._deadlines.set(proxy, lease.epoch, wait_s)

    async def _expire(self, proxy: ProxyKey, epoch: int) -> None:
        """The deadline of a proxy has come: delete it, if the lease is still the one that the deadline was for."""
        async with self._lock(proxy):
            known = self._proxies.get(proxy)
            if known is not None and known.streams:
                return
            try:
                if (later_s := await self._later_s(proxy, epoch)) is not None:
                    self._deadlines.set(proxy, epoch, later_s)
                    return
                await self._store.apply(Fence(proxy, epoch), Delete(ResourceKey("Dataplane", *proxy)))
            except (Fenced, NotFound):
                pass  # it came back elsewhere, or is gone already
            except StoreError as error:
                _log.warning("a proxy that is gone could not be deleted: trying again", proxy=proxy, reason=str(error))
                self._deadlines.set(proxy, epoch, RETRY_S)
                return
            else:
                _log.info("a proxy is gone and was deleted", proxy=proxy)
            if known is not None:
                self._forget(proxy, known)

    async def _later_s(self, proxy: ProxyKey, epoch: int) -> float | None:
        """How much longer to wait, where the instance that holds the lease was alive since the deadline was set."""
        stored = await self._store.get(ResourceKey(LEASE_TYPE, *proxy))
        lease = Lease.from_spec(stored.spec) if stored else None
        if lease is None or lease.epoch != epoch or lease.instance == self._instance_id:
            return None
        now_s = self._clock.now().timestamp()
        seen_s = await self._instances.seen_s(lease.instance)
        if seen_s is None:
            return None
        due_s = goes_at_s(lease, seen_s + FRESH_S, self._started_s, self._patience)
        return due_s - now_s if due_s > now_s else None

    async def _adopt_all(self) -> None:
        """Set deadlines for the leases of others: fenced, so it does no harm that several instances do."""
        now_s = self._clock.now().timestamp()
        for stored in (await self._store.list(LEASE_TYPE)).items:
            proxy, lease = ProxyKey(stored.key.mesh, stored.key.name), Lease.from_spec(stored.spec)
            if proxy in self._proxies or self._deadlines.epoch_of(proxy) == lease.epoch:
                continue
            seen_s = await self._instances.seen_s(lease.instance)
            died_s = now_s if seen_s is None else seen_s + FRESH_S
            due_s = goes_at_s(lease, died_s, self._started_s, self._patience)
            self._deadlines.set(proxy, lease.epoch, due_s - now_s)

    # Losing

    def _lease_changed(self, proxy: ProxyKey, stored: Stored | None) -> None:
        known = self._proxies.get(proxy)
        if known is None or known.lease is None:
            return
        if stored is None or stored.spec["epoch"] != known.lease.epoch:
            # the news may be older than the lease we hold by now: look, one event of the proxy after the other
            task = asyncio.create_task(self._verify(proxy))
            self._verifying.add(task)
            task.add_done_callback(self._verifying.discard)

    async def _verify(self, proxy: ProxyKey) -> None:
        async with self._lock(proxy):
            known = self._proxies.get(proxy)
            if known is None or known.lease is None:
                return
            try:
                stored = await self._store.get(ResourceKey(LEASE_TYPE, *proxy))
            except StoreError as error:
                _log.warning("a lease could not be looked up", proxy=proxy, reason=str(error))
                return
            current = Lease.from_spec(stored.spec) if stored else None
            if current is not None and current.epoch == known.lease.epoch:
                return
            mine, known.lease = known.lease, None
            if current is None:
                self._evict(known, f'Dataplane "{proxy.mesh}.{proxy.name}" was deleted')
            elif current.run_id != mine.run_id:
                self._evict(known, f"another kuma-dp took over: {_named(current)}")
            if not known.streams:
                self._forget(proxy, known)

    @staticmethod
    def _evict(known: _Proxy, reason: str) -> None:
        """The streams have no part in the proxy any more; their later release means nothing."""
        streams = list(known.streams.values())
        known.streams.clear()
        for claim in streams:
            claim.ended(reason)

    def _forget(self, proxy: ProxyKey, known: _Proxy) -> None:
        self._unwatch(known)
        if self._proxies.get(proxy) is known:
            del self._proxies[proxy]

    @staticmethod
    def _unwatch(known: _Proxy) -> None:
        if known.unwatch is not None:
            known.unwatch()
            known.unwatch = None

    def _lock(self, proxy: ProxyKey) -> asyncio.Lock:
        """The proxy's lock, which lives as long as somebody holds it or waits for it."""
        return self._locks.setdefault(proxy, asyncio.Lock())


def _taken(proxy: ProxyKey, current: Lease, bidder: Lease) -> str:
    return (
        f'the name "{proxy.name}" in mesh "{proxy.mesh}" is taken by {_named(current)}, '
        f"whose connection is open; refused is {_named(bidder)}. Stop the other one, or choose another name; "
        "if its machine has fallen silent, try again when the keepalive has noticed (xdsServer.keepalive, 40 s)"
    )


def _named(lease: Lease) -> str:
    run = f'kuma-dp run "{lease.run_id}"' if lease.run_id else "a kuma-dp"
    peer = f" at {lease.holder}" if lease.holder else ""
    return f"{run}{peer} (control plane {lease.instance})"

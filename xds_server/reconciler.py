"""One task: follows the store's log, folds what changed, lets the engine work, wakes the streams with news.

The first change after quiet goes out at once; those that follow are gathered for a window that grows with what the
last push cost (XP-124), so that pushes take a bounded share of the loop. Nothing here waits for a stream (XP-126).
Never here: what a change means for whom (`snapshot.engine`), bytes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import structlog

from snapshot.cache.snapshot import NodeState
from snapshot.engine.world import (
    Change,
    Issue,
    NameFailed,
    NameResolved,
    NodeJoined,
    NodeLeft,
    Publication,
    ReachabilityChanged,
    ResourceGone,
    ResourcePut,
)
from snapshot.model.codec import DecodeError, decode_spec
from snapshot.model.dataplane import Dataplane
from snapshot.model.kinds import KINDS
from snapshot.model.meta import ProxyKey, Resource, ResourceKey
from snapshot.topology.mesh_context import domain_names
from snapshot.topology.proxy import NodeInfo
from xds_server.changes import Watermark
from xds_server.clock import Clock
from xds_server.fan_out import FanOut, Listener, NodeHandle
from xds_server.last_answers import RESOLVED_NAME_TYPE, LastAnswers
from xds_server.store import LEASE_TYPE, LogTrimmed, ResourceStore, Stored, StoreError

PAUSE_MIN_S: Final = 0.010
PAUSE_MAX_S: Final = 0.1
"""Between two builds there is a pause as long as the last one took, within bounds: batches grow with their cost."""
NODES_PER_PUSH: Final = 200
CHANGES_PER_READ: Final = 500
"""Both bound how long one step holds the loop (XP-128); what is left over comes with the next."""
FIRST_ANSWERS_S: Final = 10.0
"""How long a start waits for domain names, however many do not answer."""
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 5.0
ENGINE_TYPES: Final = KINDS.keys() - {"DataplaneInsight", "Secret", "GlobalSecret"}
"""Types that can change what a proxy gets."""

_log = structlog.get_logger(__name__)


class EngineLike(Protocol):
    """What is asked of `snapshot.engine.Engine`."""

    def apply(self, changes: Sequence[Change]) -> Publication:
        """Fold a batch of changes."""
        ...

    def state(self, proxy: ProxyKey) -> NodeState | None:
        """State of a joined proxy."""
        ...

    def issues(self) -> tuple[Issue, ...]:
        """Everything that has no effect."""
        ...

    def issues_of(self, key: ResourceKey) -> tuple[Issue, ...]:
        """What of one object has no effect."""
        ...


class Names(Protocol):
    """What is asked of `xds_server.resolver.Resolver`."""

    def start(self, tell: Callable[[NameResolved | NameFailed], None], known: Mapping[str, str]) -> None:
        """Begin to resolve; `known` are addresses that are in force already, by name."""
        ...

    def use(self, names: Iterable[str]) -> None:
        """Say which names are in use."""
        ...

    async def settled(self, names: Collection[str]) -> None:
        """Wait for first answers about those that are not known."""
        ...

    async def stop(self) -> None:
        """End."""
        ...


@dataclass(frozen=True, slots=True)
class Push:
    """One turn of the reconciler, for the metrics: what the build took, and the build with its fan-out."""

    build_s: float
    total_s: float
    changes: int
    publication: Publication | None
    """None where the engine raised."""


def unmeasured(push: Push) -> None:
    """The observer where nobody measures."""


class Reconciler:
    """Holds the engine and feeds it. `start` returns when everything stored has been applied once."""

    def __init__(
        self,
        store: ResourceStore,
        engine: EngineLike,
        names: Names,
        clock: Clock,
        *,
        observer: Callable[[Push], None] = unmeasured,
    ) -> None:
        self._store = store
        self._engine = engine
        self._names = names
        self._clock = clock
        self._observer = observer
        self._wake = asyncio.Event()
        self._applied = Watermark(-1)
        self._follow_from = 0
        self._pending: list[Change] = []
        self._pending_nodes: dict[ProxyKey, NodeJoined | NodeLeft] = {}
        self._pending_since_s: float | None = None
        self._failed: list[Change] = []
        self._fan_out = FanOut(clock)
        self._built_head = -1
        self._watches: dict[ResourceKey, dict[object, Callable[[Stored | None], None]]] = {}
        self._writes: dict[ResourceKey, _Write] = {}
        self._names_of: dict[ResourceKey, frozenset[str]] = {}
        self._uses: Counter[str] = Counter()
        self._last_answers = LastAnswers(store, clock, self._uses)
        self._undecodable: dict[ResourceKey, Issue] = {}
        self._dataplanes: dict[ProxyKey, Dataplane] = {}
        self._unreachable: set[ProxyKey] = set()
        self._tasks: list[asyncio.Task[None]] = []

    # Life

    async def start(self) -> None:
        """Read everything, wait (bounded) for the first answers about domain names, apply, then follow.

        A name that an earlier process knew an answer for has that until there is a newer one; it is not waited for.

        Raises StoreError where the store cannot be read. No stream may be served before this returns (XP-143).
        """
        head, everything = await self._store.snapshot()
        changes = [change for stored in everything for change in self._changes_of(stored.key, stored)]
        self._last_answers.load(everything)
        known = self._last_answers.known(self._uses)
        self._pending += [NameResolved(name, address) for name, address in known.items()]
        self._names.start(self._tell, known)
        self._names.use(self._uses)
        try:
            async with asyncio.timeout(FIRST_ANSWERS_S):
                await self._names.settled(self._uses)
        except TimeoutError:
            _log.warning(
                "starting without an answer for some domain names of Dataplanes", names=len(self._uses) - len(known)
            )
        self._pending += changes
        self._follow_from = head
        await self._push()
        self._last_answers.start()
        self._tasks = [
            asyncio.create_task(self._follow(), name="reconciler-follow"),
            asyncio.create_task(self._run(), name="reconciler"),
        ]

    async def stop(self) -> None:
        """End both tasks and the resolver; write its last answers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._names.stop()
        await self._last_answers.stop()
        self._applied.fail(RuntimeError("the reconciler has stopped"))

    # What streams and others ask

    def join(self, proxy: ProxyKey, node: NodeInfo, listener: Listener) -> NodeHandle:
        """Make the node known. `listener` is called in the loop whenever something changed for it.

        Where another stream of the node is served already, `state()` is there at once and no call announces it.
        """
        handle = NodeHandle(proxy, node, listener, self._engine)
        self._fan_out.add(handle)
        self._pending_nodes[proxy] = NodeJoined(proxy, node)
        self._wake.set()
        return handle

    def leave(self, handle: NodeHandle) -> None:
        """The stream is gone; the node is forgotten with its last handle. Twice is as good as once.

        What the newest of the streams that stay said about the node holds again.
        """
        proxy, before = handle.proxy, self.node(handle.proxy)
        self._fan_out.remove(handle)
        after = self.node(proxy)
        if after != before:
            self._pending_nodes[proxy] = NodeLeft(proxy) if after is None else NodeJoined(proxy, after)
            self._wake.set()

    def node(self, proxy: ProxyKey) -> NodeInfo | None:
        """What the newest of the node's streams said about it; None while it has none."""
        return self._fan_out.node(proxy)

    async def applied(self, seq: int) -> int:
        """Return when the log has been applied, and the streams woken, up to `seq` at least."""
        return await self._applied.above(seq - 1)

    def dataplane(self, proxy: ProxyKey) -> Dataplane | None:
        """The newest Dataplane of the proxy that could be decoded."""
        return self._dataplanes.get(proxy)

    def watch(self, key: ResourceKey, changed: Callable[[Stored | None], None]) -> Callable[[], None]:
        """Call `changed` in the loop when the resource is written, or deleted (None); answers how to stop.

        For the types that the engine knows, and leases.
        """
        token = object()
        self._watches.setdefault(key, {})[token] = changed

        def unwatch() -> None:
            watches = self._watches.get(key, {})
            if watches.pop(token, None) is not None and not watches:
                del self._watches[key]

        return unwatch

    @property
    def waiting(self) -> tuple[int, int]:
        """How many changes, and how many joining or leaving nodes, wait for the next push."""
        return len(self._pending) + len(self._failed), len(self._pending_nodes)

    def issues(self) -> tuple[Issue, ...]:
        """Everything stored that has no effect, and why."""
        return (*self._undecodable.values(), *self._engine.issues())

    def issues_of(self, key: ResourceKey) -> tuple[Issue, ...]:
        """What of one object has no effect, and why."""
        own = self._undecodable.get(key)
        return (*((own,) if own else ()), *self._engine.issues_of(key))

    # The log

    async def _follow(self) -> None:
        """Wake the task when the log grows; while the store is away, try again with growing pauses."""
        pause_s = RETRY_MIN_S
        while True:
            try:
                await self._store.wait(self._follow_from)
                await self._read_log()
            except LogTrimmed as error:
                _log.warning("the change log was trimmed: reading everything again", reason=str(error))
                try:
                    await self._read_everything()
                except StoreError as failure:
                    pause_s = await self._pause(failure, pause_s)
            except StoreError as error:
                pause_s = await self._pause(error, pause_s)
            else:
                pause_s = RETRY_MIN_S

    async def _pause(self, error: StoreError, pause_s: float) -> float:
        if pause_s == RETRY_MIN_S:
            _log.error("the store is away: serving the last good configuration", reason=str(error))
        await self._clock.sleep(pause_s)
        return min(pause_s * 2, RETRY_MAX_S)

    async def _read_log(self) -> None:
        changes = await self._store.changes(self._follow_from, CHANGES_PER_READ)
        for change in changes:
            self._pending += self._changes_of(change.key, change.stored)
        if changes:
            self._follow_from = changes[-1].seq
        self._names.use(self._uses)
        self._arrived()

    async def _read_everything(self) -> None:
        head, everything = await self._store.snapshot()
        for key in self._writes.keys() - {stored.key for stored in everything}:
            self._pending += self._changes_of(key, None)
        for stored in everything:
            if self._writes.get(stored.key) != _write_of(stored):
                self._pending += self._changes_of(stored.key, stored)
        self._follow_from = head
        self._names.use(self._uses)
        self._arrived()

    def _changes_of(self, key: ResourceKey, stored: Stored | None) -> Iterator[Change]:
        """What the engine must be told of a change in the store; keeps the reconciler's own picture of it."""
        if key.type == RESOLVED_NAME_TYPE:
            if stored is None:
                self._last_answers.removed(key.name)
            return
        if key.type == LEASE_TYPE:
            yield from self._reachability(ProxyKey(key.mesh, key.name), stored)
        elif key.type not in ENGINE_TYPES:
            return
        elif stored is None:
            self._undecodable.pop(key, None)
            self._use_names(key, frozenset())
            if key.type == "Dataplane":
                self._dataplanes.pop(ProxyKey(key.mesh, key.name), None)
            yield ResourceGone(key)
        else:
            yield from self._decoded(stored)
        if stored is None:
            self._writes.pop(key, None)
        else:
            self._writes[key] = _write_of(stored)
        self._tell_watchers(key, stored)

    def _tell_watchers(self, key: ResourceKey, stored: Stored | None) -> None:
        for changed in list(self._watches.get(key, {}).values()):
            try:
                changed(stored)
            except Exception:  # noqa: BLE001  # a fault of one watcher is not the others'
                _log.exception("a watcher of a resource failed", key=key)

    def _decoded(self, stored: Stored) -> Iterator[Change]:
        key = stored.key
        try:
            spec = decode_spec(key.type, stored.spec).spec
        except DecodeError as error:
            self._undecodable[key] = Issue(key, f"skipped: {error}")
            _log.error("a stored resource cannot be read and is skipped", key=key, reason=str(error))
            return
        self._undecodable.pop(key, None)
        if isinstance(spec, Dataplane):
            self._dataplanes[ProxyKey(key.mesh, key.name)] = spec
            self._use_names(key, frozenset(domain_names(spec)))
        yield ResourcePut(
            Resource(
                key=key,
                spec=spec,
                version=stored.version,
                creation_time=stored.creation_time,
                modification_time=stored.modification_time,
            )
        )

    def _reachability(self, proxy: ProxyKey, lease: Stored | None) -> Iterator[Change]:
        """A lease in state `vanished` makes its proxy unreachable, wherever its stream was (architecture §7)."""
        reachable = lease is None or lease.spec.get("state") != "vanished"
        if reachable == (proxy in self._unreachable):
            (self._unreachable.discard if reachable else self._unreachable.add)(proxy)
            yield ReachabilityChanged(proxy, reachable)

    def _use_names(self, key: ResourceKey, names: frozenset[str]) -> None:
        before = self._names_of.pop(key, frozenset())
        if names:
            self._names_of[key] = names
        self._uses.update(names - before)
        self._uses.subtract(before - names)
        for name in before ^ names:
            if not self._uses[name]:
                del self._uses[name]
            self._last_answers.mark(name)

    def _tell(self, answer: NameResolved | NameFailed) -> None:
        if isinstance(answer, NameResolved):
            self._last_answers.answered(answer.name, answer.address)
        self._pending.append(answer)
        self._arrived()

    def _arrived(self) -> None:
        """Changes are pending: note since when, and wake the task."""
        if self._pending_since_s is None:
            self._pending_since_s = self._clock.monotonic_s()
        self._wake.set()

    # Pushing

    async def _run(self) -> None:
        pause_s = 0.0
        quiet_from_s = self._clock.monotonic_s()
        while True:
            await self._something_to_do()
            await self._clock.sleep(max(0.0, quiet_from_s + pause_s - self._clock.monotonic_s()))
            self._wake.clear()
            try:
                build_s = await self._push()
            except Exception:  # noqa: BLE001  # the one task that keeps every proxy up to date must live
                _log.exception("a push failed")
                build_s = PAUSE_MAX_S
            pause_s = min(max(PAUSE_MIN_S, build_s), PAUSE_MAX_S)
            quiet_from_s = self._clock.monotonic_s()

    async def _something_to_do(self) -> None:
        """Changes, nodes, another try of what failed, or news whose window is over."""
        due_in_s = self._fan_out.due_in_s
        if self._failed:
            due_in_s = RETRY_MAX_S if due_in_s is None else min(due_in_s, RETRY_MAX_S)
        if due_in_s is None:
            await self._wake.wait()
            return
        timer = asyncio.create_task(self._clock.sleep(due_in_s))
        waiting = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait((timer, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            waiting.cancel()

    async def _push(self) -> float:
        """Apply what is pending and wake the streams; returns what the build took, in seconds."""
        head = self._follow_from
        nodes = list(itertools.islice(self._pending_nodes, NODES_PER_PUSH))
        changes = [*self._failed, *self._pending, *(self._pending_nodes.pop(proxy) for proxy in nodes)]
        self._failed, self._pending = [], []
        if self._pending_nodes:
            self._wake.set()
        started_s = self._clock.monotonic_s()
        since_s = started_s if self._pending_since_s is None else self._pending_since_s
        self._pending_since_s = None
        build_s = 0.0
        if changes:
            publication, *others = self._apply(changes)
            build_s = self._clock.monotonic_s() - started_s
            for news in (publication, *others):
                await self._fan_out.offer(news.changes if news else {}, since_s)
            total_s = self._clock.monotonic_s() - started_s
            self._observer(Push(build_s, total_s, len(changes), None if others else publication))
        else:
            await self._fan_out.offer({}, since_s)
        self._built_head = max(self._built_head, head)
        if not self._fan_out.waiting:
            self._applied.advance(self._built_head)
        return build_s

    def _apply(self, changes: Sequence[Change]) -> Sequence[Publication | None]:
        """One publication; where the engine raised, None and those of the changes that it took one by one."""
        try:
            publication = self._engine.apply(changes)
        except Exception:  # noqa: BLE001  # an engine's fault must not end the task
            _log.exception("the engine failed: trying its changes one by one", changes=len(changes))
            return (None, *self._apply_singly(changes))
        for failure in publication.failures:
            _log.error("a proxy could not be built", issue=failure.issue, exc_info=failure.error)
        return (publication,)

    def _apply_singly(self, changes: Sequence[Change]) -> Iterator[Publication]:
        """Let the good changes through; keep the bad ones for another try."""
        for change in changes:
            try:
                yield self._engine.apply([change])
            except Exception:  # noqa: BLE001  # as above
                _log.exception("the engine failed at a change", change=type(change).__name__)
                self._failed.append(change)


class _Write(NamedTuple):
    """Tells one write of a key from every other."""

    version: int
    creation_time: datetime
    modification_time: datetime


def _write_of(stored: Stored) -> _Write:
    return _Write(stored.version, stored.creation_time, stored.modification_time)

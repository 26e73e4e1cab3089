"""Who is woken when: a proxy that waits for its first configuration at once, all others within a share of the loop.

News that come faster than the streams can take them are withheld, and folded, for a window that grows with what the
last fan-out cost (XP-124). A stream reads the newest state whenever it writes (L7), so withholding only delays.
Never here: what has changed (`snapshot.engine`), bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from snapshot.cache.snapshot import Changes, NodeState
from snapshot.model.meta import ProxyKey
from snapshot.topology.proxy import NodeInfo
from xds_server.clock import Clock

PER_TURN: Final = 200
"""Most connected nodes told in one turn of the loop: their writers run in the next, and must not hold it (XP-128)."""
WINDOW_MIN_S: Final = 0.010
WINDOW_MAX_S: Final = 1.0
WINDOW_PER_COST: Final = 1.0
"""A fan-out is followed by a window as long as its writers' first turn: half of the loop is everybody else's."""
WINDOW_PER_COST_IN_STORM: Final = 7 / 3
"""While proxies join, fan-outs take at most 30 % of the loop (performance T3)."""
COST_PER_STREAM_S: Final = 0.000_18
"""What one response with its ACK costs (measured, TLS): most of it comes after the streams were woken."""
COST_PER_JOIN_S: Final = 0.003
"""What a proxy that joins costs (measured): no window is longer than what it makes room for."""

Listener = Callable[[Changes], None]
_log = structlog.get_logger(__name__)
_NOTHING: Final = Changes()


class States(Protocol):
    """What is asked of the engine."""

    def state(self, proxy: ProxyKey) -> NodeState | None:
        """State of a joined proxy."""
        ...


class NodeHandle:
    """One stream's interest in a node. Several streams of one node have a handle each (XP-6, XP-9).

    `node` is what the stream said about the node. `news_since_s` is when the oldest change behind the last call of
    `listener` became known (`Clock.monotonic_s`).
    """

    __slots__ = ("_states", "listener", "news_since_s", "node", "proxy")

    def __init__(self, proxy: ProxyKey, node: NodeInfo, listener: Listener, states: States) -> None:
        self.proxy = proxy
        self.node = node
        self.news_since_s = 0.0
        self.listener = listener
        self._states = states

    def state(self) -> NodeState | None:
        """The newest state of the node, None until it can be built."""
        return self._states.state(self.proxy)


class FanOut:
    """The handles of all nodes, and the news that they were not told yet."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._handles: dict[ProxyKey, dict[NodeHandle, None]] = {}
        self._unserved: set[ProxyKey] = set()
        self._withheld: dict[ProxyKey, Changes] = {}
        self._since_s = 0.0
        self._open_from_s = clock.monotonic_s()
        self._served_since = 0

    def add(self, handle: NodeHandle) -> None:
        """A stream has joined."""
        if handle.proxy not in self._handles:
            self._unserved.add(handle.proxy)
        self._handles.setdefault(handle.proxy, {})[handle] = None

    def remove(self, handle: NodeHandle) -> None:
        """A stream has left. Twice is as good as once."""
        handles = self._handles.get(handle.proxy, {})
        handles.pop(handle, None)
        if not handles:
            self._handles.pop(handle.proxy, None)
            self._unserved.discard(handle.proxy)
            self._withheld.pop(handle.proxy, None)

    def node(self, proxy: ProxyKey) -> NodeInfo | None:
        """What the newest stream of the node said about it; None where none is there."""
        handles = self._handles.get(proxy)
        return next(reversed(handles)).node if handles else None

    @property
    def waiting(self) -> int:
        """How many nodes have news that they were not told."""
        return len(self._withheld)

    @property
    def due_in_s(self) -> float | None:
        """How long until what is withheld may be told; None where nothing is."""
        return max(0.0, self._open_from_s - self._clock.monotonic_s()) if self._withheld else None

    async def offer(self, news: Mapping[ProxyKey, Changes], since_s: float) -> None:
        """Tell the nodes what changed for them, or withhold it until the window is over.

        `since_s` is when the oldest of the changes became known. Returns when the woken writers had their first turn.
        """
        began_s = self._clock.monotonic_s()
        first = {proxy: None for proxy in news if proxy in self._unserved} if self._unserved else {}
        self._unserved.difference_update(first)
        self._served_since += len(first)
        for proxy in first:
            self._tell(proxy, _both(self._withheld.pop(proxy, _NOTHING), news[proxy]), since_s)
        others = {proxy: changes for proxy, changes in news.items() if proxy not in first} if first else news
        if others and not self._withheld:
            self._since_s = since_s
        told = self._folded(others)
        if began_s < self._open_from_s:
            self._withheld = told
            told = {}
        else:
            self._withheld = {}
        for number, (proxy, changes) in enumerate(told.items(), 1):
            self._tell(proxy, changes, self._since_s)
            if number % PER_TURN == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        if told:
            now_s = self._clock.monotonic_s()
            self._open_from_s = now_s + self._window_s(now_s - began_s, len(told), len(first))

    def _window_s(self, turn_s: float, told: int, first: int) -> float:
        """How long to withhold, after `told` proxies and, for the first time, `first` others were woken."""
        turn_s *= told / (told + first)
        storm_s = min(told * COST_PER_STREAM_S, self._served_since * COST_PER_JOIN_S)
        self._served_since = 0
        window_s = max(turn_s * WINDOW_PER_COST, storm_s * WINDOW_PER_COST_IN_STORM)
        return min(max(WINDOW_MIN_S, window_s), WINDOW_MAX_S)

    def _folded(self, news: Mapping[ProxyKey, Changes]) -> dict[ProxyKey, Changes]:
        """What is withheld, with `news`; what is equal for many nodes stays one object."""
        folded = self._withheld
        made: dict[tuple[int, int], tuple[Changes, Changes, Changes]] = {}  # the parts are kept: ids stay theirs
        for proxy, changes in news.items():
            before = folded.get(proxy)
            if before is None:
                folded[proxy] = changes
                continue
            known = made.get((id(before), id(changes)))
            if known is None:
                known = made[id(before), id(changes)] = before, changes, _both(before, changes)
            folded[proxy] = known[2]
        return folded

    def _tell(self, proxy: ProxyKey, changes: Changes, since_s: float) -> None:
        for handle in list(self._handles.get(proxy, ())):
            handle.news_since_s = since_s
            try:
                handle.listener(changes)
            except Exception:  # noqa: BLE001  # a fault of one stream is not the others'
                _log.exception("a stream could not be woken", proxy=proxy)


def _both(first: Changes, second: Changes) -> Changes:
    if not first.names:
        return second
    names = dict(first.names)
    for url, more in second.names.items():
        names[url] = names.get(url, frozenset()) | more
    return Changes(names)

"""Who depends on what: the facts that a build reads, and the nodes that a selector can concern (L3).

Never here: what is done about it (`engine.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Protocol as TypingProtocol

from snapshot.engine.node import Node
from snapshot.model.selector import Selector
from snapshot.model.tags import ANY, Tags
from snapshot.topology.proxy import Protocol


class Answer(TypingProtocol):
    """What is known about a service."""

    protocol: Protocol | None


class RecordedFacts:
    """Answers what a build asks about destinations, and remembers the questions."""

    __slots__ = ("_known", "services")

    def __init__(self, known: Mapping[str, Answer]) -> None:
        self._known = known
        self.services: set[str] = set()

    def protocol(self, service: str) -> Protocol | None:
        """Common protocol of all endpoints of the service, None where there are none."""
        self.services.add(service)
        known = self._known.get(service)
        return known.protocol if known is not None else None


class NodeIndex:
    """The nodes of one mesh by each tag that their inbounds and gateway have."""

    __slots__ = ("_by_tag", "_tags")

    def __init__(self) -> None:
        self._tags: dict[Node, tuple[Tags, ...]] = {}
        self._by_tag: dict[tuple[str, str], set[Node]] = {}

    def place(self, node: Node, tag_sets: tuple[Tags, ...]) -> None:
        """`node` has these tag sets from now on."""
        if self._tags.get(node) == tag_sets:
            return
        self.remove(node)
        self._tags[node] = tag_sets
        for pair in _pairs(tag_sets):
            self._by_tag.setdefault(pair, set()).add(node)

    def remove(self, node: Node) -> None:
        """`node` is not to be found any more."""
        for pair in _pairs(self._tags.pop(node, ())):
            nodes = self._by_tag[pair]
            nodes.discard(node)
            if not nodes:
                del self._by_tag[pair]

    def selected(self, selectors: Iterable[Selector]) -> set[Node]:
        """The nodes with a tag set that satisfies one of the selectors (R §3.1)."""
        found: set[Node] = set()
        for selector in selectors:
            found.update(node for node in self._candidates(selector.match) if self._matches(node, selector.match))
        return found

    def _candidates(self, match: Tags) -> Iterable[Node]:
        exact = [self._by_tag.get(pair, set()) for pair in match.items() if pair[1] != ANY]
        if not exact:
            return self._tags
        fewest: set[Node] = min(exact, key=len)
        return fewest

    def _matches(self, node: Node, match: Tags) -> bool:
        return any(tags.matches(match) for tags in self._tags[node])

    def tag_sets(self) -> dict[Node, tuple[Tags, ...]]:
        """What is known of each node, for checks."""
        return dict(self._tags)


def _pairs(tag_sets: Iterable[Tags]) -> set[tuple[str, str]]:
    return set(chain.from_iterable(tags.items() for tags in tag_sets))

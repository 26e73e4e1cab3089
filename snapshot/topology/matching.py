"""Which policy wins: selectors, ranks and ties (R §3.1, §3.2), compiled once for each set of policies.

Never here: what a policy means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from snapshot.model.meta import Resource
from snapshot.model.selector import ConnectionPolicy, Selector
from snapshot.model.tags import ANY, SERVICE, Tags

TagSets = tuple[Tags, ...]
"""The tag set of each inbound of a proxy, and of its gateway; see `Dataplane.tag_sets`."""

MATCHERS_KEPT: Final = 8192
"""Bound on remembered tag sets of one policy set; beyond it all are forgotten and made again when asked for."""


class Rank(NamedTuple):
    """How specific a selector is; the greater wins (R §3.1)."""

    tags: int
    exact: int


def selector_rank(selector: Tags) -> Rank:
    """The number of all tags first, then the number of those with an exact value."""
    return Rank(len(selector), sum(value != ANY for value in selector.values()))


class Proxies:
    """The tag sets of one proxy, found by tag, so that many selectors meet many inbounds in less than their product."""

    __slots__ = ("_all", "_having")

    def __init__(self, tag_sets: TagSets) -> None:
        self._all = tag_sets
        self._having: dict[tuple[str, str], list[Tags]] = {}
        for tags in tag_sets:
            for key, value in tags.items():
                for wanted in {value, ANY}:
                    self._having.setdefault((key, wanted), []).append(tags)

    def satisfy(self, selector: Tags) -> bool:
        """Whether one tag set alone has all that `selector` asks for."""
        if not selector:
            return bool(self._all)
        fewest = min((self._having.get(item, []) for item in selector.items()), key=len)
        return any(tags.matches(selector) for tags in fewest)

    def best_rank(self, selectors: Iterable[Selector]) -> Rank | None:
        """Rank of the most specific selector that some tag set satisfies alone, None where none does."""
        return max((selector_rank(s.match) for s in selectors if self.satisfy(s.match)), default=None)


def destination_ranks(policy: ConnectionPolicy) -> dict[str, Rank]:
    """The best rank of the destination selectors for each service that they name; `*` is for every service.

    Only the service is compared (R §3.2), so a selector with another key selects nothing.
    """
    ranks: dict[str, Rank] = {}
    for selector in policy.destinations:
        if not (selector.match.keys() - {SERVICE}):
            service = selector.match.get(SERVICE, ANY)
            ranks[service] = max(selector_rank(selector.match), ranks.get(service, Rank(0, 0)))
    return ranks


def by_name(policies: Iterable[Resource]) -> tuple[Resource, ...]:
    """The order in which candidates are considered: of equals, the alphabetically first name wins."""
    return tuple(sorted(policies, key=lambda policy: policy.key.name))


def concerns(policy: ConnectionPolicy, tag_sets: TagSets, services: Iterable[str]) -> bool:
    """Whether `policy` can win for a proxy with these tag sets towards any of `services`."""
    named = destination_ranks(policy)
    towards = any(ANY in named or service in named for service in services)
    return towards and Proxies(tag_sets).best_rank(policy.sources) is not None


class _Candidate(NamedTuple):
    """A policy with the rank that it has for one proxy and one destination; the greatest wins, whatever the policy."""

    tags: int
    exact: int
    created: datetime
    order: int


class Matcher:
    """The policies of one set that select one proxy, by destination. Answers are remembered."""

    __slots__ = ("_answers", "_index", "_sources", "_towards_all")

    def __init__(self, index: PolicyIndex, tag_sets: TagSets) -> None:
        proxies = Proxies(tag_sets)
        self._index = index
        self._sources = [proxies.best_rank(policy.spec.sources) for policy in index.policies]
        self._towards_all = self._best(ANY)
        self._answers: dict[str, Resource | None] = {}

    def best(self, service: str) -> Resource | None:
        """The policy that wins towards `service`: the greatest sum of ranks, then the newest, then the first name."""
        try:
            return self._answers[service]
        except KeyError:
            found = max((c for c in (self._best(service), self._towards_all) if c is not None), default=None)
            answer = self._answers[service] = self._index.policies[-found.order] if found else None
            return answer

    def _best(self, destination: str) -> _Candidate | None:
        return max(
            (
                _Candidate(
                    source.tags + rank.tags, source.exact + rank.exact, self._index.policies[at].creation_time, -at
                )
                for at, rank in self._index.towards(destination)
                if (source := self._sources[at]) is not None
            ),
            default=None,
        )


class PolicyIndex:
    """All policies of one type of one mesh. Immutable, except for what it remembers to answer faster."""

    __slots__ = ("_matchers", "_towards", "policies")

    def __init__(self, policies: Iterable[Resource] = ()) -> None:
        self.policies: Final = by_name(policies)
        self._matchers: dict[TagSets, Matcher] = {}
        self._towards: dict[str, list[tuple[int, Rank]]] = {}
        for at, policy in enumerate(self.policies):
            for destination, rank in destination_ranks(policy.spec).items():
                self._towards.setdefault(destination, []).append((at, rank))

    def towards(self, destination: str) -> Sequence[tuple[int, Rank]]:
        """The places in `policies` of those that name `destination`, a service or `*`, each with its rank."""
        return self._towards.get(destination, ())

    def leading_to(self, service: str) -> Iterator[Resource]:
        """The policies with a destination selector that selects `service`; some may come twice."""
        return (self.policies[at] for name in (service, ANY) for at, _ in self.towards(name))

    def matcher(self, tag_sets: TagSets) -> Matcher:
        """The policies that have a source selector matching a proxy with these tag sets."""
        if (known := self._matchers.get(tag_sets)) is not None:
            return known
        if len(self._matchers) >= MATCHERS_KEPT:
            self._matchers.clear()
        made = self._matchers[tag_sets] = Matcher(self, tag_sets)
        return made

    def best(self, tag_sets: TagSets, service: str) -> Resource | None:
        """The one policy that applies to connections from a proxy with these tag sets to `service`."""
        return self.matcher(tag_sets).best(service)

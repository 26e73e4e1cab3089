"""Which policy wins: selectors, ranks and ties (R §3.1, §3.2), compiled once for each set of policies.

Never here: what a policy means.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def best_rank(selectors: Iterable[Selector], tag_sets: TagSets) -> Rank | None:
    """Rank of the most specific selector that some tag set satisfies alone, None where none does."""
    return max(
        (selector_rank(s.match) for s in selectors if any(tags.matches(s.match) for tags in tag_sets)), default=None
    )


def by_name(policies: Iterable[Resource]) -> tuple[Resource, ...]:
    """The order in which candidates are considered: of equals, the alphabetically first name wins."""
    return tuple(sorted(policies, key=lambda policy: policy.key.name))


def concerns(policy: ConnectionPolicy, tag_sets: TagSets, services: Iterable[str]) -> bool:
    """Whether `policy` can win for a proxy with these tag sets towards any of `services`."""
    return best_rank(policy.sources, tag_sets) is not None and any(
        _service_rank(policy, service) is not None for service in services
    )


def _service_rank(policy: ConnectionPolicy, service: str) -> Rank | None:
    return best_rank(policy.destinations, (Tags({SERVICE: service}),))


class _Candidate(NamedTuple):
    """A policy with the rank that it has for one proxy and one destination."""

    tags: int
    exact: int
    created: datetime
    order: int
    policy: Resource


class Matcher:
    """The policies of one set that select one proxy, by destination. Answers are remembered."""

    __slots__ = ("_answers", "_candidates")

    def __init__(self, candidates: tuple[tuple[Rank, Resource], ...]) -> None:
        self._candidates = candidates
        self._answers: dict[str, Resource | None] = {}

    def best(self, service: str) -> Resource | None:
        """The policy that wins towards `service`: the greatest sum of ranks, then the newest, then the first name."""
        try:
            return self._answers[service]
        except KeyError:
            answer = self._answers[service] = self._find(service)
            return answer

    def _find(self, service: str) -> Resource | None:
        found = None
        for order, (source, policy) in enumerate(self._candidates):
            if (rank := _service_rank(policy.spec, service)) is None:
                continue
            candidate = _Candidate(
                source.tags + rank.tags, source.exact + rank.exact, policy.creation_time, -order, policy
            )
            if found is None or candidate[:4] > found[:4]:
                found = candidate
        return found.policy if found else None


class PolicyIndex:
    """All policies of one type of one mesh. Immutable, except for what it remembers to answer faster."""

    __slots__ = ("_matchers", "policies")

    def __init__(self, policies: Iterable[Resource] = ()) -> None:
        self.policies: Final = by_name(policies)
        self._matchers: dict[TagSets, Matcher] = {}

    def matcher(self, tag_sets: TagSets) -> Matcher:
        """The policies that have a source selector matching a proxy with these tag sets."""
        if (known := self._matchers.get(tag_sets)) is not None:
            return known
        if len(self._matchers) >= MATCHERS_KEPT:
            self._matchers.clear()
        ranked = ((best_rank(policy.spec.sources, tag_sets), policy) for policy in self.policies)
        made = Matcher(tuple((rank, policy) for rank, policy in ranked if rank is not None))
        self._matchers[tag_sets] = made
        return made

    def best(self, tag_sets: TagSets, service: str) -> Resource | None:
        """The one policy that applies to connections from a proxy with these tag sets to `service`."""
        return self.matcher(tag_sets).best(service)

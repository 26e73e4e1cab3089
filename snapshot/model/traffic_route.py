"""TrafficRoute: where the traffic of an outbound goes, and how it is changed on the way (R §1.7)."""

from __future__ import annotations

from snapshot.model.meta import OneOf, Spec, UInt64
from snapshot.model.selector import ConnectionPolicy
from snapshot.model.tags import NO_TAGS, Tags


class StringMatcher(OneOf, frozen=True, kw_only=True):
    """One of `prefix`, `exact`, `regex` (RE2)."""

    prefix: str | None = None
    exact: str | None = None
    regex: str | None = None


class HttpMatch(Spec, frozen=True, kw_only=True):
    """Conditions that must all hold. `headers` is sorted by name."""

    method: StringMatcher | None = None
    path: StringMatcher | None = None
    headers: tuple[tuple[str, StringMatcher], ...] = ()


class RegexSubstitution(Spec, frozen=True, kw_only=True):
    """Every match of `pattern` becomes `substitution`."""

    pattern: str = ""
    substitution: str = ""


class ModifyPath(OneOf, frozen=True, kw_only=True):
    """One of the two."""

    rewrite_prefix: str | None = None
    regex: RegexSubstitution | None = None


class ModifyHost(OneOf, frozen=True, kw_only=True):
    """One of the two."""

    value: str | None = None
    from_path: RegexSubstitution | None = None


class HeaderAdd(Spec, frozen=True, kw_only=True):
    """A header to set, or to append to what is there."""

    name: str = ""
    value: str = ""
    append: bool = False


class HeaderRemove(Spec, frozen=True, kw_only=True):
    """A header to remove."""

    name: str = ""


class ModifyHeaders(Spec, frozen=True, kw_only=True):
    """Changes of request or response headers."""

    add: tuple[HeaderAdd, ...] = ()
    remove: tuple[HeaderRemove, ...] = ()


class HttpModify(Spec, frozen=True, kw_only=True):
    """Changes made on the way."""

    path: ModifyPath | None = None
    host: ModifyHost | None = None
    request_headers: ModifyHeaders | None = None
    response_headers: ModifyHeaders | None = None


class Split(Spec, frozen=True, kw_only=True):
    """A share of the traffic: relative `weight`, 0 = not used."""

    weight: int | None = None
    destination: Tags = NO_TAGS


class HttpRule(Spec, frozen=True, kw_only=True):
    """One HTTP rule: the first whose match holds decides."""

    match: HttpMatch | None = None
    modify: HttpModify | None = None
    split: tuple[Split, ...] = ()
    destination: Tags = NO_TAGS


class RoundRobin(Spec, frozen=True, kw_only=True):
    """Each endpoint in turn."""


class LeastRequest(Spec, frozen=True, kw_only=True):
    """The least loaded of `choice_count` endpoints; 0 leaves Envoy's default of 2."""

    choice_count: int = 0


class RingHash(Spec, frozen=True, kw_only=True):
    """Ketama hashing; `hash_function` is XX_HASH or MURMUR_HASH_2, sizes of 0 are unset."""

    hash_function: str = ""
    min_ring_size: UInt64 = 0
    max_ring_size: UInt64 = 0


class Random(Spec, frozen=True, kw_only=True):
    """Any endpoint."""


class Maglev(Spec, frozen=True, kw_only=True):
    """Maglev hashing."""


class LoadBalancer(OneOf, frozen=True, kw_only=True):
    """At most one of the kinds; none means round robin."""

    round_robin: RoundRobin | None = None
    least_request: LeastRequest | None = None
    ring_hash: RingHash | None = None
    random: Random | None = None
    maglev: Maglev | None = None


class TrafficRouteConf(Spec, frozen=True, kw_only=True):
    """The default `split` (or `destination`, a split of one) and the HTTP rules before it."""

    split: tuple[Split, ...] = ()
    load_balancer: LoadBalancer | None = None
    destination: Tags = NO_TAGS
    http: tuple[HttpRule, ...] = ()


class TrafficRoute(ConnectionPolicy, frozen=True, kw_only=True):
    """The spec of a TrafficRoute resource."""

    conf: TrafficRouteConf | None = None

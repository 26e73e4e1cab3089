"""TrafficRoute (R §2.6). What Envoy would refuse and Kuma lets through is refused here (`expressions`, `headers`)."""

from __future__ import annotations

from snapshot.model.rules.expressions import check_expressions
from snapshot.model.rules.headers import check_headers, check_line_breaks
from snapshot.model.rules.paths import key
from snapshot.model.rules.tags import ONLY_SERVICE, WITH_SERVICE, check_connection, check_tags
from snapshot.model.tags import Tags
from snapshot.model.traffic_route import (
    HttpMatch,
    HttpModify,
    HttpRule,
    LoadBalancer,
    ModifyHost,
    ModifyPath,
    RegexSubstitution,
    Split,
    StringMatcher,
    TrafficRoute,
    TrafficRouteConf,
)
from snapshot.model.validation import Violation

HASH_FUNCTIONS = frozenset({"XX_HASH", "MURMUR_HASH_2"})

_EMPTY = "cannot be empty"
_NO_MATCHER = 'cannot be empty. Available options: "exact", "split" or "regex"'
_NO_CONDITION = 'must be present and contain at least one of the elements: "method", "path" or "headers"'


def validate(spec: TrafficRoute) -> list[Violation]:
    """All violations, in order."""
    return check_connection(spec, WITH_SERVICE, ONLY_SERVICE) + _check_conf(spec.conf)


def _check_conf(conf: TrafficRouteConf | None) -> list[Violation]:
    if conf is None:
        return [Violation("conf", _EMPTY)]
    violations = _check_destinations("conf", conf.split, conf.destination)
    for index, rule in enumerate(conf.http):
        violations += _check_rule(f"conf.http[{index}]", rule)
    return violations + check_expressions(conf) + _check_load_balancer(conf.load_balancer)


def _check_destinations(path: str, split: tuple[Split, ...], destination: Tags) -> list[Violation]:
    violations = []
    if not split and not destination:
        violations.append(Violation(path, 'requires either "destination" or "split"'))
    if split and destination:
        violations.append(Violation(path, '"split" cannot be defined at the same time as "destination"'))
    if split and not any(entry.weight for entry in split):
        violations.append(Violation(f"{path}.split", "there must be at least one split entry with weight above 0"))
    for index, entry in enumerate(split):
        if entry.weight is None:
            violations.append(Violation(f"{path}.split[{index}].weight", "needs to be defined"))
        violations += check_tags(f"{path}.split[{index}].destination", entry.destination, WITH_SERVICE)
    if destination:
        violations += check_tags(f"{path}.destination", destination, WITH_SERVICE)
    return violations


def _check_rule(path: str, rule: HttpRule) -> list[Violation]:
    return [
        *_check_match(f"{path}.match", rule.match),
        *_check_modify(f"{path}.modify", rule.modify, rule.match),
        *_check_destinations(path, rule.split, rule.destination),
    ]


def _check_match(path: str, match: HttpMatch | None) -> list[Violation]:
    if match is None or not (match.method or match.path or match.headers):
        return [Violation(path, _NO_CONDITION)]
    violations = _check_matcher(f"{path}.method", match.method) + _check_matcher(f"{path}.path", match.path)
    for name, matcher in match.headers:
        header = key(f"{path}.headers", name)
        violations += [Violation(header, _EMPTY)] if not name else check_line_breaks(header, name)
        violations += _check_matcher(header, matcher)
    return violations


def _check_matcher(path: str, matcher: StringMatcher | None) -> list[Violation]:
    if matcher is None:
        return []
    if matcher.prefix is None and matcher.exact is None and matcher.regex is None:
        return [Violation(path, _NO_MATCHER)]
    given = (("prefix", matcher.prefix), ("regex", matcher.regex))
    return [Violation(f"{path}.{field}", _EMPTY) for field, value in given if value is not None and not value]


def _check_modify(path: str, modify: HttpModify | None, match: HttpMatch | None) -> list[Violation]:
    if modify is None:
        return []
    return [
        *_check_path(f"{path}.path", modify.path, match),
        *_check_host(f"{path}.host", modify.host),
        *check_headers(f"{path}.requestHeaders", modify.request_headers),
        *check_headers(f"{path}.responseHeaders", modify.response_headers),
    ]


def _check_path(path: str, modify: ModifyPath | None, match: HttpMatch | None) -> list[Violation]:
    if modify is None:
        return []
    if modify.regex is not None:
        return _check_substitution(f"{path}.regex", modify.regex)
    if modify.rewrite_prefix is None:
        return [Violation(path, 'either "rewritePrefix" or "regex" has to be set')]
    violations = _check_filled(f"{path}.rewritePrefix", modify.rewrite_prefix)
    violations += check_line_breaks(f"{path}.rewritePrefix", modify.rewrite_prefix)
    if match is None or match.path is None or not match.path.prefix:
        text = "can only be set when .http.match.path.prefix is not empty"
        violations.append(Violation(f"{path}.rewritePrefix", text))
    return violations


def _check_host(path: str, modify: ModifyHost | None) -> list[Violation]:
    if modify is None:
        return []
    if modify.from_path is not None:
        return _check_substitution(f"{path}.fromPath", modify.from_path)
    if modify.value is None:
        return [Violation(path, 'either "value" or "fromPath" has to be set')]
    return _check_filled(f"{path}.value", modify.value) + check_line_breaks(f"{path}.value", modify.value)


def _check_substitution(path: str, modify: RegexSubstitution) -> list[Violation]:
    place = f"{path}.substitution"
    return [
        *_check_filled(f"{path}.pattern", modify.pattern),
        *_check_filled(place, modify.substitution),
        *check_line_breaks(place, modify.substitution),
    ]


def _check_filled(path: str, value: str) -> list[Violation]:
    return [] if value else [Violation(path, _EMPTY)]


def _check_load_balancer(balancer: LoadBalancer | None) -> list[Violation]:
    if balancer is None or balancer.ring_hash is None or balancer.ring_hash.hash_function in HASH_FUNCTIONS:
        return []
    return [Violation("conf.loadBalancer.ringHash.hashFunction", "must have a valid hash function")]

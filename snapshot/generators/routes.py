"""From the HTTP rules of a TrafficRoute to Envoy's routes (X §3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snapshot.envoy.routes import METHOD, exact_path, header, header_to_add, prefix, route
from snapshot.envoy.values import beginning_with, exactly, matching, regex
from snapshot.model.traffic_route import (
    HttpMatch,
    HttpModify,
    HttpRule,
    ModifyHeaders,
    ModifyHost,
    ModifyPath,
    RegexSubstitution,
    StringMatcher,
)


def default_route(clusters: Sequence[tuple[str, int]]) -> Any:
    """The route of all that no rule takes."""
    return route(prefix("/"), clusters)


def rule_route(rule: HttpRule, clusters: Sequence[tuple[str, int]]) -> Any:
    """The route of one HTTP rule to `clusters`, each with its weight."""
    made = route(_match(rule.match or HttpMatch()), clusters)
    if rule.modify is not None:
        _modify(made, rule.modify)
    return made


def _match(match: HttpMatch) -> Any:
    made = _path(match.path) if match.path else prefix("/")
    made.headers.extend(header(name, _text(matcher)) for name, matcher in sorted(match.headers, key=lambda h: h[0]))
    if match.method:
        made.headers.append(header(METHOD, _text(match.method)))
    return made


def _path(matcher: StringMatcher) -> Any:
    if matcher.regex is not None:
        made = prefix("")
        made.safe_regex.CopyFrom(regex(matcher.regex))
        return made
    return exact_path(matcher.exact) if matcher.exact is not None else prefix(matcher.prefix or "/")


def _text(matcher: StringMatcher) -> Any:
    if matcher.regex is not None:
        return matching(matcher.regex)
    return exactly(matcher.exact) if matcher.exact is not None else beginning_with(matcher.prefix or "")


def _modify(made: Any, modify: HttpModify) -> None:
    if modify.path is not None:
        _rewrite_path(made.route, modify.path)
    if modify.host is not None:
        _rewrite_host(made.route, modify.host)
    for direction, headers in (("request", modify.request_headers), ("response", modify.response_headers)):
        if headers is not None:
            _modify_headers(made, direction, headers)


def _rewrite_path(action: Any, path: ModifyPath) -> None:
    if path.rewrite_prefix is not None:
        action.prefix_rewrite = path.rewrite_prefix
    elif path.regex is not None:
        substitute(action.regex_rewrite, path.regex)


def _rewrite_host(action: Any, host: ModifyHost) -> None:
    if host.value is not None:
        action.host_rewrite_literal = host.value
    elif host.from_path is not None:
        substitute(action.host_rewrite_path_regex, host.from_path)


def substitute(target: Any, substitution: RegexSubstitution) -> None:
    """Fill a RegexMatchAndSubstitute."""
    target.pattern.CopyFrom(regex(substitution.pattern))
    target.substitution = substitution.substitution


def _modify_headers(made: Any, direction: str, headers: ModifyHeaders) -> None:
    to_add, to_remove = getattr(made, f"{direction}_headers_to_add"), getattr(made, f"{direction}_headers_to_remove")
    to_add.extend(header_to_add(add.name, add.value, append=add.append) for add in headers.add)
    to_remove.extend(remove.name for remove in headers.remove)

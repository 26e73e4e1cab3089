"""Regular expressions as RE2, Envoy's engine, understands them: one that it refuses would take its listener with it.

Kuma 1.5 does not look at them. RE2 is imported when the first expression is checked, so that commands which check none
start without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from snapshot.model.rules.paths import key, quoted
from snapshot.model.traffic_route import HttpRule, StringMatcher, TrafficRouteConf
from snapshot.model.validation import Violation

MOST_INSTRUCTIONS: Final = 1_000_000
"""Bound on the compiled size of all expressions of one resource, which bounds the time that checking them takes."""

_LEAST_COST: Final = 100
_COST_OF_TOO_LARGE: Final = 250_000
"""What RE2 has compiled by the time it gives up, roughly: such an expression takes as long as all of this."""

_TOO_MANY: Final = f"the regular expressions of this resource are larger than {MOST_INSTRUCTIONS} instructions together"
_REFERENCE: Final = re.compile(r"\\(.?)", re.DOTALL)


class _Expression(NamedTuple):
    """One expression with its path, and the same of what replaces its matches (None where it only matches)."""

    path: str
    pattern: str
    substitution_path: str = ""
    substitution: str | None = None


def check_expressions(conf: TrafficRouteConf) -> list[Violation]:
    """Violations of all expressions and substitutions of a TrafficRoute; empty ones are passed over."""
    violations: list[Violation] = []
    left = MOST_INSTRUCTIONS
    for found in _expressions(conf):
        if left <= 0:
            return [*violations, Violation("conf.http", _TOO_MANY)]
        compiled = _compiled(found.pattern)
        if isinstance(compiled, str):
            left -= _COST_OF_TOO_LARGE if "too large" in compiled else _LEAST_COST
            reason = f"{quoted(found.pattern)} is no valid RE2 expression: {compiled}"
            violations.append(Violation(found.path, reason))
        else:
            left -= _LEAST_COST + int(compiled.programsize)
            if found.substitution is not None:
                violations += _check_substitution(found.substitution_path, found.substitution, int(compiled.groups))
    return violations


def _compiled(pattern: str) -> Any:
    """The compiled expression, or what RE2 says against it."""
    import re2  # noqa: PLC0415 - see the docstring of this module

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        (reason,) = error.args
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    finally:
        re2.purge()  # its cache would hold hundreds of megabytes of what only had to be looked at


def _check_substitution(path: str, text: str, groups: int) -> list[Violation]:
    """Envoy accepts a wrong reference, and then leaves every path as it is."""
    for reference in _REFERENCE.finditer(text):
        name = reference[1]
        if name in set("0123456789"):
            if int(name) <= groups:
                continue
            reason = f"{quoted(text)} refers to group {name}, but the pattern has only {groups}"
        elif name == "\\":
            continue
        else:
            reason = f"{quoted(text)} has a backslash that is not followed by the number of a group; write two for one"
        return [Violation(path, reason)]
    return []


def _expressions(conf: TrafficRouteConf) -> Iterator[_Expression]:
    for index, rule in enumerate(conf.http):
        yield from _matched(f"conf.http[{index}].match", rule)
        yield from _replaced(f"conf.http[{index}].modify", rule)


def _matched(path: str, rule: HttpRule) -> Iterator[_Expression]:
    if rule.match is None:
        return
    matchers: list[tuple[str, StringMatcher | None]] = [("method", rule.match.method), ("path", rule.match.path)]
    matchers += [(key("headers", name), matcher) for name, matcher in rule.match.headers]
    for field, matcher in matchers:
        if matcher is not None and matcher.regex:
            yield _Expression(f"{path}.{field}.regex", matcher.regex)


def _replaced(path: str, rule: HttpRule) -> Iterator[_Expression]:
    if rule.modify is None:
        return
    changes = (
        ("path.regex", rule.modify.path.regex if rule.modify.path else None),
        ("host.fromPath", rule.modify.host.from_path if rule.modify.host else None),
    )
    for field, change in changes:
        if change is not None and change.pattern:
            place = f"{path}.{field}"
            yield _Expression(f"{place}.pattern", change.pattern, f"{place}.substitution", change.substitution)

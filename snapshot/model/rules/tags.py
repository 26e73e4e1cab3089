"""The rules of tags and selectors that all types share (R §2.2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from snapshot.model.rules.paths import key, quoted
from snapshot.model.selector import ConnectionPolicy, Selector
from snapshot.model.tags import SERVICE, Tags
from snapshot.model.validation import Violation

MapCheck = Callable[[str, Tags], list[Violation]]
"""Looks at a whole map, given its path."""

_NAME = re.compile(r"[a-zA-Z0-9.\-_:/]*")
_NAME_EMPTY = "tag name must be non-empty"
_NAME_CHARACTERS = "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores"
_VALUE_EMPTY = "tag value must be non-empty"
_NO_TAG = "must have at least one tag"
_NO_SELECTOR = "must have at least one element"
NO_SERVICE = f'mandatory tag "{SERVICE}" is missing'


class ValueRule(NamedTuple):
    """The characters that values may have, and what to say otherwise."""

    pattern: re.Pattern[str]
    message: str


TAG = ValueRule(
    re.compile(r"[a-zA-Z0-9.\-_:]*"), "tag value must consist of alphanumeric characters, dots, dashes and underscores"
)
"""Values of the tags of proxies and their outbounds."""

SELECTOR = ValueRule(
    re.compile(r"[a-zA-Z0-9.\-_:/]*|\*"),
    'tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be "*"',
)
"""Values in selectors and destinations."""


class TagsRule(NamedTuple):
    """What is asked of one map."""

    values: ValueRule
    one_tag: bool = False
    service: bool = False
    whole: MapCheck | None = None
    """Goes before the entries."""
    only_service: bool = False


ANY_TAGS = TagsRule(SELECTOR, one_tag=True)
WITH_SERVICE = TagsRule(SELECTOR, one_tag=True, service=True)
ONLY_SERVICE = TagsRule(SELECTOR, one_tag=True, service=True, only_service=True)


def check_tags(path: str, tags: Tags, rule: TagsRule) -> list[Violation]:
    """Violations of the map at `path`: of the whole, then entry by entry in order of the names, then of the service."""
    violations = []
    if rule.one_tag and not tags:
        violations.append(Violation(path, _NO_TAG))
    if rule.only_service and len(tags) != 1:
        violations.append(Violation(path, f'must consist of exactly one tag "{SERVICE}"'))
    if rule.whole is not None:
        violations += rule.whole(path, tags)
    for name, value in tags.items():
        violations += _check_entry(path, name, value, rule)
    if rule.service and SERVICE not in tags:
        violations.append(Violation(path, NO_SERVICE))
    return violations


def _check_entry(path: str, name: str, value: str, rule: TagsRule) -> list[Violation]:
    violations = []
    if not name:
        violations.append(Violation(path, _NAME_EMPTY))
    if _NAME.fullmatch(name) is None:
        violations.append(Violation(key(path, name), _NAME_CHARACTERS))
    if rule.only_service and name != SERVICE:
        violations.append(Violation(key(path, name), f"tag {quoted(name)} is not allowed"))
    if not value:
        violations.append(Violation(key(path, name), _VALUE_EMPTY))
    if rule.values.pattern.fullmatch(value) is None:
        violations.append(Violation(key(path, name), rule.values.message))
    return violations


def check_connection(policy: ConnectionPolicy, sources: TagsRule, destinations: TagsRule) -> list[Violation]:
    """Violations of the selectors of a connection policy."""
    return _check_selectors("sources", policy.sources, sources) + _check_selectors(
        "destinations", policy.destinations, destinations
    )


def _check_selectors(path: str, selectors: tuple[Selector, ...], rule: TagsRule) -> list[Violation]:
    if not selectors:
        return [Violation(path, _NO_SELECTOR)]
    return [
        violation
        for index, selector in enumerate(selectors)
        for violation in check_tags(f"{path}[{index}].match", selector.match, rule)
    ]

"""Selectors: how policies and constraints name the proxies and services they concern (R §1.6, §3.1)."""

from __future__ import annotations

from snapshot.model.meta import Spec
from snapshot.model.tags import NO_TAGS, Tags


class Selector(Spec, frozen=True, kw_only=True):
    """Selects tag sets by `match`: equal values, or `*` for any."""

    match: Tags = NO_TAGS


class TagSelector(Spec, frozen=True, kw_only=True):
    """The same under the name that mesh constraints use."""

    tags: Tags = NO_TAGS


class ConnectionPolicy(Spec, frozen=True, kw_only=True):
    """Base of the policies that concern connections from sources to destinations."""

    sources: tuple[Selector, ...] = ()
    destinations: tuple[Selector, ...] = ()

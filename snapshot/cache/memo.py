"""Memo: equal inputs give the identical object, as long as somebody holds it (L5).

Never here: what is built.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from snapshot.cache.resource import XdsResource

_Made = TypeVar("_Made")


class Memo:
    """Remembers what builders made, by the value of their inputs, through weak references.

    Hold the results (a published build does) to keep them remembered. `made` counts the builders that ran.
    """

    __slots__ = ("_made", "_shared", "made")

    def __init__(self) -> None:
        self._made: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
        self._shared: WeakValueDictionary[tuple[str, str, str], XdsResource] = WeakValueDictionary()
        self.made = 0

    def recall(self, make: Callable[..., _Made], *inputs: Hashable) -> _Made:
        """What `make(memo, *inputs)` returned for equal inputs, or else what it returns now.

        `inputs` must decide the result fully; the memo is passed so that `make` can share what it is made of.
        """
        question = (make, inputs)
        known: _Made | None = self._made.get(question)
        if known is not None:
            return known
        self.made += 1
        made = self._made[question] = make(self, *inputs)
        return made

    def share(self, resource: XdsResource) -> XdsResource:
        """The one object of this type, name and content; different inputs may lead to the same content."""
        return self._shared.setdefault((resource.type_url, resource.name, resource.version), resource)

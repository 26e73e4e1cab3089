"""Tags: the label sets that inbounds, outbounds, gateways and selectors carry."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping

SERVICE = "kuma.io/service"
PROTOCOL = "kuma.io/protocol"
ZONE = "kuma.io/zone"

ANY = "*"
"""The selector value that any non-empty tag value satisfies."""


class Tags(Mapping[str, str]):
    """An immutable, hashable string map; iterates in sorted key order, so equal sets look equal everywhere."""

    __slots__ = ("_hash", "_items")

    def __init__(self, items: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._items: dict[str, str] = dict(sorted(dict(items).items()))
        self._hash = hash(tuple(self._items.items()))

    def __getitem__(self, key: str) -> str:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> ItemsView[str, str]:
        """The pairs, sorted by key."""
        return self._items.items()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Tags):
            return self._items == other._items
        return NotImplemented

    def __repr__(self) -> str:
        return f"Tags({self._items!r})"

    @property
    def service(self) -> str:
        """Value of `kuma.io/service`, or "" where it is missing."""
        return self._items.get(SERVICE, "")

    def without(self, *keys: str) -> Tags:
        """These tags except `keys`."""
        return Tags({k: v for k, v in self._items.items() if k not in keys})

    def with_(self, extra: Mapping[str, str]) -> Tags:
        """These tags, overwritten by `extra`."""
        return Tags({**self._items, **extra})

    def matches(self, selector: Mapping[str, str]) -> bool:
        """Whether `selector` selects this set: each key present, with an equal value or `*` (R §3.1)."""
        mine = self._items
        return all((have := mine.get(k)) is not None and v in (ANY, have) for k, v in selector.items())


NO_TAGS = Tags()

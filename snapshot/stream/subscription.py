"""What one stream has asked for of one type, as a value: wildcard, legacy wildcard and explicit names told apart."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

WILDCARD_NAME: Final = "*"


class Wildcard(enum.Enum):
    """Whether all resources of the type are wanted, and by which of the two ways of saying so."""

    NONE = "none"
    LEGACY = "legacy"
    """Nothing was ever named (XP-21, XP-31)."""
    EXPLICIT = "explicit"
    """`*` was named (XP-23)."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """`names` are the resources asked for one by one, without `*`.

    `named` says that some request of this stream has named something: from then on an empty list is no wildcard.
    """

    wildcard: Wildcard = Wildcard.NONE
    names: frozenset[str] = frozenset()
    named: bool = False

    @property
    def everything(self) -> bool:
        """All resources of the type are wanted, whatever their names."""
        return self.wildcard is not Wildcard.NONE

    def listing(self, names: Iterable[str], *, legacy: bool) -> Subscription:
        """After a SotW request with the whole list `names`; `legacy`: an empty list can mean all (XP-20 to XP-25)."""
        listed = frozenset(names)
        if listed == self.names and not self.everything and self.named:
            return self
        if listed:
            wildcard = Wildcard.EXPLICIT if WILDCARD_NAME in listed else Wildcard.NONE
            return Subscription(wildcard, listed - {WILDCARD_NAME}, named=True)
        if legacy and not self.named:
            return Subscription(Wildcard.LEGACY)
        return Subscription(named=self.named)

    def changing(self, subscribe: Iterable[str], unsubscribe: Iterable[str], *, legacy: bool) -> Subscription:
        """After a delta request; `legacy` as above. A name in both lists ends unsubscribed (XP-30 to XP-33)."""
        added, dropped = frozenset(subscribe), frozenset(unsubscribe)
        named = self.named or bool(added)
        wildcard = self.wildcard
        if legacy and not named:
            wildcard = Wildcard.LEGACY
        if WILDCARD_NAME in added:
            wildcard = Wildcard.EXPLICIT
        if WILDCARD_NAME in dropped:
            wildcard, named = Wildcard.NONE, True
        return Subscription(wildcard, (self.names | added) - dropped - {WILDCARD_NAME}, named)

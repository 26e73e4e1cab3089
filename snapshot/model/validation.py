"""Violations: what is wrong with a resource, each with the path of its field (R §2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Violation(NamedTuple):
    """One broken rule: `field` is a path such as `networking.inbound[0].port`, `message` the rule's text."""

    field: str
    message: str


class ValidationError(Exception):
    """A resource breaks rules; all of them are listed, in the order of R §2."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{field}: {message}" for field, message in self.violations))

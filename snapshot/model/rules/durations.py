"""Rules of durations and numbers that policies share (R §2.7)."""

from __future__ import annotations

from snapshot.model.meta import Spec
from snapshot.model.validation import Violation

GREATER_THAN_0 = "has to be greater than 0"
WHEN_DEFINED = "has to be greater than 0 when defined"


def positive(path: str, value: int | None, text: str = WHEN_DEFINED) -> list[Violation]:
    """A duration or a count that must be above 0 where it is present."""
    return [Violation(path, text)] if value is not None and value <= 0 else []


def is_empty(message: Spec) -> bool:
    """Whether a message is present and holds nothing."""
    return message == type(message)()

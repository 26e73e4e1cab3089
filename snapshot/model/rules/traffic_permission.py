"""TrafficPermission: any tags on both sides, at least one (R §2.2)."""

from __future__ import annotations

from snapshot.model.policies import TrafficPermission
from snapshot.model.rules.tags import ANY_TAGS, check_connection
from snapshot.model.validation import Violation


def validate(spec: TrafficPermission) -> list[Violation]:
    """All violations, in order."""
    return check_connection(spec, ANY_TAGS, ANY_TAGS)

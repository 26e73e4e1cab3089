"""The names of resources and meshes (R §2.1)."""

from __future__ import annotations

import re

from snapshot.model.kinds import Scope, kind_of
from snapshot.model.validation import Violation

_NAME = re.compile(r"[0-9a-z\-_]*")
_EMPTY = "cannot be empty"
_CHARACTERS = "invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_' symbols."
_LONGEST_NAME = 253
_LENGTH = f"must not be longer than {_LONGEST_NAME} characters"


def validate_meta(type_name: str, mesh: str, name: str) -> list[Violation]:
    """What is wrong with the key of a resource; `mesh` counts only for types of a mesh. Raises UnknownType."""
    violations = _check("name", name)
    return violations + _check("mesh", mesh) if kind_of(type_name).scope is Scope.MESH else violations


def _check(field: str, value: str) -> list[Violation]:
    if not value:
        return [Violation(field, _EMPTY)]
    if _NAME.fullmatch(value) is None:
        return [Violation(field, _CHARACTERS)]
    # Kuma has no limit of its own; its newer releases take 253, and node ids and file names carry the name
    return [Violation(field, _LENGTH)] if len(value) > _LONGEST_NAME else []

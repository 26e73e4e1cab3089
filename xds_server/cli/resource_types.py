"""The words that users of `kumactl` have for resource types, and where each lives in the REST API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snapshot.registry import TYPES, Scope, TypeDescriptor
from xds_server.cli.rest import CommandError, path_of


def is_global(kind: TypeDescriptor) -> bool:
    """Whether the type has no mesh."""
    return kind.scope is Scope.GLOBAL


def by_word(word: str, *, many: bool = False) -> tuple[TypeDescriptor, bool]:
    """The type of a word such as `dataplane`, and whether the word was the plural (only taken with `many`).

    Raises CommandError with the words allowed.
    """
    singular = {kind.cli_one: kind for kind in TYPES.values() if kind.cli_one}
    plural = {kind.cli_many: kind for kind in TYPES.values() if kind.cli_many} if many else {}
    if found := plural.get(word):
        return found, True
    if found := singular.get(word):
        return found, False
    raise CommandError(f"unknown TYPE: {word}. Allowed values: {', '.join(sorted(singular | plural))}")


def of_document(document: Mapping[str, Any]) -> TypeDescriptor:
    """The type a document names. Raises CommandError listing what exists."""
    name = document.get("type", "")
    if isinstance(name, str) and name in TYPES:
        return TYPES[name]
    known = ", ".join(kind.name for kind in TYPES.values() if not kind.read_only)
    raise CommandError(
        f"type: {name!r} is not a type of this version; known: {known}" if name else "type: cannot be empty"
    )


def collection_path(kind: TypeDescriptor, mesh: str) -> str:
    """Where the resources of one mesh (or all, of a global type) are listed. Raises CommandError for no mesh's name."""
    return path_of(kind.path) if is_global(kind) else path_of("meshes", _checked("mesh", mesh), kind.path)


def resource_path(kind: TypeDescriptor, mesh: str, name: str) -> str:
    """Where one resource is. Raises CommandError for a name that no resource can have."""
    return collection_path(kind, mesh) + path_of(_checked("name", name))


def _checked(what: str, given: str) -> str:
    if "/" in given or given in {"", ".", ".."}:
        raise CommandError(f"{what}: {given!r} is no {what}; it consists of a-z, 0-9, '-' and '_'")
    return given

"""Documents ↔ resources: protobuf's JSON with the meta fields beside the spec, as Kuma reads and prints it (R §0)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from snapshot.model import decoding
from snapshot.model.decoding import DecodeError
from snapshot.model.kinds import Scope, UnknownType, kind_of
from snapshot.model.mesh import Mesh
from snapshot.model.meta import Resource, ResourceKey, Spec
from snapshot.model.schema import camel_case, message
from snapshot.model.times import format_meta_time

__all__ = ["DecodeError", "Decoded", "UnknownType", "decode_resource", "decode_spec", "encode_resource", "encode_spec"]

META_FIELDS = frozenset({"type", "mesh", "name", "creationTime", "modificationTime"})
_MOST_WARNINGS = 50
_LONGEST_PATH = 300


class Decoded(NamedTuple):
    """A spec, and what its document said in vain."""

    spec: Any
    warnings: tuple[str, ...]


def decode_spec(type_name: str, document: Mapping[str, Any]) -> Decoded:
    """The spec of type `type_name` in a parsed YAML or JSON object; meta fields at its top are passed over.

    Unknown fields are returned as warnings with their paths. Raises DecodeError, never another exception
    (UnknownType, one of them, where there is no such type); it holds all faults, in the order of the document.
    """
    kind = kind_of(type_name)
    entries = decoding.as_object(document)
    unknown: decoding.Unknown = []
    spec = message(kind.spec).decode({key: entries[key] for key in entries if key not in META_FIELDS}, unknown)
    warnings = [_unknown_field(path) for path in unknown[:_MOST_WARNINGS]]
    if len(unknown) > _MOST_WARNINGS:
        warnings.append(f"{len(unknown) - _MOST_WARNINGS} more unknown fields, which have no effect either")
    return Decoded(spec, (*warnings, *_without_effect(spec)))


def decode_resource(document: Any) -> tuple[ResourceKey, Decoded]:
    """The key and the spec of a whole document, as files and requests hold it. Raises DecodeError.

    A missing name or mesh is "" in the key (`rules.meta` says so with the other violations); the times are ignored.
    """
    entries = decoding.as_object(document)
    faults = decoding.Faults()
    type_name = _meta_field(entries, "type", faults)
    if not type_name and not faults:
        faults.add(DecodeError("type", 'cannot be empty. Name the type of the resource, such as "type: Dataplane"'))
    mesh, name = _meta_field(entries, "mesh", faults), _meta_field(entries, "name", faults)
    if not type_name:
        raise faults.error()
    scope = kind_of(type_name).scope
    try:
        decoded = decode_spec(type_name, entries)
    except DecodeError as error:
        faults.add(error)
        raise faults.error() from error
    if faults:
        raise faults.error()
    if scope is Scope.GLOBAL and mesh:
        mesh = ""
        warning = f"mesh: a {type_name} belongs to no mesh, this has no effect"
        decoded = Decoded(decoded.spec, (warning, *decoded.warnings))
    return ResourceKey(type_name, mesh, name), decoded


def encode_spec(spec: Spec) -> dict[str, Any]:
    """The spec as REST prints it: fields in the order of the schema, nothing at its zero value."""
    printed: dict[str, Any] = message(type(spec)).encode(spec)
    return printed


def encode_resource(resource: Resource) -> dict[str, Any]:
    """The resource as REST prints it: `type, mesh, name, creationTime, modificationTime`, then the spec."""
    key = resource.key
    meta = {"type": key.type}
    if kind_of(key.type).scope is Scope.MESH:
        meta["mesh"] = key.mesh
    meta["name"] = key.name
    meta["creationTime"] = format_meta_time(resource.creation_time)
    meta["modificationTime"] = format_meta_time(resource.modification_time)
    return meta | encode_spec(resource.spec)


def _meta_field(entries: Mapping[Any, Any], field: str, faults: decoding.Faults) -> str:
    value = entries.get(field)
    try:
        return "" if value is None else decoding.string(value, [])
    except DecodeError as error:
        faults.add(error, field)
        return ""


def _unknown_field(innermost_first: list[str]) -> str:
    path = ""
    for segment in reversed(innermost_first):
        path += segment if segment.startswith("[") or not path else f".{segment}"
    path = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}…"
    name = innermost_first[0]
    camel = camel_case(name)
    hint = f' Did you mean "{camel}"?' if "_" in name.strip("_") and len(name) <= _LONGEST_PATH else ""
    return f"{path}: unknown field, it has no effect.{hint}"


def _without_effect(spec: Spec) -> tuple[str, ...]:
    if isinstance(spec, Mesh) and spec.routing is not None and spec.routing.locality_aware_load_balancing:
        return ("routing.localityAwareLoadBalancing: has an effect only between zones, and this version has one zone",)
    return ()

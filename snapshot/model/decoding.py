"""Parsed JSON or YAML → scalars of a spec: what Go's JSON accepts, and why the rest is refused (R §0).

A decoder takes one value that is not null and the list that collects unknown fields. It raises DecodeError, never
another exception, and names values only by their kind or in a bounded form.
"""

from __future__ import annotations

import base64
import binascii
import enum
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

from snapshot.model.meta import Duration
from snapshot.model.tags import NO_TAGS, Tags
from snapshot.model.times import parse_duration, parse_timestamp

Unknown = list[list[str]]
"""Unknown fields: the segments of each path, innermost first."""

Decoder = Callable[[Any, Unknown], Any]

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_SHOWN_CHARACTERS = 64


class DecodeError(Exception):
    """A document that cannot be a resource: `field` is the path of the value ("" for all), `message` the fault."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.message = message
        super().__init__(f"{field}: {message}" if field else message)

    def within(self, segment: str) -> DecodeError:
        """The same fault, seen from one level above: `segment` is a field name, `[0]` or `["key"]`."""
        dot = "" if not self.field or self.field.startswith("[") else "."
        return DecodeError(f"{segment}{dot}{self.field}", self.message)


def json_kind(value: object) -> str:
    """What JSON calls a value."""
    if value is None:
        return "null"
    for kinds, name in _JSON_KINDS:
        if isinstance(value, kinds):
            return name
    return type(value).__name__


_JSON_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "bool"),
    ((int, float), "number"),
    (str, "string"),
    ((list, tuple), "array"),
    (Mapping, "object"),
    ((bytes, bytearray), "binary value"),
    ((date, datetime), "timestamp"),
)


def shown(text: str) -> str:
    """A text in quotes, in a form and of a length that every message can carry."""
    return f'"{utf8(text)}"' if len(text) <= _SHOWN_CHARACTERS else f'"{utf8(text[:_SHOWN_CHARACTERS])}…"'


def utf8(text: str) -> str:
    """`text`, with U+FFFD for what UTF-8 cannot carry, as in Go."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def refuse(value: object, go_type: str) -> DecodeError:
    """The error that Go's JSON gives for a value of a wrong kind."""
    return DecodeError("", f"json: cannot unmarshal {json_kind(value)} into Go value of type {go_type}")


def as_object(value: Any) -> Mapping[Any, Any]:
    """`value`, which must be an object."""
    if isinstance(value, Mapping):
        return value
    raise DecodeError("", f"must be an object, not {_with_article(json_kind(value))}")


def as_list(value: Any) -> list[Any] | tuple[Any, ...]:
    """`value`, which must be a list."""
    if isinstance(value, list | tuple):
        return value
    raise DecodeError("", f"must be a list, not {_with_article(json_kind(value))}")


def _with_article(kind: str) -> str:
    return kind if kind == "null" else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def string(value: Any, _unknown: Unknown) -> str:
    """A text."""
    if not isinstance(value, str):
        raise refuse(value, "string")
    return utf8(value)


def boolean(value: Any, _unknown: Unknown) -> bool:
    """True or false, nothing else."""
    if not isinstance(value, bool):
        raise refuse(value, "bool")
    return value


def unsigned(bits: int) -> Decoder:
    """Decoder of unsigned integers of 32 or 64 bits, which may be quoted."""
    go_type = f"uint{bits}"
    largest = 2**bits - 1

    def decode(value: Any, _unknown: Unknown) -> int:
        number = value
        if type(number) is not int:
            number = _integer_in(value, go_type)
        if 0 <= number <= largest:
            return number
        named = f"number {number}" if abs(number) < 2**80 else "a huge number"
        raise DecodeError("", f"json: cannot unmarshal {named} into Go value of type {go_type}")

    return decode


def _integer_in(value: Any, go_type: str) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        raise DecodeError("", f"json: cannot unmarshal number {value} into Go value of type {go_type}")
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    raise refuse(value, go_type)


def double(value: Any, _unknown: Unknown) -> float:
    """A finite number, which may be quoted."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise refuse(value, "float64")
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise refuse(value, "float64") from error
    if not math.isfinite(number):
        raise DecodeError("", "must be a finite number")
    return number


def duration(value: Any, _unknown: Unknown) -> Duration:
    """A duration in Go's syntax, in nanoseconds."""
    if not isinstance(value, str):
        raise refuse(value, "string")
    try:
        return parse_duration(utf8(value))
    except ValueError as error:
        raise DecodeError("", f'bad Duration: {error}. Write a number with a unit, such as "10s" or "1h30m"') from error


def timestamp(value: Any, _unknown: Unknown) -> datetime:
    """A time in RFC 3339, as UTC."""
    if not isinstance(value, str):
        raise refuse(value, "string")
    try:
        return parse_timestamp(value)
    except ValueError as error:
        raise DecodeError("", f"bad Timestamp: {shown(value)}: {error}") from error


def binary(value: Any, _unknown: Unknown) -> bytes:
    """Bytes in standard base64."""
    if not isinstance(value, str):
        raise refuse(value, "[]uint8")
    try:
        return base64.b64decode(value.replace("\n", "").replace("\r", "").encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise DecodeError("", "must be standard base64") from error


def tags(value: Any, _unknown: Unknown) -> Tags:
    """A map of strings. Keys that YAML read as numbers or booleans are texts; values must be texts, null is empty."""
    entries = value if type(value) is dict else as_object(value)
    if not entries:
        return NO_TAGS
    items = {}
    for key, entry in entries.items():
        name = key if type(key) is str and key.isascii() else key_text(key)
        if type(entry) is str and entry.isascii():
            items[name] = entry
            continue
        try:
            items[name] = "" if entry is None else string(entry, _unknown)
        except DecodeError as error:
            raise error.within(f"[{shown(name)}]") from error
    return Tags(items)


def key_text(key: object) -> str:
    """The text of a key: YAML allows other scalars, which Go prints as JSON does."""
    if isinstance(key, str):
        return utf8(key)
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, int) and abs(key) < 2**64:
        return str(key)
    if isinstance(key, float) and math.isfinite(key):
        return str(int(key)) if key.is_integer() and abs(key) < 2**53 else str(key)
    raise DecodeError("", f"keys must be texts, not {_with_article(json_kind(key))}")


def enum_name(names: tuple[str, ...]) -> Decoder:
    """Decoder of enums that a spec holds as names: a name in exact case, or its number."""
    known = ", ".join(names)

    def decode(value: Any, _unknown: Unknown) -> str:
        if isinstance(value, str) and value in names:
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and value in range(len(names)):
            return names[int(value)]
        given = shown(value) if isinstance(value, str) else f"this {json_kind(value)}"
        raise DecodeError("", f"{given} is not one of: {known}")

    return decode


def enum_member(cls: type[enum.Enum]) -> Decoder:
    """Decoder of enums that a spec holds as members."""
    names = tuple(member.name for member in sorted(cls, key=lambda member: member.value))
    by_name = enum_name(names)
    return lambda value, unknown: cls[by_name(value, unknown)]

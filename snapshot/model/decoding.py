"""Parsed JSON or YAML → scalars of a spec: what Go's JSON accepts, and why the rest is refused (R §0).

A decoder takes one value that is not null and the list that collects unknown fields. It raises DecodeError, never
another exception, and names values only by their kind or in a bounded form. A decoder of a value with parts reads
all of them before it raises, so that one error holds every fault.
"""

from __future__ import annotations

import base64
import binascii
import enum
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from snapshot.model.meta import Duration
from snapshot.model.tags import NO_TAGS, Tags
from snapshot.model.times import parse_duration, parse_timestamp
from snapshot.model.validation import Violation

Unknown = list[list[str]]
"""Unknown fields: the segments of each path, innermost first."""

Decoder = Callable[[Any, Unknown], Any]

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_SHOWN_CHARACTERS = 64


MOST_FAULTS = 100
"""So many faults of one document are named; of the others only the number is told."""
MOST_COUNTED_FAULTS = 10_000
"""From so many on, the rest of the document is not read: a large body of nothing but faults must not cost seconds."""


class DecodeError(Exception):
    """A document that cannot be a resource, with everything that cannot be read in it.

    `field` is the path of the first faulty value in the order of the document ("" for all of it), `message` its
    fault. `others` are the faults after it, `unnamed` is the number of those beyond `MOST_FAULTS`.
    """

    def __init__(self, field: str, message: str, others: Sequence[Violation] = (), unnamed: int = 0) -> None:
        self.field = field
        self.message = message
        self.named = (Violation(field, message), *others)
        self.unnamed = unnamed
        super().__init__(field, message)

    @property
    def violations(self) -> tuple[Violation, ...]:
        """All faults, at most `MOST_FAULTS`, then one entry of the field "" that tells how many more there are."""
        if not self.unnamed:
            return self.named
        at_least = "at least " if len(self.named) + self.unnamed >= MOST_COUNTED_FAULTS else ""
        return (*self.named, Violation("", f"and {at_least}{self.unnamed} more"))

    def __str__(self) -> str:
        return "; ".join(f"{field}: {message}" if field else message for field, message in self.violations)


class Faults:
    """What cannot be read in one message, list or map: the faults of its parts, kept while the others are read."""

    def __init__(self) -> None:
        self._named: list[Violation] = []
        self._unnamed = 0

    def __bool__(self) -> bool:
        return bool(self._named)

    def add(self, error: DecodeError, *path: str) -> None:
        """Keep the faults of the part at `path`: a field name, `[0]` or `["key"]`; none for a fault of the whole.

        Raises them all where they are `MOST_COUNTED_FAULTS` or more.
        """
        room = MOST_FAULTS - len(self._named)
        self._named += [Violation(_within(path, field), message) for field, message in error.named[:room]]
        self._unnamed += error.unnamed + max(0, len(error.named) - room)
        if self._unnamed >= MOST_COUNTED_FAULTS - MOST_FAULTS:
            raise self.error()

    def error(self) -> DecodeError:
        """All of them as one error, the first in front. Needs one `add` before."""
        (field, message), *others = self._named
        return DecodeError(field, message, others, self._unnamed)


def _within(path: Sequence[str], field: str) -> str:
    found = ""
    for segment in (*path, field):
        found += segment if not found or not segment or segment.startswith("[") else f".{segment}"
    return found


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
    faults: Faults | None = None
    for key, entry in entries.items():
        path: tuple[str, ...] = ()
        try:
            name = key if type(key) is str and key.isascii() else key_text(key)
            if type(entry) is str and entry.isascii():
                items[name] = entry
                continue
            path = (f"[{shown(name)}]",)
            items[name] = "" if entry is None else string(entry, _unknown)
        except DecodeError as error:
            faults = faults or Faults()
            faults.add(error, *path)
    if faults is not None:
        raise faults.error()
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

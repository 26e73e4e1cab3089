"""Protobuf's wire format, as much as it takes to put a response together from resources serialised before (XP-187)."""

from __future__ import annotations

from typing import Final

_LENGTH_DELIMITED: Final = 2
_MORE: Final = 0x80
_SINGLE: Final = tuple(bytes((value,)) for value in range(_MORE))


def varint(value: int) -> bytes:
    """`value` (not negative) in base 128, least significant group first."""
    if value < _MORE:
        return _SINGLE[value]
    groups = bytearray()
    while value >= _MORE:
        groups.append(value & 0x7F | _MORE)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def head(number: int, length: int) -> bytes:
    """Tag and length of a field of `length` bytes (string, bytes or message); its content follows."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(length)


def text(number: int, value: str) -> bytes:
    """A string field."""
    encoded = value.encode()
    return head(number, len(encoded)) + encoded


def data(number: int, *parts: bytes) -> bytes:
    """A field whose content is `parts` in a row: bytes, or a message that was serialised before."""
    return b"".join((head(number, sum(map(len, parts))), *parts))

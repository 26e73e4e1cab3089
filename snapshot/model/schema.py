"""Specs compiled from their annotations into decoders and encoders (R §0): one table a message, made once."""

from __future__ import annotations

import base64
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from snapshot.model import decoding
from snapshot.model.decoding import DecodeError, Decoder, Faults, Unknown
from snapshot.model.meta import Duration, EnumNames, OneOf, Spec, UInt64, Unsupported
from snapshot.model.tags import Tags
from snapshot.model.times import format_duration, format_timestamp

_ONLY_CAMEL_CASE = frozenset({
    "advertised_address", "base_ejection_time", "build_date", "from_path", "gateway_errors", "git_commit", "git_tag",
    "kuma_dp", "local_errors", "locality_aware_load_balancing", "max_connections", "max_ejection_percent",
    "max_pending_requests", "max_requests", "max_retries", "minimum_hosts", "request_headers", "request_volume",
    "response_headers", "rewrite_prefix", "service_address", "service_port", "service_probe",
    "split_external_and_local_errors", "standard_deviation", "total_errors",
})  # fmt: skip
"""Fields whose name in Kuma's schema is lowerCamelCase already: their snake_case form is an unknown field there."""

Encoder = Callable[[Any], Any]


class Field(NamedTuple):
    """One field of a message."""

    attribute: str
    name: str
    """The lowerCamelCase name: printed, and used in paths."""
    decode: Decoder
    encode: Encoder
    optional: bool
    """Whether presence matters: absent is None."""
    default: Any


class Codec(NamedTuple):
    """The two directions of one kind of value."""

    decode: Decoder
    encode: Encoder


def camel_case(snake: str) -> str:
    """`redirect_port_inbound_v6` → `redirectPortInboundV6`."""
    first, *others = snake.split("_")
    return first + "".join(word.capitalize() for word in others)


@functools.cache
def message(cls: type[Spec]) -> Codec:
    """The codec of the message `cls`."""
    if cls is Unsupported:
        return Codec(_decode_unsupported, lambda _value: {})
    fields = _fields(cls)
    return Codec(_message_decoder(cls, fields), _message_encoder(fields))


def _fields(cls: type[Spec]) -> tuple[Field, ...]:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = []
    for info in msgspec.structs.fields(cls):
        hint, optional = _without_none(hints[info.name])
        codec = _codec(hint)
        fields.append(Field(info.name, camel_case(info.name), codec.decode, codec.encode, optional, info.default))
    return tuple(fields)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if isinstance(hint, types.UnionType):
        (wrapped,) = (argument for argument in hint.__args__ if argument is not types.NoneType)
        return wrapped, True
    if typing.get_origin(hint) is typing.Union:  # the form that Annotated and NewType members take
        (wrapped,) = (argument for argument in typing.get_args(hint) if argument is not types.NoneType)
        return wrapped, True
    return hint, False


def _same(value: Any) -> Any:
    return value


_SCALARS: dict[Any, Codec] = {
    str: Codec(decoding.string, _same),
    bool: Codec(decoding.boolean, _same),
    int: Codec(decoding.unsigned(32), _same),
    UInt64: Codec(decoding.unsigned(64), str),
    float: Codec(decoding.double, lambda value: int(value) if value.is_integer() and abs(value) < 2**53 else value),
    bytes: Codec(decoding.binary, lambda value: base64.b64encode(value).decode()),
    Duration: Codec(decoding.duration, format_duration),
    datetime: Codec(decoding.timestamp, format_timestamp),
    Tags: Codec(decoding.tags, dict),
}


def _codec(hint: Any) -> Codec:
    if (scalar := _SCALARS.get(hint)) is not None:
        return scalar
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        return _map_of(element) if typing.get_origin(element) is tuple else _list_of(element)
    if typing.get_origin(hint) is typing.Annotated and isinstance(hint.__metadata__[0], EnumNames):
        return Codec(decoding.enum_name(hint.__metadata__[0].names), _same)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return Codec(decoding.enum_member(hint), lambda member: member.name)
    if isinstance(hint, type) and issubclass(hint, Spec):
        return message(hint)
    raise TypeError(f"a spec cannot hold {hint!r}: add its encoding here")


def _decode_unsupported(value: Any, _unknown: Unknown) -> Unsupported:
    decoding.as_object(value)
    return Unsupported()


def _message_decoder(cls: type[Spec], fields: tuple[Field, ...]) -> Decoder:
    known = {field.name: field for field in fields}
    known |= {field.attribute: field for field in fields if field.attribute not in _ONLY_CAMEL_CASE}
    exclusive = issubclass(cls, OneOf)

    def decode(given: Any, unknown: Unknown) -> Any:
        document = given if type(given) is dict else decoding.as_object(given)
        values: dict[str, Any] = {}
        faults: Faults | None = None
        for key, value in document.items():
            field = known.get(key)
            try:
                if field is None or (key != field.name and field.name in document):
                    unknown.append([decoding.key_text(key)])
                elif value is not None:
                    before = len(unknown)
                    values[field.attribute] = field.decode(value, unknown)
                    for path in unknown[before:]:
                        path.append(field.name)
            except DecodeError as error:
                faults = faults or Faults()
                if field is None:
                    faults.add(error)
                else:
                    faults.add(error, field.name)
                    values[field.attribute] = field.default  # given all the same, which counts where only one may be
        if exclusive and len(values) > 1:
            faults = faults or Faults()
            faults.add(_clash(fields, values))
        if faults is not None:
            raise faults.error()
        return cls(**values)

    return decode


def _clash(fields: tuple[Field, ...], values: Mapping[str, Any]) -> DecodeError:
    given = ", ".join(f'"{field.name}"' for field in fields if field.attribute in values)
    return DecodeError("", f"only one of {given} may be set")


def _message_encoder(fields: tuple[Field, ...]) -> Encoder:
    def encode(spec: Any) -> dict[str, Any]:
        printed: dict[str, Any] = {}
        for field in fields:
            value = getattr(spec, field.attribute)
            if value is None if field.optional else value == field.default:
                continue
            printed[field.name] = field.encode(value)
        return printed

    return encode


def _list_of(element: Any) -> Codec:
    codec = _codec(element)
    empty: Any = {} if isinstance(element, type) and issubclass(element, Spec) else None

    def decode(value: Any, unknown: Unknown) -> tuple[Any, ...]:
        items = []
        faults: Faults | None = None
        for index, given in enumerate(decoding.as_list(value)):
            before = len(unknown)
            try:
                items.append(codec.decode(empty if given is None else given, unknown))
            except DecodeError as error:
                faults = faults or Faults()
                faults.add(error, f"[{index}]")
            for path in unknown[before:]:
                path.append(f"[{index}]")
        if faults is not None:
            raise faults.error()
        return tuple(items)

    return Codec(decode, lambda values: [codec.encode(value) for value in values])


def _map_of(entry: Any) -> Codec:
    codec = _codec(typing.get_args(entry)[1])

    def decode(value: Any, unknown: Unknown) -> tuple[tuple[str, Any], ...]:
        items = {}
        faults: Faults | None = None
        for key, given in decoding.as_object(value).items():
            segments: tuple[str, ...] = ()
            try:
                name, before = decoding.key_text(key), len(unknown)
                segments = (f"[{decoding.shown(name)}]",)
                items[name] = codec.decode({} if given is None else given, unknown)
                for path in unknown[before:]:
                    path.extend(segments)
            except DecodeError as error:
                faults = faults or Faults()
                faults.add(error, *segments)
        if faults is not None:
            raise faults.error()
        return tuple(sorted(items.items(), key=lambda item: item[0]))

    return Codec(decode, lambda values: {name: codec.encode(value) for name, value in values})

"""Takes private keys and passwords out of Envoy's messages before anybody is shown them (XP-150)."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from udpa.annotations.sensitive_pb2 import sensitive

from snapshot.cache.resource import XdsResource
from snapshot.cache.type_url import SECRET

REDACTED: Final = "[redacted]"
MAY_HOLD_KEYS: Final = (b"transport_sockets.tls", b"PRIVATE KEY")
"""Only a resource that contains one of these is taken apart; the rest is shown as it is."""


def shown_body(resource: XdsResource) -> bytes:
    """The resource's body without what Envoy's API marks as sensitive."""
    body = resource.body
    if resource.type_url != SECRET and not any(marker in body for marker in MAY_HOLD_KEYS):
        return body
    message = _unpack(resource.type_url, body)
    if message is None:
        return b""
    redact(message)
    return bytes(message.SerializeToString(deterministic=True))


def redact(message: Any) -> None:
    """Blank every field that is marked sensitive, inside nested `Any` too; an unknown `Any` loses its content."""
    if isinstance(message, AnyMessage):
        _redact_any(message)
        return
    for field, value in message.ListFields():
        if field.GetOptions().Extensions[sensitive]:
            _blank(message, field)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for nested in _messages(field, value):
                redact(nested)


def _messages(field: Any, value: Any) -> list[Any]:
    entry = field.message_type.GetOptions().map_entry
    if entry:
        is_message = field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_MESSAGE
        return list(value.values()) if is_message else []
    return list(value) if hasattr(value, "__len__") and not hasattr(value, "ListFields") else [value]


def _blank(message: Any, field: Any) -> None:
    message.ClearField(field.name)
    if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.full_name == "envoy.config.core.v3.DataSource":
        target = getattr(message, field.name)
        (target if hasattr(target, "inline_string") else target.add()).inline_string = REDACTED


def _redact_any(packed: Any) -> None:
    message = _unpack(packed.type_url, packed.value)
    if message is None:
        packed.value = b""
        return
    redact(message)
    packed.value = message.SerializeToString(deterministic=True)


def _unpack(type_url: str, body: bytes) -> Any | None:
    try:
        message = descriptor_pool.Default().FindMessageTypeByName(type_url.rpartition("/")[2])
    except KeyError:
        return None

    return GetMessageClass(message).FromString(body)

"""The small values inside Envoy's messages: addresses, durations, packed messages, string matchers."""

from __future__ import annotations

from typing import Any, Final

from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.type.matcher.v3.regex_pb2 import RegexMatcher
from envoy.type.matcher.v3.string_pb2 import StringMatcher
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.duration_pb2 import Duration

_NANOSECONDS: Final = 1_000_000_000


def packed(message: Any) -> PackedMessage:
    """`message` as `Any`, serialised deterministically."""
    holder = PackedMessage()
    holder.Pack(message, deterministic=True)
    return holder


def duration(nanoseconds: int) -> Duration:
    """A length of time; `nanoseconds` must not be negative."""
    seconds, nanos = divmod(nanoseconds, _NANOSECONDS)
    return Duration(seconds=seconds, nanos=nanos)


def socket_address(ip: str, port: int) -> Any:
    """A TCP address."""
    return Address(socket_address=SocketAddress(address=ip, port_value=port))


def exactly(text: str) -> Any:
    """Matches `text` itself."""
    return StringMatcher(exact=text)


def beginning_with(text: str) -> Any:
    """Matches what begins with `text`."""
    return StringMatcher(prefix=text)


def regex(pattern: str) -> Any:
    """An RE2 expression that must match the whole value."""
    return RegexMatcher(regex=pattern)


def matching(pattern: str) -> Any:
    """Matches what the RE2 expression `pattern` matches as a whole."""
    return StringMatcher(safe_regex=regex(pattern))

"""Paths of fields in violations, and the rules that many types share: ports, addresses, parts of later versions."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from snapshot.model.meta import Spec
from snapshot.model.validation import Violation

NOT_SUPPORTED = "not supported by this version"
LARGEST_PORT = 65535

_PORT_RANGE = f"port must be in the range [1, {LARGEST_PORT}]"
_LABEL = "[a-zA-Z0-9_][a-zA-Z0-9_-]{0,62}"
_DOMAIN_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*[._]?")
_LONGEST_DOMAIN_NAME = 255
_LONGEST_QUOTE = 256
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - the longest code of four digits


def quoted(text: str) -> str:
    """`text` in quotes as Go writes it, cut where it is too long for a message."""
    return f'"{"".join(_ESCAPES.get(c) or (c if c.isprintable() else _escape(c)) for c in brief(text))}"'


def brief(text: str) -> str:
    """`text`, cut where it is too long for a message: many violations may repeat one long value."""
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"


def key(path: str, name: str) -> str:
    """The path of the entry `name` of the map at `path`: `tags["version"]`."""
    return f"{path}[{quoted(name)}]"


def not_supported(spec: Spec, path: str, fields: Iterable[tuple[str, str]]) -> list[Violation]:
    """A violation for each (attribute, field) of `spec` that is present, though this version gives it no effect."""
    dot = "." if path else ""
    return [
        Violation(f"{path}{dot}{field}", NOT_SUPPORTED) for name, field in fields if getattr(spec, name) is not None
    ]


def check_port(path: str, port: int) -> list[Violation]:
    """A port that something listens on."""
    return [] if 1 <= port <= LARGEST_PORT else [Violation(path, _PORT_RANGE)]


def is_ip(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address, without a zone."""
    if "%" in text:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_unspecified(text: str) -> bool:
    """Whether `text` is 0.0.0.0 or :: in one of its forms: it overlaps every address."""
    return not text.strip("0.:") and is_ip(text)


def check_address(path: str, address: str) -> list[Violation]:
    """An address that others dial: an IP or a domain name."""
    if not address:
        return [Violation(path, "address can't be empty")]
    if is_unspecified(address):
        return [Violation(path, "must not be 0.0.0.0 or ::")]
    is_name = len(address.replace(".", "")) <= _LONGEST_DOMAIN_NAME and _DOMAIN_NAME.fullmatch(address)
    if is_name or is_ip(address):
        return []
    return [Violation(path, "address has to be valid IP address or domain name")]


def check_ip(path: str, address: str, text: str = "address has to be valid IP address") -> list[Violation]:
    """An address to bind or to reach locally, where one is given."""
    return [Violation(path, text)] if address and not is_ip(address) else []

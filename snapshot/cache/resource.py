"""One Envoy resource, serialised once per process and shared by every proxy and stream that has it (L5, L6)."""

from __future__ import annotations

import hashlib
from typing import Any, Final

VERSION_BYTES: Final = 8


class XdsResource:
    """An immutable Envoy resource.

    `body` is the deterministic serialisation of the message alone; `version` is a hash of `type_url` and `body`, so it
    is the same after a restart and on another instance (XP-63). `eds_service_name` is the name of the
    ClusterLoadAssignment that an EDS cluster reads ("" for everything else, XP-92).
    """

    __slots__ = ("__weakref__", "body", "eds_service_name", "name", "type_url", "version")

    def __init__(self, type_url: str, name: str, body: bytes, eds_service_name: str = "") -> None:
        self.type_url: Final = type_url
        self.name: Final = name
        self.body: Final = body
        self.version: Final = content_version(type_url, body)
        self.eds_service_name: Final = eds_service_name

    @classmethod
    def of(cls, type_url: str, name: str, message: Any, *, eds_service_name: str = "") -> XdsResource:
        """Serialise `message` (a protobuf message of `type_url`) and name it `name`."""
        return cls(type_url, name, message.SerializeToString(deterministic=True), eds_service_name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, XdsResource):
            return (self.type_url, self.name, self.version) == (other.type_url, other.name, other.version)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self.name, self.version))

    def __repr__(self) -> str:
        return f"XdsResource({self.type_url.rpartition('.')[2]} {self.name!r} @{self.version})"


def content_version(type_url: str, body: bytes) -> str:
    """Sixteen hexadecimal digits that stand for the content."""
    return hashlib.blake2b(body, digest_size=VERSION_BYTES, key=type_url.encode()[-64:]).hexdigest()

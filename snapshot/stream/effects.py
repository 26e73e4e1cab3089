"""What a stream wants the shell to do or to know, besides writing responses. Frozen values, no behaviour."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

_SHOWN: Final = 5


class StatusCode(enum.Enum):
    """The gRPC status codes a stream may end with; the names are those of `grpc.StatusCode`."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"


class Acked(NamedTuple):
    """The client took the response with this nonce (XP-49). `waited_s` is the time since it was sent."""

    type_url: str
    nonce: str
    version: str
    waited_s: float


@dataclass(frozen=True, slots=True)
class Nacked:
    """The client refused the response with this nonce; `detail` is its text, cut to 4 KB (XP-58)."""

    type_url: str
    nonce: str
    version: str
    detail: str


@dataclass(frozen=True, slots=True)
class UnknownType:
    """The client asked for a type this server does not have; told once for each stream and type (XP-111)."""

    type_url: str


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream with this status: the client broke a rule that `message` names."""

    code: StatusCode
    message: str


Effect = Acked | Nacked | UnknownType | Close


class Response(NamedTuple):
    """One message to write now. It counts as sent; `message()` is its serialised form.

    `body` is shared by all streams with the same difference; `tail` holds the version and the nonce of this stream.
    """

    type_url: str
    nonce: str
    version: str
    body: bytes
    tail: bytes
    resources: int
    removed: int

    @property
    def size(self) -> int:
        """Bytes on the wire, before gRPC's framing (XP-134)."""
        return len(self.body) + len(self.tail)

    def message(self) -> bytes:
        """The serialised DiscoveryResponse or DeltaDiscoveryResponse: protobuf fields may be concatenated."""
        return self.body + self.tail


@dataclass(frozen=True, slots=True)
class Withheld:
    """A response larger than this client can receive; it was not sent, and is reported instead (XP-131)."""

    type_url: str
    version: str
    names: tuple[str, ...]
    size: int
    limit: int

    def __str__(self) -> str:
        kind, shown = self.type_url.rpartition(".")[2], self.names[:_SHOWN]
        more = f" and {len(self.names) - _SHOWN} more" if len(self.names) > _SHOWN else ""
        sizes = f"{self.size} bytes, more than the {self.limit} bytes this client can receive"
        return f"{kind}: {sizes}; not sent: {', '.join(shown)}{more}"

"""What the gRPC server needs of the rest of the control plane, as Protocols. The composition root hands them in."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from snapshot.cache.snapshot import Changes, NodeState
from snapshot.model.dataplane import Dataplane
from snapshot.model.meta import ProxyKey, ResourceKey
from snapshot.topology.proxy import NodeInfo


class Ending(enum.Enum):
    """How a stream ended, for the lease of its proxy (architecture §7)."""

    LEFT = "left"
    """The peer closed it (FIN, RST, half-close), or its credential was revoked."""
    VANISHED = "vanished"
    """The peer stopped answering."""
    SHUTDOWN = "shutdown"
    """We ended it: drain, an error of ours. Deletes nothing."""


class TlsPair(NamedTuple):
    """Private key and certificate chain, PEM."""

    key_pem: bytes
    cert_pem: bytes


@dataclass(frozen=True, slots=True)
class Refused(Exception):  # noqa: N818  # an outcome, told to the client word for word
    """The stream must end: `code` is a name of `grpc.StatusCode`, `text` says why and what to do."""

    code: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class End(Exception):  # noqa: N818  # an outcome: the status a stream ends with
    """End of a stream by us. `code` is a name of `grpc.StatusCode`."""

    code: str
    text: str
    ending: Ending = Ending.SHUTDOWN


@dataclass(frozen=True, slots=True)
class Carried:
    """The Dataplane that `kuma-dp run` sent along in node metadata `dataplane.resource`."""

    key: ResourceKey
    spec: Dataplane
    warnings: tuple[str, ...] = ()


async def assumed_alive() -> bool:
    """The answer of a connection that nothing is known against."""
    return True


@dataclass(frozen=True, slots=True)
class Identity:
    """What a client says of itself in its first request, trimmed: nothing else of `node` is kept (XP-19).

    `run_id` is `koguma.runId` ("" for Kuma's own kuma-dp), `version` the metadata `version` as plain values,
    `dynamic` the metadata `dynamicMetadata`, `user_agent` the name that Envoy and gRPC clients give.
    """

    proxy: ProxyKey
    node: NodeInfo
    carried: Carried | None = None
    run_id: str = ""
    version: Mapping[str, Any] | None = None
    dynamic: Mapping[str, str] | None = None
    user_agent: str = ""
    features: frozenset[str] = frozenset()
    peer: str = ""
    """Where it is connected from, for people: gRPC's `ipv4:127.0.0.1:5`."""
    is_alive: Callable[[], Awaitable[bool]] = field(default=assumed_alive, compare=False)
    """Whether its connection still answers; at once."""

    @property
    def node_id(self) -> str:
        """`<mesh>.<name>`."""
        return f"{self.proxy.mesh}.{self.proxy.name}"


class Authenticator(Protocol):
    """Who may open a stream (R §5.4, P §18)."""

    async def verify(self, authorization: Sequence[str], proxy: ProxyKey) -> object:
        """Verify the credential (all values of the metadata key), before anything else of the client is looked at.

        Answers the subject. Raises Refused UNAUTHENTICATED.
        """
        ...

    async def bind(self, subject: object, identity: Identity) -> None:
        """Hold the subject against node id and Dataplane, carried or stored. Raises Refused PERMISSION_DENIED."""
        ...

    async def is_admin(self, authorization: Sequence[str]) -> bool:
        """Whether the credential is an administrator's user token. Raises Refused for a bad one."""
        ...

    def watch(self, subject: object, revoked: Callable[[str], None]) -> Callable[[], None]:
        """Call `revoked(reason)` in the loop when the credential is revoked; answers how to stop watching."""
        ...


class Registrar(Protocol):
    """Registration of the Dataplanes that `kuma-dp run` brings, leased and fenced (architecture §7)."""

    async def register(self, identity: Identity, subject: object, ended: Callable[[str], None]) -> object:
        """Upsert the Dataplane where one is carried, take the lease; answers it. Raises Refused.

        `ended(reason)` is called in the loop when an operator deletes the Dataplane or another owner takes over.
        """
        ...

    async def release(self, lease: object, how: Ending) -> None:
        """The stream that held the lease is gone."""
        ...


class NodeHandle(Protocol):
    """One joined node. `news_since_s`: when the oldest change behind the last call of its listener became known."""

    news_since_s: float

    def state(self) -> NodeState | None:
        """The newest state, None until it can be built."""
        ...


class Nodes(Protocol):
    """The reconciler, seen from a stream."""

    def join(self, proxy: ProxyKey, node: NodeInfo, listener: Callable[[Changes], None]) -> NodeHandle:
        """Make the node known; `listener` is called in the loop when something changed."""
        ...

    def leave(self, handle: Any) -> None:
        """The stream is gone."""
        ...


class StreamRecord(Protocol):
    """Counters of one stream: its subscription in the DataplaneInsight and the metrics (R §9.2)."""

    def sent(self, type_url: str, size: int) -> None:
        """A response of `size` bytes was written."""
        ...

    def pushed(self, waited_s: float) -> None:
        """News were written, `waited_s` after the change behind them became known."""
        ...

    def received(self, type_url: str) -> None:
        """A request without an answer in it."""
        ...

    def acked(self, type_url: str, waited_s: float) -> None:
        """A response was taken, `waited_s` after it was sent."""
        ...

    def nacked(self, type_url: str, detail: str) -> None:
        """A response was refused with these words."""
        ...

    def closed(self) -> None:
        """The stream is gone."""
        ...


class Observer(Protocol):
    """Insights, metrics and log of the streams."""

    def opened(self, identity: Identity) -> StreamRecord:
        """A stream was admitted."""
        ...

    def count(self, what: str, amount: int = 1) -> None:
        """One of `COUNTED` happened."""
        ...

    def log(self, level: str, event: str, **fields: object) -> None:
        """Write a line; `level` is a structlog method name. Never given contents of resources or tokens (XP-150)."""
        ...


COUNTED = (
    "refused",  # streams that were not admitted
    "stuck",  # streams ended because a write waited too long
    "failed",  # streams ended by an error of ours
    "slowed",  # requests that had to wait
    "unknown_type",  # requests for types that do not exist here
    "withheld",  # responses too large for their client
    "silent_connections",  # connections closed without a stream: plain text, half open
)


class Dataplanes(Protocol):
    """The stored Dataplanes, as HDS needs them."""

    def get(self, proxy: ProxyKey) -> Dataplane | None:
        """The newest version."""
        ...

    def watch(self, proxy: ProxyKey, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed()` in the loop when it is created, replaced or deleted; answers how to stop."""
        ...


class HealthSink(Protocol):
    """Takes what checkers say."""

    def report(self, proxy: ProxyKey, ready: Mapping[int, bool]) -> None:
        """Readiness by workload port; written soon, in batches, and only where it differs."""
        ...

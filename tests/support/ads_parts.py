"""Stand-ins for the parts around the gRPC server: tokens, registration, reconciler, insights. All inspectable."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import Changes, NodeState
from snapshot.model.dataplane import Dataplane
from snapshot.model.meta import ProxyKey
from snapshot.topology.proxy import NodeInfo
from xds_server.ads.ports import Ending, Identity, Refused, TlsPair


def tls_pair() -> TlsPair:
    """A self-signed certificate for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    day = dt.timedelta(days=1)
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + 36500 * day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return TlsPair(private, certificate.public_bytes(pem))


class FakeState:
    """A `NodeState` that a test fills."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, XdsResource]] = {}

    def get(self, type_url: str, name: str) -> XdsResource | None:
        return self.resources.get(type_url, {}).get(name)

    def names(self, type_url: str) -> frozenset[str]:
        return frozenset(self.resources.get(type_url, ()))


class FakeHandle:
    def __init__(self, nodes: FakeNodes, proxy: ProxyKey, listener: Callable[[Changes], None]) -> None:
        self.nodes, self.proxy, self.listener = nodes, proxy, listener
        self.news_since_s = 0.0

    def state(self) -> NodeState | None:
        return self.nodes.states.get(self.proxy)


class FakeNodes:
    """Stands for the reconciler: `publish` and `forget` are what it would tell."""

    def __init__(self) -> None:
        self.states: dict[ProxyKey, FakeState] = {}
        self.handles: list[FakeHandle] = []
        self.joined: list[tuple[ProxyKey, NodeInfo]] = []

    def join(self, proxy: ProxyKey, info: NodeInfo, listener: Callable[[Changes], None]) -> FakeHandle:
        self.joined.append((proxy, info))
        handle = FakeHandle(self, proxy, listener)
        self.handles.append(handle)
        return handle

    def leave(self, handle: FakeHandle) -> None:
        self.handles.remove(handle)

    def publish(self, proxy: ProxyKey, *resources: XdsResource) -> None:
        """Add or replace resources of one proxy, and wake its streams."""
        state = self.states.setdefault(proxy, FakeState())
        names: dict[str, set[str]] = {}
        for resource in resources:
            state.resources.setdefault(resource.type_url, {})[resource.name] = resource
            names.setdefault(resource.type_url, set()).add(resource.name)
        self.tell(proxy, Changes({type_url: frozenset(each) for type_url, each in names.items()}))

    def forget(self, proxy: ProxyKey) -> None:
        """Its state cannot be built any more."""
        del self.states[proxy]
        self.tell(proxy, Changes())

    def tell(self, proxy: ProxyKey, changes: Changes) -> None:
        for handle in list(self.handles):
            if handle.proxy == proxy:
                handle.listener(changes)


@dataclass
class FakeAuthenticator:
    """Token `<node id>` admits that node, `any` every node, `admin` is the administrator's."""

    revocations: dict[int, tuple[object, Callable[[str], None]]] = field(default_factory=dict)

    async def verify(self, authorization: Sequence[str], proxy: ProxyKey) -> object:
        del proxy
        if len(authorization) != 1 or authorization[0] == "bad":
            text = "could not parse token: token contains an invalid number of segments"
            raise Refused("UNAUTHENTICATED", f"authentication failed: {text}")
        return authorization[0]

    async def bind(self, subject: object, identity: Identity) -> None:
        if subject not in {"any", "token", "admin", identity.node_id}:
            text = f"proxy name from requestor: {identity.node_id} is different than in token: {subject}"
            raise Refused("PERMISSION_DENIED", f"authentication failed: {text}")

    async def is_admin(self, authorization: Sequence[str]) -> bool:
        return tuple(authorization) == ("admin",)

    def watch(self, subject: object, revoked: Callable[[str], None]) -> Callable[[], None]:
        number = max(self.revocations, default=0) + 1
        self.revocations[number] = (subject, revoked)
        return lambda: self.revocations.pop(number, None) and None

    def revoke(self, subject: object) -> None:
        for owner, revoked in list(self.revocations.values()):
            if owner == subject:
                revoked("token is revoked")


@dataclass
class FakeRegistrar:
    """Counts leases; `refuse` makes registration fail, `hold` makes it wait."""

    open: list[Identity] = field(default_factory=list)
    released: list[tuple[str, Ending]] = field(default_factory=list)
    ended: dict[str, Callable[[str], None]] = field(default_factory=dict)
    refuse: Refused | None = None
    hold: Any = None

    async def register(self, identity: Identity, subject: object, ended: Callable[[str], None]) -> Identity:
        del subject
        if self.hold is not None:
            await self.hold.wait()
        if self.refuse is not None:
            raise self.refuse
        self.open.append(identity)
        self.ended[identity.node_id] = ended
        return identity

    async def release(self, lease: Identity, how: Ending) -> None:
        self.open.remove(lease)
        self.released.append((lease.node_id, how))


class FakeRecord:
    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.open = True

    def sent(self, type_url: str, size: int) -> None:
        self.events.append(("sent", type_url, size))

    def pushed(self, waited_s: float) -> None:
        self.events.append(("pushed", waited_s))

    def received(self, type_url: str) -> None:
        self.events.append(("received", type_url))

    def acked(self, type_url: str, waited_s: float) -> None:
        self.events.append(("acked", type_url, waited_s))

    def nacked(self, type_url: str, detail: str) -> None:
        self.events.append(("nacked", type_url, detail))

    def closed(self) -> None:
        self.open = False


class FakeObserver:
    def __init__(self) -> None:
        self.records: list[FakeRecord] = []
        self.counts: Counter[str] = Counter()
        self.lines: list[tuple[str, str, Mapping[str, object]]] = []

    def opened(self, identity: Identity) -> FakeRecord:
        del identity
        self.records.append(FakeRecord())
        return self.records[-1]

    def count(self, what: str, amount: int = 1) -> None:
        self.counts[what] += amount

    def log(self, level: str, event: str, **fields: object) -> None:
        self.lines.append((level, event, fields))


class FakeDataplanes:
    def __init__(self) -> None:
        self.stored: dict[ProxyKey, Dataplane] = {}
        self.watchers: list[tuple[ProxyKey, Callable[[], None]]] = []

    def get(self, proxy: ProxyKey) -> Dataplane | None:
        return self.stored.get(proxy)

    def watch(self, proxy: ProxyKey, changed: Callable[[], None]) -> Callable[[], None]:
        entry = (proxy, changed)
        self.watchers.append(entry)
        return lambda: self.watchers.remove(entry)

    def put(self, proxy: ProxyKey, dataplane: Dataplane) -> None:
        self.stored[proxy] = dataplane
        for watched, changed in list(self.watchers):
            if watched == proxy:
                changed()


class FakeSink:
    def __init__(self) -> None:
        self.reports: list[tuple[ProxyKey, dict[int, bool]]] = []

    def report(self, proxy: ProxyKey, ready: Mapping[int, bool]) -> None:
        self.reports.append((proxy, dict(ready)))

"""Signing keys and revocation lists, as secrets of the store (R §5.2), and a view of them that costs no read."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from snapshot.model.meta import ResourceKey
from xds_server.store.contract import LogTrimmed, ResourceStore, Stored, StoreUnavailable

_log = structlog.get_logger(__name__)

INTERNAL_SECRET: Final = "InternalSecret"  # noqa: S105  # a type of resource
"""Internal type: keys that no API shows. Spec as of a Secret."""
CREDENTIAL_END: Final = "CredentialEnd"
"""Internal type, under a proxy's mesh and name: stream credentials issued up to `{"issuedUntilMs": n}` are over."""
STREAM_KEY: Final = ResourceKey(INTERNAL_SECRET, "", "stream-credential-key")
_KEY_BITS: Final = 2048
_RETRY_S: Final = 1.0


class TokenKind(NamedTuple):
    """A family of tokens: how its keys and its revocation list are called."""

    label: str
    secret_type: str

    def key_name(self, mesh: str, serial: int | None = None) -> str:
        """Name of a signing key; serial 0 is the bare name of Kuma before 1.4, None the common prefix."""
        stem = f"{self.label}-token-signing-key" + (f"-{mesh}" if mesh else "")
        return f"{stem}-{serial}" if serial else stem

    def key(self, mesh: str, serial: int) -> ResourceKey:
        """Where a signing key lies."""
        return ResourceKey(self.secret_type, mesh, self.key_name(mesh, serial))

    def revocations(self, mesh: str) -> ResourceKey:
        """Where the revocation list lies."""
        return ResourceKey(self.secret_type, mesh, f"{self.label}-token-revocations" + (f"-{mesh}" if mesh else ""))


DATAPLANE: Final = TokenKind("dataplane", "Secret")
USER: Final = TokenKind("user", "GlobalSecret")
ZONE_INGRESS: Final = TokenKind("zone-ingress", "GlobalSecret")
ZONE: Final = TokenKind("zone", "GlobalSecret")
KINDS: Final = (DATAPLANE, USER, ZONE_INGRESS, ZONE)


class SigningKey(NamedTuple):
    """`raw` are the stored bytes (the key of legacy HS256 tokens); `private` is None when they hold no RSA key."""

    serial: int
    raw: bytes
    private: rsa.RSAPrivateKey | None


class SigningKeyNotFound(Exception):  # noqa: N818  # named as the title of the answer
    """No key of that serial; the text is Kuma's."""

    def __init__(self, kind: TokenKind, mesh: str, serial: int) -> None:
        name = kind.key_name(mesh, serial)
        where = f'Secret of name "{name}" in mesh "{mesh}"' if mesh else f'GlobalSecret of name "{name}"'
        super().__init__(
            f"there is no signing key with serial number {serial}. {where} is not found. "
            "If signing key was rotated, regenerate the token"
        )


def new_key_pem() -> bytes:
    """A new RSA signing key, PKCS#1 PEM. Blocks for a moment: call it in a thread."""
    return rsa.generate_private_key(65537, _KEY_BITS).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def secret_spec(data: bytes) -> dict[str, str]:
    """The spec of a Secret as the store holds it."""
    return {"data": base64.b64encode(data).decode()}


def secret_data(spec: object) -> bytes:
    """The bytes of a stored Secret; b"" when there are none."""
    data = spec.get("data", "") if isinstance(spec, dict) else ""
    try:
        return base64.b64decode(data)
    except (binascii.Error, TypeError, ValueError):
        return b""


class KeyRing:
    """All keys, revocation lists and credential ends, current to the store's change log.

    `follow()` keeps it so; `catch_up()` is for whoever must see his own write.
    """

    def __init__(self, store: ResourceStore) -> None:
        self._store = store
        self._seq = -1
        self._lock = asyncio.Lock()
        self._keys: dict[ResourceKey, SigningKey] = {}
        self._revoked: dict[ResourceKey, frozenset[str]] = {}
        self._ends: dict[tuple[str, str], int] = {}
        self._listeners: list[Callable[[], None]] = []
        self.stream_key = b""

    def on_change(self, listener: Callable[[], None]) -> None:
        """`listener` is called in the loop when a revocation list grew or a credential ended."""
        self._listeners.append(listener)

    async def catch_up(self) -> None:
        """Read what the log has gained. Raises StoreUnavailable."""
        async with self._lock:
            if self._seq < 0:
                await self._start_over()
                return
            try:
                while changes := await self._store.changes(self._seq):
                    self._take([(change.key, change.stored) for change in changes])
                    self._seq = changes[-1].seq
            except LogTrimmed:
                await self._start_over()

    async def follow(self) -> None:
        """Keep up with the log until cancelled; the last known keys serve while the store is away."""
        while True:
            try:
                await self.catch_up()
                await self._store.wait(self._seq)
            except StoreUnavailable as error:
                _log.warning("signing keys cannot be read, the last known ones serve", error=str(error))
                await asyncio.sleep(_RETRY_S)

    def latest(self, kind: TokenKind, mesh: str) -> SigningKey:
        """The key of the highest serial. Raises SigningKeyNotFound."""
        keys = [
            signing
            for key, signing in self._keys.items()
            if key.type == kind.secret_type and key.mesh == mesh and _serial(kind, key) is not None and signing.private
        ]
        if not keys:
            raise SigningKeyNotFound(kind, mesh, 1)
        return max(keys, key=lambda signing: signing.serial)

    def key(self, kind: TokenKind, mesh: str, serial: int) -> SigningKey:
        """The key of that serial. Raises SigningKeyNotFound."""
        for key, signing in self._keys.items():
            mine = key.type == kind.secret_type and key.mesh == mesh and signing.serial == serial
            if mine and _serial(kind, key) is not None:
                return signing
        raise SigningKeyNotFound(kind, mesh, serial)

    def is_revoked(self, kind: TokenKind, mesh: str, token_id: str) -> bool:
        """Whether a token is on its revocation list."""
        return token_id in self._revoked.get(kind.revocations(mesh), ())

    def ended_until_ms(self, mesh: str, name: str) -> int:
        """Stream credentials of this proxy issued up to then are over; -1 when none are."""
        return self._ends.get((mesh, name), -1)

    async def _start_over(self) -> None:
        head, everything = await self._store.snapshot()
        self._keys, self._revoked, self._ends = {}, {}, {}
        self._take([(stored.key, stored) for stored in everything])
        self._seq = head

    def _take(self, changes: Iterable[tuple[ResourceKey, Stored | None]]) -> None:
        tell = False
        for key, stored in changes:
            if key.type == CREDENTIAL_END:
                tell |= self._take_end(key, stored)
            elif key == STREAM_KEY:
                self.stream_key = secret_data(stored.spec) if stored else b""
            elif (kind := _kind_of(key)) is not None:
                if key == kind.revocations(key.mesh):
                    tell |= self._take_revocations(key, stored)
                else:
                    self._take_key(kind, key, stored)
        if tell:
            for listener in self._listeners:
                listener()

    def _take_end(self, key: ResourceKey, stored: Stored | None) -> bool:
        if stored is None:
            self._ends.pop((key.mesh, key.name), None)
            return False
        self._ends[key.mesh, key.name] = int(stored.spec["issuedUntilMs"])
        return True

    def _take_revocations(self, key: ResourceKey, stored: Stored | None) -> bool:
        before = self._revoked.pop(key, frozenset())
        if stored is not None:
            text = secret_data(stored.spec).decode(errors="replace")
            self._revoked[key] = frozenset(filter(None, (part.strip() for part in text.split(","))))
        return bool(self._revoked.get(key, frozenset()) - before)

    def _take_key(self, kind: TokenKind, key: ResourceKey, stored: Stored | None) -> None:
        serial = _serial(kind, key)
        self._keys.pop(key, None)
        if stored is not None and serial is not None:
            raw = secret_data(stored.spec)
            self._keys[key] = SigningKey(serial, raw, _private_key(raw))


def _kind_of(key: ResourceKey) -> TokenKind | None:
    for kind in KINDS:
        if key.type == kind.secret_type and (_serial(kind, key) is not None or key == kind.revocations(key.mesh)):
            return kind
    return None


def _serial(kind: TokenKind, key: ResourceKey) -> int | None:
    """The number after the prefix, 0 for none or one that cannot be read; None when this is no such key."""
    stem = kind.key_name(key.mesh)
    if key.name == stem:
        return 0
    if not key.name.startswith(stem + "-"):
        return None
    text = key.name[len(stem) + 1 :]
    return int(text) if text.isascii() and text.isdigit() else 0


def _private_key(raw: bytes) -> rsa.RSAPrivateKey | None:
    """The key in these bytes, not proved to be consistent.

    The proof takes 40 ms, and a store may hold a key for each of a thousand meshes. Only administrators write keys, and
    a wrong one issues tokens that it does not verify.
    """
    for load in (serialization.load_pem_private_key, serialization.load_der_private_key):
        with contextlib.suppress(ValueError, TypeError):
            key = load(raw, None, unsafe_skip_rsa_key_validation=True)
            return key if isinstance(key, rsa.RSAPrivateKey) else None
    return None

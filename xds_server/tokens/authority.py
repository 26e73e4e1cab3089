"""Issues and verifies every token of this version; the one object that others are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import jwt

from snapshot.model.meta import ProxyKey, ResourceKey
from xds_server.clock import Clock
from xds_server.store.contract import Put
from xds_server.tokens.keys import CREDENTIAL_END, DATAPLANE, USER, KeyRing
from xds_server.tokens.signing import header, sign, verify
from xds_server.tokens.subject import Subject, TokenError, User

TEN_YEARS_S: Final = 10 * 365 * 24 * 3600.0
STREAM_TYPE: Final = "koguma-stream"
"""`typ` of a stream credential."""


class Authority:
    """Tokens of one control plane; `pin` is the SPKI pin of its certificate (claim `CpPin`)."""

    def __init__(self, ring: KeyRing, clock: Clock, pin: str = "") -> None:
        self.ring = ring
        self._clock = clock
        self._pin = pin

    async def issue_dataplane(
        self,
        mesh: str,
        name: str = "",
        tags: Mapping[str, Sequence[str]] | None = None,
        proxy_type: str = "",
        valid_for_s: float = TEN_YEARS_S,
    ) -> str:
        """A data plane token (R §5.1). Raises SigningKeyNotFound."""
        await self.ring.catch_up()
        claims = {"Name": name, "Mesh": mesh, "Tags": dict(tags or {}), "Type": proxy_type}
        if self._pin:
            claims["CpPin"] = self._pin
        return await sign(self.ring.latest(DATAPLANE, mesh), claims, valid_for_s, self._clock.now())

    async def issue_user(self, name: str, groups: Sequence[str], valid_for_s: float = TEN_YEARS_S) -> str:
        """A user token. Raises SigningKeyNotFound."""
        await self.ring.catch_up()
        claims = {"Name": name, "Groups": list(groups)}
        return await sign(self.ring.latest(USER, ""), claims, valid_for_s, self._clock.now())

    async def verify_user(self, token: str) -> User:
        """Who calls. Raises TokenError."""
        claims = await verify(self.ring, USER, "", token, self._clock.now())
        return User(_text(claims, "Name"), _texts(claims.get("Groups"), "Groups"))

    async def verify_dataplane(self, token: str, mesh: str) -> Subject:
        """The subject of a raw token, by the keys of `mesh` (that of the proxy). Raises TokenError."""
        claims = await verify(self.ring, DATAPLANE, mesh, token, self._clock.now())
        tags = claims.get("Tags") or {}
        if not isinstance(tags, dict):
            raise TokenError("could not parse token: Tags is not an object")
        return Subject(
            mesh=_text(claims, "Mesh"),
            name=_text(claims, "Name"),
            type=_text(claims, "Type"),
            tags=tuple(sorted((key, _texts(values, "Tags")) for key, values in tags.items())),
            token_id=str(claims.get("jti", "")),
        )

    def stream_credential(self, subject: Subject, proxy: ProxyKey, proxy_type: str) -> str:
        """What stands in a bootstrap for a verified token: bound to this proxy, without expiry of its own."""
        claims = {
            "Mesh": proxy.mesh,
            "Name": proxy.name,
            "Type": proxy_type,
            "Tags": {key: list(values) for key, values in subject.tags},
            "Token": subject.token_id,
            "IssuedMs": self._now_ms(),
        }
        return jwt.encode(claims, self.ring.stream_key, "HS256", {"typ": STREAM_TYPE})

    async def verify_stream(self, authorization: str, mesh: str) -> Subject:
        """The subject behind a stream's `authorization` (bare): a stream credential or a raw token.

        `mesh` is that of the node. A credential outlives the key that signed its token, so that keys can be rotated
        while proxies run; the revocation list withdraws it. Raises TokenError; text as R §5.4, to be prefixed
        `authentication failed: `.
        """
        if header(authorization).get("typ") != STREAM_TYPE:
            return await self.verify_dataplane(authorization, mesh)
        try:
            claims = jwt.decode(authorization, self.ring.stream_key, algorithms=["HS256"])
        except (jwt.InvalidTokenError, jwt.InvalidKeyError, ValueError) as error:
            raise TokenError("could not parse token: this is not a credential of this control plane") from error
        subject = Subject(
            mesh=claims["Mesh"],
            name=claims["Name"],
            type=claims["Type"],
            tags=tuple(sorted((key, tuple(values)) for key, values in claims["Tags"].items())),
            token_id=claims["Token"],
            issued_ms=claims["IssuedMs"],
        )
        if (ended := self.ended(subject)) is not None:
            raise TokenError(ended)
        return subject

    def ended(self, subject: Subject) -> str | None:
        """Why a stream of this subject must end now: None, or the reason. Reads no store."""
        if subject.token_id and self.ring.is_revoked(DATAPLANE, subject.mesh, subject.token_id):
            return "token is revoked"
        if subject.issued_ms is not None and subject.issued_ms <= self.ring.ended_until_ms(subject.mesh, subject.name):
            return f"dataplane {subject.mesh}.{subject.name} was deleted; start its kuma-dp again to let it join"
        return None

    def on_revoked(self, callback: Callable[[], None]) -> None:
        """`callback` is called in the loop when `ended` may have become true for open streams."""
        self.ring.on_change(callback)

    def end_credentials(self, proxy: ProxyKey) -> Put:
        """The operation by which an operator's deletion of a proxy also ends its stream credentials."""
        key = ResourceKey(CREDENTIAL_END, proxy.mesh, proxy.name)
        return Put(key, {"issuedUntilMs": self._now_ms()}, owner=ResourceKey("Mesh", "", proxy.mesh))

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _text(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TokenError(f"could not parse token: {claim} is not text")
    return value


def _texts(values: object, claim: str) -> tuple[str, ...]:
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TokenError(f"could not parse token: {claim} is not a list of text")
    return tuple(values)

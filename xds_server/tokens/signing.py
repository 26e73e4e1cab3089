"""JSON web tokens as Kuma writes and reads them (R §5.1, §5.4)."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from xds_server.tokens.keys import USER, KeyRing, SigningKey, SigningKeyNotFound, TokenKind
from xds_server.tokens.subject import TokenError

_NOT_BEFORE: Final = timedelta(minutes=5)
_MAX_TOKEN: Final = 64 * 1024
_SERIAL_DIGITS: Final = 18
_END_OF_TIME_S: Final = 1e15


async def sign(key: SigningKey, claims: Mapping[str, Any], valid_for_s: float, now: datetime) -> str:
    """A signed token with `claims` and the registered ones, in whole seconds. Signs in a thread."""
    issued = int(now.timestamp())
    whole = {
        **claims,
        "exp": int(issued + valid_for_s),
        "nbf": issued - int(_NOT_BEFORE.total_seconds()),
        "iat": issued,
        "jti": str(uuid.uuid4()),
    }
    if key.private is None:
        raise ValueError("a key that only verifies cannot sign")
    return await asyncio.to_thread(jwt.encode, whole, key.private, "RS256", {"kid": str(key.serial)})


async def verify(ring: KeyRing, kind: TokenKind, mesh: str, token: str, now: datetime) -> dict[str, Any]:
    """The claims of a good token. A key that is not known yet is looked for in the store.

    Raises TokenError with Kuma's text.
    """
    serial = _serial(kind, token)
    try:
        key = _find(ring, kind, mesh, serial)
    except TokenError:
        await ring.catch_up()
        key = _find(ring, kind, mesh, serial)
    claims = _verified(token, key)
    _check_times(claims, now)
    if ring.is_revoked(kind, mesh, str(claims.get("jti", ""))):
        raise TokenError("token is revoked")
    return claims


def _find(ring: KeyRing, kind: TokenKind, mesh: str, serial: int) -> SigningKey:
    try:
        return ring.key(kind, mesh, serial)
    except SigningKeyNotFound as error:
        raise TokenError(str(error)) from error


def _serial(kind: TokenKind, token: str) -> int:
    kid = header(token).get("kid")
    if kid is None:
        if kind == USER:
            raise TokenError("kid is required")
        return 0
    if not (isinstance(kid, str) and kid.isascii() and kid.isdigit() and len(kid) <= _SERIAL_DIGITS):
        raise TokenError(f'could not parse token: kid "{str(kid)[:50]}" is not a serial number')
    return int(kid)


def header(token: str) -> Mapping[str, Any]:
    """The unverified header. Raises TokenError."""
    if token.count(".") != 2:  # noqa: PLR2004  # header.payload.signature
        raise TokenError("could not parse token: token contains an invalid number of segments")
    if len(token) > _MAX_TOKEN:
        raise TokenError("could not parse token: token is too long")
    try:
        return jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        raise TokenError(f"could not parse token: {error}") from error


def _verified(token: str, key: SigningKey) -> dict[str, Any]:
    algorithm = header(token).get("alg")
    try:
        if algorithm == "HS256" and not _is_public(key.raw):
            return _legacy(token, key.raw)
        if algorithm == "RS256" and key.private is not None:
            return _decoded(token, key.private.public_key(), "RS256")
    except jwt.InvalidSignatureError as error:
        text = "crypto/rsa: verification error" if algorithm == "RS256" else "signature is invalid"
        raise TokenError(f"could not parse token: {text}") from error
    except (jwt.InvalidTokenError, jwt.InvalidKeyError, ValueError, RecursionError) as error:
        raise TokenError(f"could not parse token: {error}") from error
    raise TokenError(f"could not parse token: unsupported signing method {str(algorithm)[:50]}; allowed: RS256")


def _is_public(raw: bytes) -> bool:
    """Whether these bytes are no secret: a public key or certificate must never count as the key of HS256."""
    if b"PUBLIC KEY-----" in raw or b"CERTIFICATE-----" in raw:
        return True
    try:
        serialization.load_der_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def _legacy(token: str, key: bytes) -> dict[str, Any]:
    """HS256 over the raw bytes of the secret, even where they are a PEM text (Kuma's first tokens)."""
    signed, _, signature = token.rpartition(".")
    expected = hmac.digest(key, signed.encode(), "sha256")
    given = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    if not key or not hmac.compare_digest(expected, given):
        raise jwt.InvalidSignatureError
    payload = signed.partition(".")[2]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if not isinstance(claims, dict):
        raise jwt.DecodeError("the claims are not an object")
    return claims


def _decoded(token: str, key: Any, algorithm: str) -> dict[str, Any]:
    verifier = jwt.PyJWT({"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False})
    return verifier.decode(token, key, algorithms=[algorithm])


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    at = now.timestamp()
    for claim in ("exp", "nbf", "iat"):
        value = claims.get(claim)
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _END_OF_TIME_S
        if value is not None and not number:  # neither NaN nor infinity compares as a time
            raise TokenError(f"could not parse token: {claim} is not a number")
    if (expiry := claims.get("exp")) is not None and at > expiry:
        raise TokenError(f"could not parse token: token is expired by {_elapsed(at - expiry)}")
    if (begin := claims.get("nbf")) is not None and at < begin:
        raise TokenError("could not parse token: token is not valid yet")
    if (issued := claims.get("iat")) is not None and at < int(issued):
        raise TokenError("could not parse token: token used before issued")


def _elapsed(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from snapshot.model.codec import decode_spec, encode_spec
from snapshot.model.meta import ProxyKey, ResourceKey
from snapshot.model.tags import Tags
from xds_server.store.contract import Delete, Put
from xds_server.store.memory import MemoryStore
from xds_server.tokens.authority import TEN_YEARS_S, Authority
from xds_server.tokens.keys import (
    DATAPLANE,
    STREAM_KEY,
    USER,
    KeyRing,
    SigningKeyNotFound,
    new_key_pem,
    secret_spec,
)
from xds_server.tokens.new_mesh import new_mesh
from xds_server.tokens.subject import BindingError, Subject, TokenError, User

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = [new_key_pem() for _ in range(2)]


class SetClock:
    def __init__(self):
        self.time = NOW

    def now(self):
        return self.time

    def monotonic_s(self):
        return self.time.timestamp()

    async def sleep(self, seconds):
        await asyncio.sleep(0)


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
async def store(clock):
    store = MemoryStore(clock)
    await store.apply(
        *new_mesh("default", {}, KEYS[0]),
        Put(USER.key("", 1), secret_spec(KEYS[1])),
        Put(STREAM_KEY, secret_spec(b"s" * 32)),
    )
    return store


@pytest.fixture
def authority(store, clock):
    return Authority(KeyRing(store), clock, "pin=")


def revoke(kind, mesh, *ids):
    return Put(kind.revocations(mesh), secret_spec(",".join(ids).encode() + b"\n"))


def encoded(part):
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


async def test_a_dataplane_token_has_kumas_claims_and_the_pin(authority):
    token = await authority.issue_dataplane("default", "n", {"kuma.io/service": ["web"]})
    claims = claims_of(token)
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "kid": "1", "typ": "JWT"}
    at = int(NOW.timestamp())
    assert claims.pop("jti")
    assert claims == {
        "Name": "n",
        "Mesh": "default",
        "Tags": {"kuma.io/service": ["web"]},
        "Type": "",
        "CpPin": "pin=",
        "iat": at,
        "nbf": at - 300,
        "exp": at + TEN_YEARS_S,
    }


async def test_a_good_token_gives_its_subject(authority):
    token = await authority.issue_dataplane("default", "n", {"a": ["1", "2"]}, "dataplane")
    subject = await authority.verify_dataplane(token, "default")
    assert (subject.mesh, subject.name, subject.type) == ("default", "n", "dataplane")
    assert subject.tags == (("a", ("1", "2")),)


async def test_a_user_token_gives_its_user(authority):
    assert await authority.verify_user(await authority.issue_user("u", ["a", "b"])) == User("u", ("a", "b"))


async def test_issuing_takes_the_highest_serial_and_older_tokens_live_on(authority, store):
    old = await authority.issue_dataplane("default")
    await store.apply(Put(DATAPLANE.key("default", 12), secret_spec(KEYS[1])))
    new = await authority.issue_dataplane("default")
    assert jwt.get_unverified_header(new)["kid"] == "12"
    for token in (old, new):
        await authority.verify_dataplane(token, "default")
    await store.apply(Delete(DATAPLANE.key("default", 1)))
    await authority.ring.catch_up()
    text = (
        'there is no signing key with serial number 1. Secret of name "dataplane-token-signing-key-default-1" in mesh '
        '"default" is not found. If signing key was rotated, regenerate the token'
    )
    with pytest.raises(TokenError) as error:
        await authority.verify_dataplane(old, "default")
    assert str(error.value) == text


async def test_no_key_no_token(authority):
    with pytest.raises(SigningKeyNotFound, match='Secret of name "dataplane-token-signing-key-x-1" in mesh "x"'):
        await authority.issue_dataplane("x")


async def test_the_keys_of_many_meshes_are_known_at_once(authority, store):
    keys = (DATAPLANE.key(f"m{n}", 1) for n in range(300))
    await store.apply(*(Put(key, secret_spec(KEYS[1])) for key in keys))
    began_s = time.monotonic()
    await authority.ring.catch_up()
    assert time.monotonic() - began_s < 3
    assert authority.ring.latest(DATAPLANE, "m299").private


async def test_a_serial_may_have_leading_zeros_or_none(authority, store):
    await store.apply(
        Delete(DATAPLANE.key("default", 1)),
        Put(ResourceKey("Secret", "default", "dataplane-token-signing-key-default-0002"), secret_spec(KEYS[0])),
        Put(ResourceKey("Secret", "default", "dataplane-token-signing-key-default"), secret_spec(KEYS[1])),
    )
    assert jwt.get_unverified_header(await authority.issue_dataplane("default"))["kid"] == "2"
    assert authority.ring.key(DATAPLANE, "default", 0).raw == KEYS[1]


def rs256(claims, kid="1", key=KEYS[0]):
    return jwt.encode(claims, key, "RS256", {"kid": kid} if kid else {})


EPOCH = NOW.timestamp()


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("", "could not parse token: token contains an invalid number of segments"),
        ("a.b", "could not parse token: token contains an invalid number of segments"),
        ("a.b.c", "could not parse token: "),
        (rs256({}, key=KEYS[1]), "could not parse token: crypto/rsa: verification error"),
        (rs256({"exp": EPOCH - 60}), "could not parse token: token is expired by 1m0s"),
        (rs256({"nbf": EPOCH + 60}), "could not parse token: token is not valid yet"),
        (rs256({"iat": EPOCH + 60}), "could not parse token: token used before issued"),
        (rs256({}, kid="7"), "there is no signing key with serial number 7."),
        (rs256({}, kid="x"), 'could not parse token: kid "x" is not a serial number'),
        (rs256({"Name": 1}), "could not parse token: Name is not text"),
        (rs256({"Tags": [1]}), "could not parse token: Tags is not an object"),
        (rs256({"Tags": {"a": "b"}}), "could not parse token: Tags is not a list of text"),
        (rs256({"exp": float("nan")}), "could not parse token: exp is not a number"),
        (rs256({"exp": float("inf")}), "could not parse token: exp is not a number"),
        (rs256({"exp": "soon"}), "could not parse token: exp is not a number"),
        (jwt.encode({}, "", "none", {"kid": "1"}), "could not parse token: unsupported signing method none"),
        (jwt.encode({}, "x" * 32, "HS256", {"kid": "1"}), "could not parse token: signature is invalid"),
        ("a" * 70_000 + ".b.c", "could not parse token: token is too long"),
    ],
)
async def test_a_bad_token_is_refused_in_kumas_words(authority, token, text):
    with pytest.raises(TokenError) as error:
        await authority.verify_dataplane(token, "default")
    assert str(error.value).startswith(text)


async def test_a_user_token_needs_a_kid(authority):
    with pytest.raises(TokenError, match="kid is required"):
        await authority.verify_user(rs256({}, kid="", key=KEYS[1]))


async def test_legacy_tokens_are_signed_with_the_raw_secret(authority, store):
    await store.apply(Put(DATAPLANE.key("default", 0), secret_spec(b"plain-secret-of-thirty-two-bytes")))
    token = jwt.encode({"Name": "n"}, b"plain-secret-of-thirty-two-bytes", "HS256")
    assert (await authority.verify_dataplane(token, "default")).name == "n"


@pytest.mark.parametrize(
    "form", [serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1], ids=["SPKI", "PKCS#1"]
)
@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER], ids=["PEM", "DER"])
async def test_a_public_key_never_counts_as_the_secret_of_a_legacy_token(authority, store, encoding, form):
    public = serialization.load_pem_private_key(KEYS[1], None).public_key().public_bytes(encoding, form)
    await store.apply(Put(DATAPLANE.key("default", 9), secret_spec(public)))
    signed = ".".join(encoded(part) for part in ({"alg": "HS256", "kid": "9"}, {"Name": "n"}))
    forged = signed + "." + encoded(hmac.digest(public, signed.encode(), "sha256"))
    with pytest.raises(TokenError, match="unsupported signing method HS256"):
        await authority.verify_dataplane(forged, "default")


async def test_a_revoked_token_is_refused_and_open_streams_are_told(authority, store):
    told = asyncio.Event()
    authority.on_revoked(told.set)
    token = await authority.issue_dataplane("default", "n")
    subject = await authority.verify_dataplane(token, "default")
    credential = authority.stream_credential(subject, ProxyKey("default", "n"), "dataplane")
    following = asyncio.create_task(authority.ring.follow())
    try:
        assert authority.ended(subject) is None
        await store.apply(revoke(DATAPLANE, "default", "other", subject.token_id))
        await asyncio.wait_for(told.wait(), 1)
        assert authority.ended(subject) == "token is revoked"
        for authorization in (token, credential):
            with pytest.raises(TokenError, match="token is revoked"):
                await authority.verify_stream(authorization, "default")
    finally:
        following.cancel()


async def test_a_stream_credential_outlives_its_token_and_is_bound_to_one_proxy(authority, clock):
    token = await authority.issue_dataplane("default", tags={"a": ["1"]}, valid_for_s=60)
    subject = await authority.verify_dataplane(token, "default")
    credential = authority.stream_credential(subject, ProxyKey("default", "n"), "dataplane")
    clock.time += timedelta(days=400)
    with pytest.raises(TokenError, match="expired"):
        await authority.verify_stream(token, "default")
    stream = await authority.verify_stream(credential, "default")
    assert (stream.mesh, stream.name, stream.type, stream.tags) == ("default", "n", "dataplane", (("a", ("1",)),))


async def test_keys_are_rotated_under_running_proxies(authority, store):
    token = await authority.issue_dataplane("default")
    credential = authority.stream_credential(
        await authority.verify_dataplane(token, "default"), ProxyKey("default", "n"), "dataplane"
    )
    await store.apply(Put(DATAPLANE.key("default", 2), secret_spec(new_key_pem())), Delete(DATAPLANE.key("default", 1)))
    await authority.ring.catch_up()
    with pytest.raises(TokenError, match="no signing key with serial number 1"):
        await authority.verify_stream(token, "default")
    assert (await authority.verify_stream(credential, "default")).name == "n", "a restart asks again, and lets it in"


async def test_a_stream_credential_ends_when_an_operator_deletes_the_proxy(authority, store, clock):
    subject = await authority.verify_dataplane(await authority.issue_dataplane("default"), "default")
    proxy = ProxyKey("default", "n")
    before = await authority.verify_stream(authority.stream_credential(subject, proxy, "dataplane"), "default")
    await store.apply(authority.end_credentials(proxy))
    await authority.ring.catch_up()
    assert "default.n was deleted" in authority.ended(before)
    clock.time += timedelta(seconds=1)
    await authority.verify_stream(authority.stream_credential(subject, proxy, "dataplane"), "default")


async def test_a_foreign_credential_is_refused(authority, store):
    forged = jwt.encode({"Mesh": "default"}, b"x" * 32, "HS256", {"typ": "koguma-stream"})
    with pytest.raises(TokenError, match="not a credential of this control plane"):
        await authority.verify_stream(forged, "default")


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (Subject("default", "b"), "proxy name from requestor: a is different than in token: b"),
        (Subject("other"), "proxy mesh from requestor: default is different than in token: other"),
        (
            Subject("default", type="ingress"),
            "proxy type from requestor: dataplane is different than in token: ingress",
        ),
        (Subject("default", tags=(("z", ("1",)),)), 'dataplane has no tag "z" required by the token'),
        (
            Subject("default", tags=(("kuma.io/service", ("web", "db")),)),
            (
                'dataplane contains tag "kuma.io/service" with value "api" which is not allowed with this token. '
                'Allowed values in token are ["web" "db"]'
            ),
        ),
    ],
)
def test_a_token_binds_name_mesh_type_and_every_tag_value(subject, text):
    with pytest.raises(BindingError) as error:
        subject.check("default", "a", [Tags({"kuma.io/service": "web"}), Tags({"kuma.io/service": "api"})])
    assert str(error.value) == text


def test_a_token_without_claims_covers_every_proxy_of_its_mesh():
    Subject("default").check("default", "a", [Tags({"kuma.io/service": "web"})])


def test_default_policies_are_in_the_form_that_the_model_prints():
    for put in new_mesh("m", {}, KEYS[0]):
        decoded = decode_spec(put.key.type, put.spec)
        assert decoded.warnings == ()
        assert json.dumps(encode_spec(decoded.spec)) == json.dumps(put.spec)

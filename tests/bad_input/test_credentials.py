"""Tokens that are none, not any more, not yet, or somebody else's: for each an exact status and text."""

from __future__ import annotations

import time
import uuid

import jwt
import pytest
from envoy.service.health.v3.hds_pb2 import HealthCheckRequestOrEndpointHealthResponse
from envoy.service.status.v3.csds_pb2 import ClientStatusRequest

from snapshot.cache.type_url import CLUSTER
from tests.support.running import dataplane
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, node, single_type

KEY, REVOCATIONS = "dataplane-token-signing-key-default-1", "dataplane-token-revocations-default"
HDS = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
CSDS = "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus"
HOUR_S = 3600
NAME = "guarded"


@pytest.fixture(scope="module", autouse=True)
def guarded(plane):
    """The Dataplane that all tokens are about."""
    tags = {"kuma.io/service": "vault", "region": "here"}
    plane.put(dataplane(NAME, inbound=[{"port": 8080, "tags": tags}]))
    plane.put({"type": "Mesh", "name": "other"})


def signed(plane, *, key="", headers=None, **claims):
    """A token as the control plane makes it, except for what is given."""
    now = int(time.time())  # noqa: TID251  # tokens carry real dates
    whole = {"Name": NAME, "Mesh": "default", "Tags": {}, "Type": "", "iat": now, "nbf": now - 300}
    whole |= {"exp": now + HOUR_S, "jti": str(uuid.uuid4()), **claims}
    return jwt.encode(whole, key or plane.secret(KEY), "RS256", headers or {"kid": "1"})


def times(**shifts):
    now = int(time.time())  # noqa: TID251  # as above
    return {claim: now + shift_s for claim, shift_s in shifts.items()}


PARSE = "authentication failed: could not parse token: "
OTHER_REQUESTOR = "authentication failed: proxy {what} from requestor: {actual} is different than in token: {allowed}"
NO_KEY = (
    "authentication failed: there is no signing key with serial number 99. Secret of name "
    '"dataplane-token-signing-key-default-99" in mesh "default" is not found. '
    "If signing key was rotated, regenerate the token"
)
OTHER_SERVICE = (
    'authentication failed: dataplane contains tag "kuma.io/service" with value "vault" which is not allowed with '
    'this token. Allowed values in token are ["bank" "shop"]'
)
ANOTHER_NODE = (
    f"stream was authenticated for ID default.{NAME}. Received request is for node with ID default.neighbour. "
    "Node ID cannot be changed after stream is initialized"
)
CASES = {
    "missing": (lambda _plane: None, "UNAUTHENTICATED", PARSE + "token contains an invalid number of segments"),
    "garbage": (lambda _plane: "garbage", "UNAUTHENTICATED", PARSE + "token contains an invalid number of segments"),
    "empty": (lambda _plane: "", "UNAUTHENTICATED", PARSE + "token contains an invalid number of segments"),
    "garbage in three parts": (lambda _plane: "a.b.c", "UNAUTHENTICATED", PARSE),
    "very long": (lambda _plane: "a" * 30_000, "UNAUTHENTICATED", PARSE),
    "two of them": (
        lambda plane: [plane.token(name=NAME)] * 2,
        "UNAUTHENTICATED",
        "authentication failed: 2 `authorization` values instead of one",
    ),
    "expired": (lambda plane: signed(plane, **times(exp=-10)), "UNAUTHENTICATED", PARSE + "token is expired by 1"),
    "not yet valid": (
        lambda plane: signed(plane, **times(nbf=HOUR_S)),
        "UNAUTHENTICATED",
        PARSE + "token is not valid yet",
    ),
    "no signature": (
        lambda _plane: jwt.encode({"Name": NAME, "Mesh": "default"}, None, "none", {"kid": "1"}),
        "UNAUTHENTICATED",
        PARSE + "unsupported signing method none; allowed: RS256",
    ),
    "of no key": (lambda plane: signed(plane, headers={"kid": "99"}), "UNAUTHENTICATED", NO_KEY),
    "of another mesh's key": (
        lambda plane: signed(plane, key=plane.secret("dataplane-token-signing-key-other-1", "other")),
        "UNAUTHENTICATED",
        PARSE + "crypto/rsa: verification error",
    ),
    "of another name": (
        lambda plane: plane.token(name="somebody"),
        "PERMISSION_DENIED",
        OTHER_REQUESTOR.format(what="name", actual=NAME, allowed="somebody"),
    ),
    "of another mesh": (
        lambda plane: signed(plane, Mesh="other"),
        "PERMISSION_DENIED",
        OTHER_REQUESTOR.format(what="mesh", actual="default", allowed="other"),
    ),
    "of another type": (
        lambda plane: signed(plane, Type="ingress"),
        "PERMISSION_DENIED",
        OTHER_REQUESTOR.format(what="type", actual="dataplane", allowed="ingress"),
    ),
    "of another service": (
        lambda plane: plane.token(tags={"kuma.io/service": ["bank", "shop"]}),
        "PERMISSION_DENIED",
        OTHER_SERVICE,
    ),
    "of a tag it has not": (
        lambda plane: plane.token(tags={"team": ["red"]}),
        "PERMISSION_DENIED",
        'authentication failed: dataplane has no tag "team" required by the token',
    ),
}


@pytest.mark.parametrize("method", [DELTA_METHOD, SOTW_METHOD, single_type("Clusters", delta=True)])
@pytest.mark.parametrize("case", CASES)
async def test_a_bad_token_ends_the_stream_with_what_is_wrong(plane, open_stream, method, case):
    make, code, text = CASES[case]
    stream = open_stream(method, make(plane))
    await stream.send(node=node(f"default.{NAME}"), type_url=CLUSTER)
    found, said = await stream.ended()
    assert found == code
    assert said.startswith(text), said
    assert len(said) < 1000, "what a stranger sends is not sent back at length"


@pytest.mark.parametrize("case", ["missing", "garbage", "expired", "of another name", "of another service"])
async def test_health_discovery_asks_for_the_same_tokens(plane, open_stream, case):
    make, code, text = CASES[case]
    stream = open_stream(HDS, make(plane))
    hello = HealthCheckRequestOrEndpointHealthResponse()
    hello.health_check_request.node.id = f"default.{NAME}"
    await stream.raw(hello.SerializeToString())
    found, said = await stream.ended()
    assert found == code
    assert said.startswith(text), said


@pytest.mark.parametrize("token", [None, "garbage"])
async def test_the_status_service_tells_strangers_nothing(open_stream, token):
    stream = open_stream(CSDS, token)
    await stream.raw(ClientStatusRequest().SerializeToString())
    code, said = await stream.ended()
    assert code in {"UNAUTHENTICATED", "PERMISSION_DENIED"}
    assert NAME not in said


@pytest.mark.parametrize("method", [DELTA_METHOD, SOTW_METHOD])
async def test_a_token_revoked_during_the_stream_ends_it_within_a_second(plane, open_stream, neighbour, method):
    identifier = str(uuid.uuid4())
    token = signed(plane, jti=identifier)
    stream = open_stream(method, token)
    await stream.send(node=node(f"default.{NAME}"), type_url=CLUSTER)
    await stream.ack(await stream.receive())
    began_s = time.monotonic()
    plane.put_secret(REVOCATIONS, identifier.encode())
    assert await stream.ended() == ("UNAUTHENTICATED", "authentication failed: token is revoked")
    assert time.monotonic() - began_s < 1
    await neighbour.is_served()
    later = open_stream(method, token)
    await later.send(node=node(f"default.{NAME}"), type_url=CLUSTER)
    assert await later.ended() == ("UNAUTHENTICATED", "authentication failed: token is revoked")
    plane.rest.delete(f"/meshes/default/secrets/{REVOCATIONS}").raise_for_status()


@pytest.mark.parametrize("method", [DELTA_METHOD, SOTW_METHOD])
async def test_the_node_id_must_be_the_tokens_and_stay(plane, open_stream, method):
    stream = open_stream(method, plane.token(name=NAME))
    await stream.send(node=node("default.neighbour"), type_url=CLUSTER)
    text = OTHER_REQUESTOR.format(what="name", actual="neighbour", allowed=NAME)
    assert await stream.ended() == ("PERMISSION_DENIED", text)
    stream = open_stream(method, plane.token(name=NAME))
    await stream.send(node=node(f"default.{NAME}"), type_url=CLUSTER)
    await stream.receive()
    await stream.send(node=node("default.neighbour"), type_url=CLUSTER)
    assert await stream.ended() == ("INVALID_ARGUMENT", ANOTHER_NODE)

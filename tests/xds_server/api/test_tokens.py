from __future__ import annotations

import jwt
import pytest


def claims_of(response):
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain")
    return jwt.decode(response.text, options={"verify_signature": False})


@pytest.mark.parametrize("path", ["/tokens", "/tokens/dataplane"])
async def test_a_dataplane_token(operator, parts, path):
    body = {"name": "n", "mesh": "default", "tags": {"kuma.io/service": ["web"]}, "type": "dataplane", "validFor": "1h"}
    claims = claims_of(await operator.post(path, json=body))
    assert (claims["Name"], claims["Mesh"], claims["Type"]) == ("n", "default", "dataplane")
    assert claims["Tags"] == {"kuma.io/service": ["web"]}
    assert claims["CpPin"] == parts.tls.pin
    assert claims["exp"] - claims["iat"] == 3600


async def test_what_kumactl_leaves_empty(operator):
    body = {"name": "", "mesh": "default", "tags": None, "type": "", "validFor": ""}
    claims = claims_of(await operator.post("/tokens", json=body))
    assert (claims["Name"], claims["Tags"], claims["Type"]) == ("", {}, "")
    assert claims["exp"] - claims["iat"] == 10 * 365 * 24 * 3600


@pytest.mark.parametrize(("accept", "status"), [("text/plain", 200), ("application/json", 200), ("text/html", 406)])
async def test_a_client_may_ask_for_what_it_gets(operator, accept, status):
    response = await operator.post("/tokens", json={"mesh": "default"}, headers={"accept": accept})
    assert response.status_code == status


async def test_a_user_token(operator, parts):
    response = await operator.post("/tokens/user", json={"name": "joe", "groups": ["devs"], "validFor": "1h"})
    claims = claims_of(response)
    assert (claims["Name"], claims["Groups"]) == ("joe", ["devs"])
    assert (await parts.authority.verify_user(response.text)).name == "joe"


@pytest.mark.parametrize(
    ("path", "body", "causes"),
    [
        ("/tokens", {}, [("mesh", "cannot be empty")]),
        ("/tokens", {"mesh": "default", "type": "x"}, [("type", "x is not a valid proxy type")]),
        (
            "/tokens",
            {"mesh": "default", "validFor": "1d"},
            [("validFor", 'is invalid: time: unknown unit "d" in duration "1d"')],
        ),
        ("/tokens", {"mesh": "default", "validFor": "-1h"}, [("validFor", None)]),
        ("/tokens", {"mesh": 1}, [("body", None)]),
        ("/tokens", [], [("body", None)]),
        ("/tokens/user", {}, [("name", "cannot be empty"), ("validFor", "cannot be empty")]),
        ("/tokens/user", {"name": "a", "validFor": "x"}, [("validFor", 'is invalid: time: invalid duration "x"')]),
        ("/tokens/zone", {}, [("type", None)]),
        ("/tokens/zone-ingress", {}, [("type", None)]),
    ],
)
async def test_bad_requests(operator, path, body, causes):
    response = await operator.post(path, json=body)
    assert response.status_code == 400
    answer = response.json()
    assert (answer["title"], answer["details"]) == ("Invalid request", "Invalid request")
    for cause, (field, message) in zip(answer["causes"], causes, strict=True):
        assert cause["field"] == field
        assert message in {None, cause["message"]}


async def test_no_key_no_token(operator):
    response = await operator.post("/tokens", json={"mesh": "nope"})
    assert response.status_code == 404
    assert response.json()["title"] == "Signing Key not found"
    assert 'Secret of name "dataplane-token-signing-key-nope-1" in mesh "nope"' in response.json()["details"]

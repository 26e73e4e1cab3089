from __future__ import annotations

import asyncio

import pytest

from xds_server.api.app import api_app
from xds_server.api.serve import Server

REMOTE = ("192.0.2.7", 40000)
MESH = {"type": "Mesh", "name": "m1"}


async def test_anybody_may_read_what_is_harmless(stranger):
    for path in ("/", "/config", "/versions", "/meshes", "/meshes/default", "/dataplanes", "/timeouts"):
        assert (await stranger.get(path)).status_code == 200, path


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        (
            "GET",
            "/secrets",
            'user "mesh-system:anonymous/mesh-system:unauthenticated" cannot access the resource of type "Secret"',
        ),
        ("GET", "/meshes/default/secrets/x", "cannot access"),
        ("GET", "/global-secrets", "cannot access"),
        ("GET", "/global-secrets/admin-user-token", "cannot access"),
        ("PUT", "/global-secrets/x", "cannot access"),
        ("DELETE", "/meshes/default", 'cannot access the resource of type "Mesh"'),
        ("PUT", "/meshes/m1", 'cannot access the resource of type "Mesh"'),
        ("PUT", "/meshes/default/dataplanes/a", 'cannot access the resource of type "Dataplane"'),
        ("POST", "/tokens", "action not allowed"),
        ("POST", "/tokens/dataplane", "action not allowed"),
        ("POST", "/tokens/user", "action not allowed"),
        ("POST", "/tokens/zone", "action not allowed"),
    ],
)
async def test_a_stranger_neither_writes_nor_reads_secrets(stranger, method, path, text):
    response = await stranger.request(method, path, json={})
    body = response.json()
    assert (response.status_code, body["title"]) == (403, "Access Denied")
    assert text in body["details"]
    assert "Authorization: Bearer" in body["causes"][0]["message"]


async def test_the_admin_token_opens_everything_from_anywhere(clients, parts):
    token = parts.first_start.admin_token_file.read_text()
    async with clients(REMOTE, headers={"authorization": f"Bearer {token}"}) as client:
        assert (await client.put("/meshes/m1", json=MESH)).status_code == 201
        assert (await client.get("/global-secrets/admin-user-token")).status_code == 200
        assert (await client.post("/tokens", json={"mesh": "default"})).status_code == 200


async def test_a_user_token_without_groups_only_reads(clients, parts):
    token = await parts.authority.issue_user("joe", ["devs"])
    async with clients(REMOTE, headers={"authorization": f"Bearer {token}"}) as client:
        assert (await client.get("/meshes")).status_code == 200
        response = await client.get("/secrets")
    assert 'user "joe/devs,mesh-system:authenticated" cannot access' in response.json()["details"]


@pytest.mark.parametrize("authorization", ["Bearer x", "Bearer ", "Basic eDp5", "x"])
async def test_a_bad_token_ends_the_request(clients, authorization):
    async with clients(REMOTE, headers={"authorization": authorization}) as client:
        response = await client.get("/meshes")
    assert response.status_code == 401
    body = response.json()
    assert (body["title"], body["details"]) == ("Invalid authentication data", "Unauthenticated")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost", "localhost:5681", "127.0.0.1:5681", "[::1]:5681"])
async def test_a_process_on_this_machine_is_the_operator(clients, address, host):
    async with clients((address, 1), headers={"host": host}) as client:
        assert (await client.get("/secrets")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"x-real-ip": "127.0.0.1"},
        {"x-forwarded-prefix": "/"},
        {"via": "1.1 proxy"},
        {"origin": "http://localhost:5681"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost.evil.example:5681"},
        {"host": "localhost:80@evil.example"},
        {"host": "localhost:evil.example"},
        {"host": "localhost/evil.example"},
        {"host": "[::1"},
        {"host": "[::1].evil.example"},
        {"host": "0.0.0.0:5681"},
        {"host": "127.1"},
        {"host": ""},
        {"x-envoy-external-address": "127.0.0.1"},
        {"x-original-forwarded-for": "127.0.0.1"},
        {"x-cluster-client-ip": "127.0.0.1"},
    ],
)
async def test_a_web_page_or_a_proxy_on_this_machine_is_not_the_operator(clients, headers):
    async with clients(headers=headers) as client:
        assert (await client.get("/secrets")).status_code == 403
        assert (await client.put("/meshes/m1", json=MESH)).status_code == 403


async def test_who_comes_by_http_1_0_is_not_the_operator(parts):
    """As nginx forwards by default: from loopback, to a loopback Host, without a word of who called."""
    server = Server(api_app(parts.api), "x")
    port = await server.start("127.0.0.1", 0)
    answers = []
    for version in ("1.0", "1.1"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /secrets HTTP/{version}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answers.append((await reader.read()).split(maxsplit=2)[1])
        writer.close()
    assert answers == [b"403", b"200"]
    await server.stop()


@pytest.mark.parametrize("site", ["none", "same-origin"])
async def test_the_operators_own_browser_is(clients, site):
    async with clients(headers={"sec-fetch-site": site}) as client:
        assert (await client.get("/secrets")).status_code == 200


async def test_a_form_of_a_web_page_cannot_write(clients):
    async with clients(headers={"content-type": "application/x-www-form-urlencoded"}) as client:
        assert (await client.put("/meshes/m1", content=b"{}")).status_code == 415
        assert (await client.post("/tokens", content=b"{}")).status_code == 415


async def test_cross_origin_reads_follow_the_setting(clients):
    async with clients(REMOTE, headers={"origin": "https://gui.example"}) as client:
        response = await client.get("/meshes")
        assert response.headers["access-control-allow-origin"] == "https://gui.example"
        ask = {"access-control-request-method": "PUT"}
        allowed = await client.options("/meshes/default", headers=ask)
        assert allowed.headers["access-control-allow-methods"] == "GET, PUT, DELETE"
        refused = await client.options("/meshes/default", headers=ask | {"access-control-request-headers": "x"})
        assert "access-control-allow-origin" not in refused.headers

from __future__ import annotations

import asyncio
import dataclasses
import json
import ssl

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from snapshot.model.meta import ProxyKey, ResourceKey
from xds_server.api import config_dump
from xds_server.api.app import api_app
from xds_server.api.config_dump import redacted
from xds_server.api.responses import json_response
from xds_server.api.serve import Server
from xds_server.config import ConfigError, load
from xds_server.store.contract import Put


async def test_the_root_says_who_answers(operator, parts):
    body = (await operator.get("/")).json()
    assert (body["tagline"], body["version"], body["hostname"]) == ("Kuma", "1.5.1", "host")
    assert body["clusterId"] == parts.first_start.cluster_id
    assert body["instanceId"] == "host-abcd"
    assert (body["product"], body["productVersion"]) == ("koguma", "0.1.0")


async def test_config_is_compact_json(operator):
    response = await operator.get("/config")
    assert response.text == json.dumps(response.json(), separators=(",", ":"))
    assert response.json()["apiServer"]["http"]["port"] == 5681


async def test_versions_name_envoys(operator):
    assert (await operator.get("/versions")).json()["kumaDp"]["1.0.0"] == {"envoy": "1.16.0"}


async def test_requests_are_measured_by_route(operator, parts):
    await operator.get("/meshes/default")
    text = parts.telemetry.exposition().decode()
    assert 'api_server_http_request_duration_seconds_count{code="200",handler="/meshes/{name}",method="GET"' in text


async def test_a_real_server_starts_serves_and_stops(parts):
    server = Server(api_app(parts.api), "apiServer.http.port")
    port = await server.start("127.0.0.1", 0)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://127.0.0.1:{port}/secrets")).status_code == 200
        await server.stop(0.1)
        with pytest.raises(httpx.HTTPError):
            await client.get(f"http://127.0.0.1:{port}/")


async def test_https_serves_the_same_and_reloads_its_pair(parts):
    server = Server(api_app(parts.api), "apiServer.https.port", parts.tls)
    port = await server.start("127.0.0.1", 0)
    server.reload(parts.tls)
    context = ssl.create_default_context(cafile=parts.tls.cert_file)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        page = (await client.get(f"https://127.0.0.1:{port}/global-secrets?size=1")).json()
    assert page["next"].startswith(f"https://127.0.0.1:{port}/global-secrets?")
    await server.stop()


async def test_stopping_lets_answers_finish_and_ends_the_rest():
    async def slow(scope, receive, send):
        seconds = float(Request(scope).query_params["s"])
        await asyncio.sleep(seconds)
        await PlainTextResponse("done")(scope, receive, send)

    server = Server(slow, "x")
    port = await server.start("127.0.0.1", 0)
    async with httpx.AsyncClient(trust_env=False) as client:
        quick = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/?s=0.2"))
        endless = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/?s=60"))
        await asyncio.sleep(0.1)
        await asyncio.wait_for(server.stop(0.5), 3)
        assert (await quick).text == "done"
        with pytest.raises(httpx.HTTPError):
            await endless


async def test_a_config_dump_comes_from_envoys_admin_without_credentials(operator, parts):
    async def admin(scope, receive, send):
        dump = {"configs": [{"initialMetadata": [{"key": "authorization", "value": "secret"}]}]}
        await PlainTextResponse(json.dumps(dump))(scope, receive, send)

    envoy = Server(admin, "x")
    port = await envoy.start("127.0.0.1", 0)
    networking = {"address": "127.0.0.1", "gateway": {"tags": {"kuma.io/service": "a"}}, "admin": {"port": port}}
    await parts.store.apply(Put(ResourceKey("Dataplane", "default", "a"), {"networking": networking}))
    response = await operator.get("/meshes/default/dataplanes/a/xds")
    assert response.status_code == 200
    assert response.json() == {"configs": [{"initialMetadata": [{"key": "authorization", "value": "[redacted]"}]}]}
    await envoy.stop()
    gone = await operator.get("/meshes/default/dataplanes/a/xds")
    assert (gone.status_code, gone.json()["title"]) == (500, "Could not get config_dump")
    missing = await operator.get("/meshes/default/dataplanes/b/xds")
    assert (missing.status_code, missing.json()["title"]) == (404, "Could not get dataplane resource")


@pytest.mark.parametrize(
    ("connected_port", "node", "status", "cause"),
    [
        ("own", "default.a", 200, ""),
        ("own", "default.other", 500, "the Envoy of default.other answers there, not that of default.a"),
        (0, "", 500, "this proxy runs without an admin interface"),
    ],
    ids=["the port that the proxy has", "another Envoy at that port", "no admin interface"],
)
async def test_a_config_dump_is_asked_of_the_envoy_that_is_connected(parts, connected_port, node, status, cause):
    async def admin(scope, receive, send):
        dump = {"configs": [{"bootstrap": {"node": {"id": node}}}, {"bootstrap": None}, 3]}
        await PlainTextResponse(json.dumps(dump))(scope, receive, send)

    envoy = Server(admin, "x")
    port = await envoy.start("127.0.0.1", 0)
    networking = {"address": "127.0.0.1", "gateway": {"tags": {"kuma.io/service": "a"}}}
    await parts.store.apply(Put(ResourceKey("Dataplane", "default", "a"), {"networking": networking}))
    has = {ProxyKey("default", "a"): port if connected_port == "own" else connected_port}
    app = api_app(dataclasses.replace(parts.api, admin_port=has.get))
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 40000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:5681") as operator:
        response = await operator.get("/meshes/default/dataplanes/a/xds")
    await envoy.stop()
    assert response.status_code == status
    if cause:
        assert response.json()["causes"][0]["message"].endswith(cause)


@pytest.mark.parametrize(
    "text", ["x", "[" * 100_000, '{"a":' * 500 + "1" + "}" * 500, "x" * 2000], ids=["text", "deep", "nested", "large"]
)
async def test_what_is_no_config_dump_is_an_error_that_names_the_envoy(operator, parts, monkeypatch, text):
    monkeypatch.setattr(config_dump, "_MAX_DUMP", 1000 if text.startswith("xx") else 1_000_000)

    async def admin(scope, receive, send):
        await PlainTextResponse(text)(scope, receive, send)

    envoy = Server(admin, "x")
    port = await envoy.start("127.0.0.1", 0)
    networking = {"address": "127.0.0.1", "gateway": {"tags": {"kuma.io/service": "a"}}, "admin": {"port": port}}
    await parts.store.apply(Put(ResourceKey("Dataplane", "default", "a"), {"networking": networking}))
    response = await operator.get("/meshes/default/dataplanes/a/xds")
    await envoy.stop()
    assert response.status_code == 500
    assert response.json()["causes"][0]["message"].startswith(f"http://127.0.0.1:{port}/config_dump: ")


@pytest.mark.parametrize(
    "body",
    [{"a": [{"b": {}, "c": [], "d": None, "e": True, "f": 1.5}, "é<&>\u2028"], "n": 2**53}, [], {"lone": "\ud800"}],
    ids=["everything", "empty", "surrogate"],
)
def test_json_is_indented_by_one_space_and_ends_with_a_newline(body):
    text = json_response(body).body.decode()
    assert json.loads(text) == body
    assert text == json.dumps(body, indent=1, ensure_ascii="lone" in body) + "\n"


def test_only_credentials_are_redacted():
    assert redacted([{"key": "a", "value": 1}, {"key": "Authorization", "value": "x"}])[1]["value"] == "[redacted]"


def test_a_bad_origin_pattern_is_an_error_of_the_configuration(parts):
    parts.config = load(environ={"KUMA_API_SERVER_CORS_ALLOWED_DOMAINS": "["}).config
    with pytest.raises(ConfigError, match=r"apiServer\.corsAllowedDomains"):
        _ = parts.api

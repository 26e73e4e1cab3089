"""CSDS: what the server holds about each client, shown to those who may see it."""

from __future__ import annotations

import grpc
import pytest
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext
from envoy.service.status.v3.csds_pb2 import ClientStatusRequest, ClientStatusResponse, ConfigStatus

from snapshot.cache.resource import XdsResource
from snapshot.cache.type_url import CLUSTER, LISTENER, SECRET
from snapshot.model.meta import ProxyKey
from tests.support.xds_client import SOTW_METHOD, node
from xds_server.ads.redaction import shown_body

SERVICE = "/envoy.service.status.v3.ClientStatusDiscoveryService"
PRIVATE = b"-----BEGIN PRIVATE KEY-----\nsecret words\n-----END PRIVATE KEY-----"


async def ask(harness, token="admin", **fields):  # noqa: S107  # invented
    call = harness.channel().unary_unary(f"{SERVICE}/FetchClientStatus")
    raw = ClientStatusRequest(**fields).SerializeToString()
    return ClientStatusResponse.FromString(await call(raw, metadata=[("authorization", token)]))


async def connect(harness, name, *resources, type_url=CLUSTER, answer="ack"):
    harness.nodes.publish(ProxyKey("default", name), *resources)
    stream = harness.stream(SOTW_METHOD, "any")
    await stream.send(node=node(f"default.{name}"), type_url=type_url, resource_names=["*"])
    response = await stream.receive()
    records = harness.observer.records
    if answer == "ack":
        await stream.ack(response, resource_names=["*"])
        await harness.until(lambda: records[-1].events[-1][0] == "acked")
    elif answer == "nack":
        await stream.ack(response, resource_names=["*"], version_info="", error_detail={"message": "bad words"})
        await harness.until(lambda: records[-1].events[-1][0] == "nacked")
    return stream


def entries(response):
    return {
        (config.node.id, entry.name): ConfigStatus.Name(entry.config_status)
        for config in response.config
        for entry in config.generic_xds_configs
    }


@pytest.mark.rule("XP-164")
async def test_every_node_and_type_with_its_status(harness):
    await connect(harness, "a", XdsResource(CLUSTER, "x", b"\x0a\x01x"))
    await connect(harness, "b", XdsResource(CLUSTER, "y", b"\x0a\x01y"), answer="none")
    await connect(harness, "c", XdsResource(CLUSTER, "z", b"\x0a\x01z"), answer="nack")
    response = await ask(harness)
    statuses = entries(response)
    assert statuses["default.a", "x"] == "SYNCED"
    assert statuses["default.b", "y"] == "STALE"
    assert "ERROR" in {status for (node_id, _), status in statuses.items() if node_id == "default.c"}
    (refused,) = [config for config in response.config if config.node.id == "default.c"]
    assert refused.generic_xds_configs[0].error_state.details == "bad words"
    (synced,) = [config for config in response.config if config.node.id == "default.a"]
    entry = synced.generic_xds_configs[0]
    assert (entry.xds_config.type_url, entry.xds_config.value) == (CLUSTER, b"\x0a\x01x")
    assert entry.client_status == 0
    assert entry.version_info
    bare = await ask(harness, exclude_resource_contents=True)
    assert not any(entry.xds_config.value for config in bare.config for entry in config.generic_xds_configs)


@pytest.mark.rule("XP-147", "XP-164")
async def test_a_proxy_sees_itself_and_nobody_else(harness):
    for name in ("a", "b"):
        await connect(harness, name, XdsResource(CLUSTER, name, b""))
    own = await ask(harness, "default.a", node=node("default.a"))
    assert [config.node.id for config in own.config] == ["default.a"]
    for fields, token, code in (
        ({"node": node("default.b")}, "default.a", grpc.StatusCode.PERMISSION_DENIED),
        ({}, "default.a", grpc.StatusCode.PERMISSION_DENIED),
        ({"node": node("default.a")}, "bad", grpc.StatusCode.UNAUTHENTICATED),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(harness, token, **fields)
        assert refused.value.code() == code


@pytest.mark.rule("XP-164")
@pytest.mark.parametrize(
    ("matchers", "seen"),
    [
        ([{"node_id": {"exact": "default.a1"}}], ["default.a1"]),
        ([{"node_id": {"prefix": "default.A", "ignore_case": True}}], ["default.a1", "default.a2"]),
        ([{"node_id": {"suffix": "2"}}, {"node_id": {"contains": ".b"}}], ["default.a2", "default.b1"]),
    ],
)
async def test_matchers_are_ored(harness, matchers, seen):
    for name in ("a1", "a2", "b1"):
        await connect(harness, name)
    assert sorted(config.node.id for config in (await ask(harness, node_matchers=matchers)).config) == seen


async def test_what_cannot_be_matched_is_refused(harness):
    for matcher, text in (
        ({"node_id": {"safe_regex": {"regex": "a"}}}, "node_matchers[0].node_id: must be one of exact"),
        ({"node_metadatas": [{}]}, "node_matchers[0].node_metadatas: not supported"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(harness, node_matchers=[matcher])
        assert text in refused.value.details()


async def test_a_stream_answers_each_request(harness):
    await connect(harness, "a")
    stream = harness.stream(f"{SERVICE}/StreamClientStatus", "admin")
    for _ in range(2):
        await stream.raw(ClientStatusRequest().SerializeToString())
        assert len(ClientStatusResponse.FromString(await stream.call.read()).config) == 1
    await stream.half_close()
    assert (await stream.ended())[0] == "OK"


@pytest.mark.rule("XP-150", "XP-165")
async def test_private_keys_are_not_shown(harness):
    secret = Secret(name="s")
    secret.tls_certificate.private_key.inline_bytes = PRIVATE
    secret.tls_certificate.certificate_chain.inline_bytes = b"public"
    listener = Listener(name="l")
    context = DownstreamTlsContext()
    context.common_tls_context.tls_certificates.add().private_key.inline_bytes = PRIVATE
    chain = listener.filter_chains.add()
    chain.transport_socket.name = "tls"
    chain.transport_socket.typed_config.Pack(context)
    for resource in (XdsResource.of(SECRET, "s", secret), XdsResource.of(LISTENER, "l", listener)):
        shown = shown_body(resource)
        assert b"secret words" not in shown
        assert b"[redacted]" in shown
    assert b"public" in shown_body(XdsResource.of(SECRET, "s", secret))
    await connect(harness, "a", XdsResource.of(LISTENER, "l", listener), type_url=LISTENER)
    assert b"secret words" not in (await ask(harness)).SerializeToString()


@pytest.mark.rule("XP-165")
async def test_a_dump_yields_to_the_streams(harness):
    import asyncio  # noqa: PLC0415

    many = [XdsResource(CLUSTER, f"{number}", b"\x0a\x01x") for number in range(150)]
    for name in ("a", "b", "c"):
        await connect(harness, name, *many)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    from xds_server.ads.csds import ClientStatus  # noqa: PLC0415

    class Context:
        def invocation_metadata(self):
            return (("authorization", "admin"),)

    parts = harness.server._parts
    csds = ClientStatus(parts.clock, harness.authenticator, parts.open_sessions)
    counting = asyncio.ensure_future(count())
    await csds.fetch(b"", Context())
    counting.cancel()
    assert turns >= 3

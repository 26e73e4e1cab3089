"""Who gets in, and what everybody else is told."""

from __future__ import annotations

import asyncio
import json

import pytest

from snapshot.cache.type_url import CLUSTER
from snapshot.model.meta import ProxyKey, ResourceKey
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, node
from xds_server.ads.ports import Ending, Refused
from xds_server.ads.settings import AdsSettings

HDS_METHOD = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
CSDS_METHOD = "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus"
RESOURCE = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "web.1",
    "networking": {"address": "127.0.0.1", "inbound": [{"port": 80, "tags": {"kuma.io/service": "web"}}]},
}
BAD_ID = "request must have a valid Proxy ID"


def carrying(resource: object) -> dict:
    return {"dataplane.resource": resource if isinstance(resource, str) else json.dumps(resource)}


def not_a_number():
    message = node("d.w", {"version": {"x": 1}})
    message.metadata.fields["version"].struct_value.fields["x"].number_value = float("nan")
    return message


@pytest.mark.rule("XP-12", "XP-112")
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, f"{BAD_ID}: the first request of a stream must carry `node`"),
        ({"node": node("")}, f"{BAD_ID}: Envoy ID must not be nil"),
        ({"node": node("default")}, f"{BAD_ID}: the name should be provided after the dot"),
        ({"node": node("default.")}, f"{BAD_ID}: name must not be empty"),
        ({"node": node(".web")}, f"{BAD_ID}: mesh must not be empty"),
        ({"node": node("d." + "x" * 2000)}, "at most 1024 are allowed"),
        ({"node": node(".i", {"dataplane.proxyType": "ingress"})}, 'unsupported proxy type "ingress"'),
        ({"node": node("d.w", {"dataplane.proxyType": 7})}, "node metadata dataplane.proxyType: must be a string"),
        ({"node": node("d.w", {"dataplane.admin.port": "x"})}, "dataplane.admin.port: must be a decimal number"),
        ({"node": node("d.w", {"dataplane.admin.port": 1.5})}, "dataplane.admin.port: must be a decimal number"),
        ({"node": node("d.w", {"dataplane.admin.port": "70000"})}, "dataplane.admin.port: must be at most 65535"),
        ({"node": node("d.w", {"dataplane.admin.port": "9" * 5000})}, "dataplane.admin.port: must be at most 65535"),
        ({"node": node("d.w", {"version": "1.5.1"})}, "node metadata version: must be an object"),
        ({"node": node("d.w", {"dynamicMetadata": []})}, "node metadata dynamicMetadata: must be an object"),
        ({"node": node("d.w", {"koguma.runId": {}})}, "node metadata koguma.runId: must be a string"),
        ({"node": node("d.w", {"dataplane.resource": {}})}, "node metadata dataplane.resource: must be a string"),
        ({"node": node("d.w", carrying("{nonsense"))}, "node metadata dataplane.resource: not JSON"),
        ({"node": node("d.w", carrying("[" * 100_000))}, "node metadata dataplane.resource: not JSON"),
        (
            {"node": node("d.w", carrying("[]"))},
            "must be a JSON object with the fields type, mesh, name",
        ),
        ({"node": node("d.w", carrying("{}"))}, "dataplane.resource: type: must be a string that is not empty"),
        ({"node": node("d.w", carrying({**RESOURCE, "type": "Mesh"}))}, "type: must be Dataplane, got 'Mesh'"),
        ({"node": node("d.w", carrying({**RESOURCE, "name": 5}))}, "name: must be a string that is not empty"),
        ({"node": node("d.w", carrying({**RESOURCE, "networking": 5}))}, "dataplane.resource: networking"),
        (
            {"node": node("d.w", carrying({**RESOURCE, "networking": {"address": 1, "outbound": 2}}))},
            "networking.address: json: cannot unmarshal number into Go value of type string; networking.outbound: must",
        ),
        (
            {"node": node("d.w", carrying({**RESOURCE, "networking": {"inbound": [{"tags": {"é" * 50: 1}}] * 99}}))},
            "networking.inbound[2].tags",
        ),
        ({"node": node("d.w", carrying({**RESOURCE, "networking": None}))}, "networking: has to be defined"),
    ],
)
@pytest.mark.parametrize("method", [SOTW_METHOD, DELTA_METHOD], ids=["sotw", "delta"])
async def test_a_first_request_that_makes_no_sense_ends_its_stream_only(harness, method, fields, text):
    bystander = harness.stream(method)
    await bystander.send(node=node("default.web.1"), type_url=CLUSTER)
    stream = harness.stream(method, "any")
    await stream.send(type_url=CLUSTER, **fields)
    code, message = await stream.ended()
    assert (code, text in message) == ("INVALID_ARGUMENT", True), message
    harness.nodes.publish(ProxyKey("default", "web.1"))
    await bystander.receive()
    assert len(harness.registrar.open) == 1


@pytest.mark.rule("XP-112")
@pytest.mark.parametrize("method", [SOTW_METHOD, DELTA_METHOD, HDS_METHOD])
@pytest.mark.parametrize("garbage", [b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a"])
async def test_garbage_bytes(harness, method, garbage):
    stream = harness.stream(method)
    await stream.raw(garbage)
    code, text = await stream.ended()
    assert (code, "the request is not a" in text) == ("INVALID_ARGUMENT", True)


async def test_garbage_later_in_the_stream(harness):
    stream = harness.stream(SOTW_METHOD)
    await stream.send(node=node("default.web.1"), type_url=CLUSTER)
    await stream.raw(b"\xff\xff")
    assert (await stream.ended())[0] == "INVALID_ARGUMENT"
    await harness.until(lambda: harness.registrar.released == [("default.web.1", Ending.LEFT)])


@pytest.mark.rule("XP-19")
async def test_the_first_request_is_read_once_and_trimmed(harness):
    extensions = [{"name": f"envoy.extension.{number}", "category": "x" * 80} for number in range(600)]
    metadata = {
        **carrying({**RESOURCE, "networking": {**RESOURCE["networking"], "nonsense": 1}}),
        "dataplane.admin.port": "9901",
        "koguma.runId": "run-1",
        "version": {"kumaDp": {"version": "1.5.1"}, "envoy": {"version": "1.22.0"}},
        "dynamicMetadata": {"koguma.helpers": "none"},
    }
    kafka = {"name": "envoy.filters.network.kafka_broker"}
    first = node("default.web.1", metadata, extensions=[*extensions, kafka], user_agent_name="envoy")
    stream = harness.stream(SOTW_METHOD, "default.web.1")
    await stream.send(node=first, type_url=CLUSTER)
    await harness.until(lambda: harness.nodes.joined)
    identity = harness.registrar.open[0]
    assert identity.carried.key == ResourceKey("Dataplane", "default", "web.1")
    assert identity.carried.spec.networking.inbound[0].port == 80
    assert any("nonsense" in warning for warning in identity.carried.warnings)
    assert (identity.run_id, identity.dynamic) == ("run-1", {"koguma.helpers": "none"})
    assert identity.version == {"kumaDp": {"version": "1.5.1"}, "envoy": {"version": "1.22.0"}}
    (proxy, info), *_ = harness.nodes.joined
    assert (proxy, info.admin_port, info.kuma_dp_version) == (ProxyKey("default", "web.1"), 9901, "1.5.1")
    assert info.extensions == {"envoy.filters.network.kafka_broker"}


@pytest.mark.rule("XP-146", "XP-147")
@pytest.mark.parametrize("method", [SOTW_METHOD, DELTA_METHOD, HDS_METHOD])
@pytest.mark.parametrize(
    ("token", "code", "text"),
    [
        (None, "UNAUTHENTICATED", "authentication failed: could not parse token"),
        ("bad", "UNAUTHENTICATED", "authentication failed: could not parse token"),
        (["any", "any"], "UNAUTHENTICATED", "authentication failed"),
        ("default.other", "PERMISSION_DENIED", "is different than in token: default.other"),
    ],
)
async def test_a_stream_without_the_right_credential_gets_nothing(harness, method, token, code, text):
    from envoy.service.health.v3.hds_pb2 import HealthCheckRequestOrEndpointHealthResponse  # noqa: PLC0415

    harness.nodes.publish(ProxyKey("default", "web.1"))
    harness.dataplanes.put(ProxyKey("default", "web.1"), object())
    stream = harness.stream(method, token)
    if method == HDS_METHOD:
        message = HealthCheckRequestOrEndpointHealthResponse()
        message.health_check_request.node.id = "default.web.1"
        await stream.raw(message.SerializeToString())
    else:
        await stream.send(node=node("default.web.1"), type_url=CLUSTER)
    got, message = await stream.ended()
    assert (got, text in message) == (code, True)
    assert (harness.nodes.joined, harness.registrar.open, harness.observer.counts["refused"]) == ([], [], 1)


@pytest.mark.rule("XP-146")
async def test_a_bad_token_is_judged_before_the_metadata_is_read(harness):
    stream = harness.stream(SOTW_METHOD, "bad")
    await stream.send(node=node("default.web.1", carrying("{nonsense")), type_url=CLUSTER)
    assert (await stream.ended())[0] == "UNAUTHENTICATED"


@pytest.mark.rule("XP-17")
async def test_a_refused_registration_ends_the_stream_and_the_retry_is_served(harness):
    text = (
        'resource "default.web.1" not found; create a Dataplane in Kuma CP first or pass it as an argument to kuma-dp'
    )
    harness.registrar.refuse = Refused("NOT_FOUND", text)
    stream = harness.stream(SOTW_METHOD)
    await stream.send(node=node("default.web.1"), type_url=CLUSTER)
    assert await stream.ended() == ("NOT_FOUND", text)
    harness.registrar.refuse = None
    harness.nodes.publish(ProxyKey("default", "web.1"))
    again = harness.stream(SOTW_METHOD)
    await again.send(node=node("default.web.1"), type_url=CLUSTER)
    await again.receive()


@pytest.mark.rule("XP-11", "XP-13")
async def test_the_node_id_cannot_change(harness):
    harness.nodes.publish(ProxyKey("default", "web.1"))
    stream = harness.stream(SOTW_METHOD, "any")
    await stream.send(node=node("default.web.1"), type_url=CLUSTER)
    response = await stream.receive()
    await stream.ack(response, node=node("default.web.1", {"dataplane.admin.port": "1"}))
    await stream.send(node=node("default.web.2"), type_url=CLUSTER)
    text = (
        "stream was authenticated for ID default.web.1. Received request is for node with ID default.web.2. "
        "Node ID cannot be changed after stream is initialized"
    )
    assert await stream.ended() == ("INVALID_ARGUMENT", text)


async def test_a_stream_that_says_nothing_is_ended(special):
    harness = await special(settings=AdsSettings(first_request_s=0.1))
    stream = harness.stream(SOTW_METHOD)
    assert await stream.ended() == ("DEADLINE_EXCEEDED", "no request within 0.1 s of opening the stream")


async def test_a_stream_that_half_closes_without_a_word_ends_ok(harness):
    stream = harness.stream(SOTW_METHOD)
    await stream.half_close()
    assert (await stream.ended())[0] == "OK"


async def test_streams_of_one_proxy_are_limited(special):
    harness = await special(settings=AdsSettings(streams_per_proxy=2, drain_s=0.1))
    for number in (1, 2):
        await harness.stream(SOTW_METHOD).send(node=node("default.web.1"), type_url=CLUSTER)
        await harness.until(lambda number=number: len(harness.nodes.handles) == number)
    third = harness.stream(SOTW_METHOD)
    await third.send(node=node("default.web.1"), type_url=CLUSTER)
    code, text = await third.ended()
    assert (code, text) == ("RESOURCE_EXHAUSTED", "default.web.1 has 2 open streams, the limit is 2")
    other = harness.stream(SOTW_METHOD)
    await other.send(node=node("default.web.2"), type_url=CLUSTER)
    await harness.until(lambda: len(harness.nodes.handles) == 3)


async def test_a_client_that_leaves_during_registration_keeps_no_lease(harness):
    harness.registrar.hold = asyncio.Event()
    stream = harness.stream(SOTW_METHOD)
    await stream.send(node=node("default.web.1"), type_url=CLUSTER)
    await harness.until(lambda: harness.authenticator.revocations)
    stream.cancel()
    await asyncio.sleep(0.05)
    harness.registrar.hold.set()
    await harness.until(lambda: harness.registrar.released == [("default.web.1", Ending.LEFT)])
    await harness.until(lambda: harness.server.open_streams == 0)
    assert (harness.registrar.open, harness.nodes.handles) == ([], [])


@pytest.mark.rule("XP-129")
@pytest.mark.parametrize("size_mib", [5, 40])
async def test_large_requests_are_taken(harness, size_mib):
    harness.nodes.publish(ProxyKey("default", "web.1"))
    stream = harness.stream(DELTA_METHOD)
    versions = {f"{number:05}" + "n" * 1000: "v" for number in range(size_mib * 1000)}
    if size_mib > 32:
        await stream.send(node=node("default.web.1"), type_url=CLUSTER, initial_resource_versions=versions)
        code, text = await stream.ended(20)
        assert (code, "initial_resource_versions" in text) == ("RESOURCE_EXHAUSTED", True)
    else:
        await stream.send(node=node("default.web.1"), type_url=CLUSTER, initial_resource_versions=versions)
        response = await stream.receive(20)
        assert len(response.removed_resources) > 0


async def test_a_megabyte_of_names(harness):
    harness.nodes.publish(ProxyKey("default", "web.1"))
    stream = harness.stream(DELTA_METHOD)
    names = [f"{number:06}" + "n" * 94 for number in range(10_000)]
    endpoint = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    await stream.send(node=node("default.web.1"), type_url=endpoint, resource_names_subscribe=names)
    absent = await stream.receive(20)
    assert len(absent.removed_resources) == len(names)
    await stream.send(type_url=endpoint, resource_names_subscribe=["x" * 5000])
    assert (await stream.ended())[0] == "INVALID_ARGUMENT"

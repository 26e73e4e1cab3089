"""Clients that open streams and then behave badly: each gets what it deserves, and the others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from google.protobuf.json_format import ParseDict
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER
from tests.support.running import dataplane
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, XdsStream, node

HDS = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
CSDS = "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus"
METHODS = (DELTA_METHOD, SOTW_METHOD)
UNKNOWN_TYPE = "type.googleapis.com/nobody.v3.KnowsThis"
NAME = "rude"
ORDERLY = frozenset({"OK", "INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND"})
CLIENTS_OWN = "Internal error from Core"
"""What grpc.aio's client makes of a write to a stream that has just ended; ours says another text."""
MEGABYTE = 1 << 20
TEN_MB = 10 * MEGABYTE


@pytest.fixture(scope="module", autouse=True)
def rude(plane):
    """The proxy that behaves badly: its clusters include `target`."""
    outbound = [{"port": 10_001, "tags": {"kuma.io/service": "target"}}]
    plane.put(dataplane(NAME, gateway={"tags": {"kuma.io/service": NAME}}, outbound=outbound))
    move_target(plane, 30_000)


def move_target(plane, port):
    plane.put(dataplane("target-1", inbound=[{"port": port, "tags": {"kuma.io/service": "target"}}]))


def names_of(stream, *names):
    return {"resource_names_subscribe" if stream.delta else "resource_names": names}


async def opened(plane, open_stream, method, type_url=CLUSTER, *names, **options):
    stream = open_stream(method, plane.token(name=NAME), **options)
    await stream.send(node=node(f"default.{NAME}"), type_url=type_url, **names_of(stream, *names))
    return stream


@pytest.mark.parametrize("names", [(), ("*",), ("one", "two")])
@pytest.mark.parametrize("method", METHODS)
async def test_an_unknown_type_is_no_obstacle_for_the_known_ones(plane, open_stream, method, names):
    stream = await opened(plane, open_stream, method, UNKNOWN_TYPE, *names)
    await stream.send(type_url=CLUSTER, **names_of(stream))
    response = await stream.receive()
    while response.type_url == UNKNOWN_TYPE:
        response = await stream.receive()
    assert response.type_url == CLUSTER
    assert response.resources


@pytest.mark.parametrize("method", METHODS)
async def test_very_many_unknown_types_end_the_stream(plane, open_stream, method):
    stream = await opened(plane, open_stream, method)
    for number in range(100):
        await quietly(stream.send(type_url=f"{UNKNOWN_TYPE}{number}", **names_of(stream, "a")))
    code, text = await stream.ended()
    assert code in {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"} or text == CLIENTS_OWN, text


@pytest.mark.parametrize("type_url", [ENDPOINT, CLUSTER, UNKNOWN_TYPE])
@pytest.mark.parametrize("method", METHODS)
async def test_a_megabyte_of_names_is_taken_or_refused_at_once(plane, open_stream, neighbour, method, type_url):
    many = [f"name-{number:06}" for number in range(18_000)]
    longest = ["x" * MEGABYTE]
    stream = await opened(
        plane, open_stream, method, type_url, *many, *(f"long-{i:03}-" + "y" * 4000 for i in range(200))
    )
    await neighbour.is_served()
    await stream.send(type_url=type_url, **names_of(stream, *longest))
    code, text = await stream.ended()
    assert code in {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    assert len(text) < 1000


@pytest.mark.parametrize("method", METHODS)
async def test_more_names_than_the_limit_end_the_stream(plane, open_stream, method):
    stream = await opened(plane, open_stream, method, ENDPOINT, *(f"n{number}" for number in range(100_001)))
    code, text = await stream.ended()
    assert code in {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    assert "100000" in text.replace(",", "").replace("_", ""), text


async def test_a_client_that_never_answers_gets_the_newest_state_after_the_wait(plane, open_stream, neighbour):
    streams = [await opened(plane, open_stream, method, ENDPOINT, "target") for method in METHODS]
    for stream in streams:
        await stream.receive()
    memory = plane.metric("process_resident_memory_bytes")
    for port in range(31_000, 31_100):
        move_target(plane, port)
    await neighbour.is_served()
    for stream in streams:
        response = await stream.receive(8)
        assert varint_of_port(31_099) in response.SerializeToString(), "the newest state, not one after the other"
    assert plane.metric("process_resident_memory_bytes") - memory < TEN_MB


def varint_of_port(port):
    """`port_value` (field 3) of a SocketAddress on the wire."""
    return bytes((0x18, port & 0x7F | 0x80, port >> 7 & 0x7F | 0x80, port >> 14)) if port >> 14 else b""


@pytest.mark.parametrize("method", METHODS)
async def test_a_client_that_refuses_everything_gets_one_response_for_each_change(plane, open_stream, method):
    stream = await opened(plane, open_stream, method, ENDPOINT, "target")
    refused = Status(code=13, message="I do not like it")
    for port in range(32_000, 32_010):
        await stream.ack(await stream.receive(), **nothing(stream), error_detail=refused)
        move_target(plane, port)
    await stream.ack(await stream.receive(), **nothing(stream), error_detail=refused)
    assert await stream.silent()


def nothing(stream):
    return {} if stream.delta else {"resource_names": ["target"], "version_info": ""}


@pytest.mark.parametrize("method", METHODS)
async def test_a_client_that_never_reads_costs_little_and_disturbs_nobody(plane, open_stream, neighbour, method):
    options = {"grpc.http2.lookahead_bytes": 1024, "grpc.http2.bdp_probe": 0}
    stream = await opened(plane, open_stream, method, **options)
    memory = plane.metric("process_resident_memory_bytes")
    for number in range(30):
        await stream.send(type_url=CLUSTER, **names_of(stream))
        await stream.send(type_url=ENDPOINT, **names_of(stream, "target"))
        await stream.send(type_url=LISTENER, **names_of(stream))
        move_target(plane, 33_000 + number)
    await neighbour.is_served()
    assert plane.metric("process_resident_memory_bytes") - memory < TEN_MB


@pytest.mark.parametrize("method", METHODS)
async def test_nonces_and_versions_of_nobody_do_no_harm(plane, open_stream, method):
    stream = await opened(plane, open_stream, method)
    response = await stream.receive()
    for nonce in ("", "0", "ffffffff", "x" * 10_000, "\U0001f43b"):
        await stream.send(type_url=CLUSTER, response_nonce=nonce, **names_of(stream))
    await stream.ack(response)
    await stream.send(type_url=ENDPOINT, **names_of(stream, "target"))
    while (await stream.receive()).type_url != ENDPOINT:
        pass


FIELDS = st.dictionaries(
    st.sampled_from(["typeUrl", "responseNonce", "versionInfo"]), st.text(max_size=20) | st.just(CLUSTER), max_size=3
)
NAMES = st.lists(st.text(max_size=10) | st.just("*"), max_size=5)


@given(garbage=st.lists(st.binary(max_size=200), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@pytest.mark.parametrize("method", [*METHODS, HDS, CSDS])
async def test_random_bytes_end_their_stream_only(plane, neighbour, method, garbage):
    channel = plane.channel()
    stream = XdsStream(channel, method, plane.token(name=NAME))
    for message in garbage:
        if stream.call.done():
            break
        await quietly(stream.raw(message))
    await quietly(stream.half_close())
    code, text = await stream.ended()
    assert code in ORDERLY or text == CLIENTS_OWN, (code, text)
    await channel.close()
    await neighbour.is_served()


@given(requests=st.lists(st.tuples(FIELDS, NAMES, NAMES), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@pytest.mark.parametrize("method", METHODS)
async def test_random_requests_end_their_stream_only(plane, neighbour, method, requests):
    channel = plane.channel()
    stream = XdsStream(channel, method, plane.token(name=NAME))
    delta = stream.delta
    await stream.send(node=node(f"default.{NAME}"), type_url=CLUSTER)
    for fields, names, others in requests:
        listed = (
            {"resourceNamesSubscribe": names, "resourceNamesUnsubscribe": others} if delta else {"resourceNames": names}
        )
        known = {name: value for name, value in fields.items() if not (delta and name == "versionInfo")}
        message = ParseDict({**known, **listed}, DeltaDiscoveryRequest() if delta else DiscoveryRequest())
        await quietly(stream.raw(message.SerializeToString()))
    await quietly(stream.half_close())
    code, text = await stream.ended()
    assert code in ORDERLY or text == CLIENTS_OWN, (code, text)
    await channel.close()
    await neighbour.is_served()


async def quietly(sending):
    """A stream that has ended meanwhile takes nothing more."""
    with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.InternalError):
        await sending

"""More of everything than anybody needs, from a client with a good token: it is bounded, and the others are served."""

from __future__ import annotations

import asyncio

import pytest

from snapshot.cache.type_url import CLUSTER, ENDPOINT
from tests.support.running import dataplane
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, XdsStream, node

NAME = "flood"
STREAMS = 600
HUNDRED_MB = 100 << 20


@pytest.fixture(scope="module")
def token(plane):
    """A good one."""
    outbound = [{"port": 10_002, "tags": {"kuma.io/service": "pulse"}}]
    plane.put(dataplane(NAME, gateway={"tags": {"kuma.io/service": NAME}}, outbound=outbound))
    return plane.token(name=NAME)


def field(number, value):
    """One length-delimited field on the wire."""
    length, size = b"", len(value)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value


async def test_a_message_beyond_the_limit_ends_its_stream(open_stream, token, neighbour):
    stream = open_stream(DELTA_METHOD, token)
    await stream.send(node=node(f"default.{NAME}", {"x": "y" * (65 << 20)}), type_url=CLUSTER)
    code, text = await stream.ended()
    assert code == "RESOURCE_EXHAUSTED"
    assert "larger than max" in text


async def test_more_claimed_versions_than_can_be_real_end_the_stream(open_stream, token):
    stream = open_stream(DELTA_METHOD, token)
    claims = dict.fromkeys(map(str, range(100_001)), "0123456789abcdef")
    await stream.send(node=node(f"default.{NAME}"), type_url=CLUSTER, initial_resource_versions=claims)
    assert await stream.ended() == (
        "RESOURCE_EXHAUSTED",
        "initial_resource_versions: 100001 names, at most 100000 are served",
    )


@pytest.mark.parametrize("depth", [200, 20_000])
async def test_metadata_nested_without_end_ends_its_stream(open_stream, token, depth):
    value = field(3, b"x")
    for _ in range(depth):
        value = field(6, field(1, value))
    metadata = field(1, field(1, b"version") + field(2, value))
    stream = open_stream(DELTA_METHOD, token)
    await stream.raw(field(1, field(1, b"default.flood") + field(3, metadata)) + field(2, CLUSTER.encode()))
    code, text = await stream.ended()
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("the request is not a DeltaDiscoveryRequest: "), text


async def test_many_streams_of_one_client_that_read_nothing(plane, token, neighbour):
    channel = plane.channel()
    memory = plane.metric("process_resident_memory_bytes")
    streams = [XdsStream(channel, (DELTA_METHOD, SOTW_METHOD)[number % 2], token) for number in range(STREAMS)]
    for stream in streams:
        await stream.send(node=node(f"default.{NAME}"), type_url=CLUSTER)
    await neighbour.is_served()
    assert plane.metric("process_resident_memory_bytes") - memory < HUNDRED_MB
    await channel.close()


async def test_requests_without_pause_are_slowed(open_stream, token, neighbour):
    stream = open_stream(SOTW_METHOD, token)
    await stream.send(node=node(f"default.{NAME}"), type_url=CLUSTER)

    async def flood():
        for number in range(10_000):
            await stream.send(type_url=ENDPOINT, resource_names=[f"x{number % 7}"])

    flooding = asyncio.create_task(flood())
    for _ in range(10):
        await neighbour.is_served()
        await asyncio.wait((flooding,), timeout=0.05)
    flooding.cancel()
    await asyncio.wait((flooding,))


async def test_a_storm_of_connections_with_bad_tokens(plane, neighbour):
    async def once():
        channel = plane.channel()
        stream = XdsStream(channel, DELTA_METHOD, "garbage")
        await stream.send(node=node(f"default.{NAME}"))
        code, _ = await stream.ended()
        await channel.close()
        return code

    for _ in range(4):
        storm = asyncio.gather(*(once() for _ in range(40)))
        await neighbour.is_served()
        assert set(await storm) == {"UNAUTHENTICATED"}

"""A shutdown pauses between the ends of streams, and for nobody else."""

from __future__ import annotations

import asyncio
import time

import pytest

from snapshot.cache.type_url import CLUSTER
from snapshot.model.meta import ProxyKey
from tests.support.xds_client import SOTW_METHOD, node
from xds_server.ads.server import LONGEST_PAUSE_S
from xds_server.ads.settings import AdsSettings

WEB = ProxyKey("default", "web")
NODE = node("default.web")


async def opened(harness, count: int) -> list:
    harness.nodes.publish(WEB)
    streams = [harness.stream(SOTW_METHOD) for _ in range(count)]
    for stream in streams:
        await stream.send(node=NODE, type_url=CLUSTER)
        await stream.receive()
    return streams


@pytest.mark.rule("XP-141")
@pytest.mark.parametrize(("streams", "pauses"), [(0, 0), (1, 0), (2, 1), (5, 4)])
async def test_there_are_pauses_only_between_streams(special, streams, pauses):
    harness = await special(settings=AdsSettings(drain_s=10))
    open_streams = await opened(harness, streams)
    paused = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    harness.server._pause = pause
    _, ends = await asyncio.gather(harness.server.stop(), asyncio.gather(*(each.ended() for each in open_streams)))
    assert {code for code, _ in ends} <= {"UNAVAILABLE"}
    assert len(paused) == pauses
    assert all(0 < seconds <= LONGEST_PAUSE_S for seconds in paused)


@pytest.mark.rule("XP-141")
async def test_many_streams_share_the_drain_time(special):
    harness = await special(settings=AdsSettings(drain_s=0.4))
    open_streams = await opened(harness, 20)
    began_s = time.monotonic()
    await asyncio.gather(harness.server.stop(), *(each.ended() for each in open_streams))
    assert 0.15 < time.monotonic() - began_s < 2


@pytest.mark.rule("XP-141")
async def test_a_pause_ends_with_the_last_stream(special):
    harness = await special(settings=AdsSettings(drain_s=600))
    open_streams = await opened(harness, 2)
    began_s = time.monotonic()
    stopping = asyncio.ensure_future(harness.server.stop())
    while not any(each.call.done() for each in open_streams):  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0.001)
    for each in open_streams:
        each.cancel()
    await stopping
    assert time.monotonic() - began_s < 1

"""SIGTERM: not ready at once, streams end one by one as UNAVAILABLE, exit status 0."""

from __future__ import annotations

import asyncio
import signal
import time

import httpx
import pytest

from snapshot.cache.type_url import CLUSTER
from tests.support.running import LOOPBACK, Neighbour, dataplane, eventually
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, XdsStream, node

STREAMS = 8
DRAIN_S = 2


def ready_status(plane):
    try:
        return httpx.get(f"http://{LOOPBACK}:{plane.ports['diagnostics']}/ready", timeout=2)
    except httpx.HTTPError:
        return None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(plane_of, number):
    plane = plane_of(KUMA_XDS_SERVER_DRAIN_TIME=f"{DRAIN_S}s")
    plane.start()
    plane.put(dataplane("web-1", "web"))
    channel, token = plane.channel(), plane.token(name="web-1")
    streams = [XdsStream(channel, (DELTA_METHOD, SOTW_METHOD)[number % 2], token) for number in range(STREAMS)]
    for stream in streams:
        await stream.send(node=node("default.web-1"), type_url=CLUSTER)
        await stream.receive()
    began_s = time.monotonic()
    plane.process._child.send_signal(number)
    await eventually(lambda: (answer := ready_status(plane)) is not None and answer.status_code == 503, "not ready", 1)
    assert ready_status(plane).text == "not ready: stopping\n"

    async def end_of(stream):
        return await stream.ended(10), time.monotonic() - began_s

    ends = await asyncio.gather(*(end_of(stream) for stream in streams))
    assert {end for end, _ in ends} == {("UNAVAILABLE", "this control plane is shutting down; connect again")}
    at_s = sorted(second for _, second in ends)
    assert at_s[0] < DRAIN_S / 2
    assert DRAIN_S / 3 < at_s[-1] < DRAIN_S + 1, "spread over the drain time"
    await eventually(lambda: not plane.running, "the end", 10)
    assert plane.process._child.returncode == 0
    assert "Traceback" not in plane.log
    await channel.close()


async def test_nobody_is_waited_for_where_nobody_is(plane):
    neighbour = Neighbour(plane)
    await neighbour.join()
    began_s = time.monotonic()
    ending = asyncio.create_task(neighbour.stream.ended())
    status = await asyncio.to_thread(plane.process.stop)
    assert (status, (await ending)[0]) == (0, "UNAVAILABLE")
    assert time.monotonic() - began_s < 3
    await neighbour.leave()

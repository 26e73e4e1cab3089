"""Large pushes to many streams leave the loop free (XP-128)."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import Changes
from snapshot.cache.type_url import CLUSTER, ENDPOINT
from snapshot.model.meta import ProxyKey
from tests.support.storm import storm_of
from xds_server.ads.flow import TURN_BYTES, TURN_WRITERS, Turns
from xds_server.app.main import GC_THRESHOLDS
from xds_server.fan_out import PER_TURN

STEP_S = 0.05
MANY = 1000
PUSHES = 3
"""Of the longest turns of so many pushes the middle one counts: one may meet whatever else the machine does."""


@pytest.fixture
def collector():
    """The garbage collector as the control plane sets it."""
    before = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    yield
    gc.set_threshold(*before)


async def writers(turns: Turns, count: int, size: int) -> list[int]:
    """In which turn of the loop each of `count` writers wrote."""
    number, wrote = 0, []

    async def write() -> None:
        if turns.full:
            await turns.turn()
        turns.spent(size)
        wrote.append(number)

    tasks = [asyncio.ensure_future(write()) for _ in range(count)]
    while len(wrote) < count:
        await asyncio.sleep(0)
        number += 1
    await asyncio.gather(*tasks)
    return wrote


@pytest.mark.rule("XP-128")
async def test_large_writes_are_spread_over_turns():
    wrote = await writers(Turns(), 100, 2 << 20)
    per_turn = [wrote.count(turn) for turn in sorted(set(wrote))]
    assert max(per_turn) <= max(TURN_WRITERS, TURN_BYTES // (2 << 20))
    assert wrote == sorted(wrote)


async def test_small_writes_wait_for_nothing():
    assert set(await writers(Turns(), 1000, 600)) == {0}


async def test_a_writer_that_gave_up_takes_no_turn():
    turns = Turns()
    turns.spent(TURN_BYTES)
    gone = [asyncio.ensure_future(turns.turn()) for _ in range(50)]
    await asyncio.sleep(0)
    for each in gone:
        each.cancel()
    await asyncio.wait_for(turns.turn(), 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not turns.full


@pytest.mark.rule("XP-128")
@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
async def test_no_step_holds_the_loop_while_2_mb_go_to_every_stream(harness, count, delta):
    proxies = [ProxyKey("default", f"p{number}") for number in range(count)]
    for proxy in proxies:
        harness.nodes.publish(proxy, XdsResource.of(CLUSTER, "redis", Cluster(name="redis")))
        harness.nodes.publish(proxy, XdsResource(ENDPOINT, "redis", b""))
    longest_s: list[float] = []
    whole_s = 0.0

    async def watch() -> None:
        """CPU of each turn of the loop: other programs of the machine do not count."""
        nonlocal whole_s
        while True:
            before_s = time.thread_time()
            await asyncio.sleep(0)
            step_s = time.thread_time() - before_s
            longest_s[-1], whole_s = max(longest_s[-1], step_s), whole_s + step_s

    async with storm_of(count, harness.port, harness.pair.cert_pem, delta=delta) as storm:
        assert await asyncio.wait_for(storm.stdout.readline(), 60) == b"full\n"
        for push in range(PUSHES):
            address = b"10.0.0.%d" % (push + 2)
            storm.stdin.write(b"want %s\n" % address)
            await asyncio.sleep(0.1)
            big = XdsResource(ENDPOINT, "redis", b"x" * (2 << 20) + address)
            longest_s.append(0.0)
            watching = asyncio.ensure_future(watch())
            for proxy in proxies:
                harness.nodes.states[proxy].resources[ENDPOINT]["redis"] = big
            for number, handle in enumerate(harness.nodes.handles, 1):  # as the control plane's fan-out tells them
                handle.listener(Changes({ENDPOINT: frozenset({"redis"})}))
                if number % PER_TURN == 0:
                    await asyncio.sleep(0)
            assert await asyncio.wait_for(storm.stdout.readline(), 120) == b"have %s\n" % address
            watching.cancel()
    # with a thousand streams a busy machine does not always keep 50 ms (docs/performance.md): there a share counts
    bound_s = STEP_S if count < MANY else whole_s / PUSHES / 25
    assert statistics.median(longest_s) < bound_s, (longest_s, whole_s)

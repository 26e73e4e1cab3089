"""Many proxies at once: a storm of connects, a restart under all of them (XP-104, XP-144)."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from tests.support.storm import storm_of
from tests.support.xds_client import QUIET_S

SIZES = pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
REDIS = """
type: Dataplane
mesh: default
name: redis-1
networking:
  address: {address}
  inbound: [{{port: 9000, tags: {{kuma.io/service: redis}}}}]
"""
PROXY = """
type: Dataplane
mesh: default
name: {name}
networking:
  address: 192.168.{block}.{last}
  inbound: [{{port: 8000, tags: {{kuma.io/service: app}}}}]
  outbound: [{{port: 10000, tags: {{kuma.io/service: redis}}}}]
"""
STORM_S = 30.0
UP_TO_DATE_P99_S = 5.0
SPARE_BYTES = 50 << 20


def memory_bytes() -> int:
    """What this process, the server's, has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def populate(mesh, count: int) -> None:
    await mesh.apply(REDIS.format(address="10.0.0.1"))
    for number in range(count):
        await mesh.apply(PROXY.format(name=f"p{number}", block=number // 250, last=1 + number % 250))


async def said(storm, line: str, within_s: float = STORM_S) -> None:
    assert (await asyncio.wait_for(storm.stdout.readline(), within_s)).decode().strip() == line


@pytest.mark.rule("XP-104", "XP-186")
@SIZES
async def test_a_storm_of_connects_is_served_and_delays_nobody_who_is_up(mesh, delta, count):
    await populate(mesh, count)
    await mesh.apply(PROXY.format(name="early", block=200, last=1))
    early = mesh.proxy("early", delta=delta)
    await early.configure()
    before, peak, waits_s = memory_bytes(), 0, []
    async with storm_of(count, mesh.port, mesh.ca_pem, delta=delta) as storm:
        full = asyncio.ensure_future(said(storm, "full"))
        number = 1
        while not full.done():
            number += 1
            address = f"10.0.{number // 250}.{1 + number % 250}"
            began_s = time.monotonic()
            await mesh.apply(REDIS.format(address=address))
            while early.addresses("redis") != [f"{address}:9000"]:
                await early.take(STORM_S)
            waits_s.append(time.monotonic() - began_s)
            peak = max(peak, memory_bytes())
            await asyncio.sleep(0.05)
        await full
        await asyncio.sleep(QUIET_S)
        steady = memory_bytes()
    waits_s.sort()
    assert waits_s[int(len(waits_s) * 0.99)] < UP_TO_DATE_P99_S
    assert peak <= max(before + SPARE_BYTES, 2 * steady)  # what other tests left is no concern of this one


@pytest.mark.rule("XP-144", "XP-143", "XP-104")
@SIZES
async def test_after_a_restart_all_are_back_and_current(mesh, delta, count):
    await populate(mesh, count)
    async with storm_of(count, mesh.port, mesh.ca_pem, delta=delta) as storm:
        await said(storm, "full")
        storm.stdin.write(b"want 10.0.0.2\n")
        began_s = time.monotonic()
        await mesh.restart()
        await mesh.apply(REDIS.format(address="10.0.0.2"))
        await said(storm, "have 10.0.0.2")
        assert time.monotonic() - began_s < STORM_S

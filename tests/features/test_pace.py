"""How soon a change is out, and how many that come together are one push (XP-124, XP-117)."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest

REDIS = """
type: Dataplane
mesh: default
name: redis-1
networking:
  address: 192.168.0.{number}
  inbound: [{{port: 9000, tags: {{kuma.io/service: redis}}}}]
"""
BACKEND = """
type: Dataplane
mesh: default
name: backend-1
networking:
  address: 192.168.0.200
  inbound: [{port: 8000, tags: {kuma.io/service: backend}}]
  outbound: [{port: 10000, tags: {kuma.io/service: redis}}]
"""


async def connected(mesh, delta):
    await mesh.apply(REDIS.format(number=1))
    await mesh.apply(BACKEND)
    proxy = mesh.proxy("backend-1", delta=delta)
    await proxy.configure()
    return proxy


@pytest.mark.rule("XP-124")
async def test_a_change_after_quiet_does_not_wait_for_others(mesh, delta):
    proxy = await connected(mesh, delta)
    waits_s = []
    for number in range(2, 22):
        await asyncio.sleep(0.03)
        began_s = time.monotonic()
        await mesh.apply(REDIS.format(number=number))
        await proxy.take()
        waits_s.append(time.monotonic() - began_s)
        assert proxy.addresses("redis") == [f"192.168.0.{number}:9000"]
    assert statistics.median(waits_s) < 0.010, waits_s  # store, engine, TLS and the client's own work included


@pytest.mark.rule("XP-124", "XP-117")
async def test_changes_that_follow_each_other_are_sent_together(mesh, delta):
    proxy = await connected(mesh, delta)
    await asyncio.sleep(0.05)
    changes = 100
    for number in range(changes):
        await mesh.apply(REDIS.format(number=2 + number))
    responses = 0
    while proxy.addresses("redis") != [f"192.168.0.{1 + changes}:9000"]:
        await proxy.take()
        responses += 1
    assert responses < changes / 4

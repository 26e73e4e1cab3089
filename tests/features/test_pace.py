"""How soon a change is out, how many that come together are one push, and that a held loop is noticed."""

from __future__ import annotations

import asyncio
import re
import statistics
import time

import pytest
from structlog.testing import capture_logs

from xds_server.telemetry import Telemetry

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
    # store, engine, TLS and the client's own work included; the machine may be busy with something else
    assert min(waits_s) < 0.010, waits_s
    assert statistics.median(waits_s) < 0.025, waits_s


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


@pytest.mark.rule("XP-186")
async def test_a_second_of_held_loop_is_in_the_metric_and_in_the_log():
    telemetry = Telemetry()
    with capture_logs() as lines:
        watching = asyncio.ensure_future(telemetry.watch_loop())
        await asyncio.sleep(0.3)
        time.sleep(1.2)  # noqa: ASYNC251  # what must not happen, on purpose
        await asyncio.sleep(0.7)
        watching.cancel()
    (held,) = [line for line in lines if line["log_level"] == "warning"]
    assert 0.5 <= held["seconds"] < 2
    (metric,) = re.findall(r"^koguma_event_loop_lag_seconds\{.*\} (.*)$", telemetry.exposition().decode(), re.MULTILINE)
    assert float(metric) >= 0.5

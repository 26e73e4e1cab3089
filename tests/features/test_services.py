"""A service finds its destinations, and hears at once when they come and go."""

from __future__ import annotations

import asyncio
import time

import pytest

from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER

REDIS = """
type: Dataplane
mesh: default
name: redis-{number}
networking:
  address: 192.168.0.{number}
  inbound:
  - port: 9000
    servicePort: 6379
    tags:
      kuma.io/service: redis
"""
BACKEND = """
type: Dataplane
mesh: default
name: backend-1
networking:
  address: 192.168.0.200
  inbound:
  - port: 8000
    servicePort: 80
    tags:
      kuma.io/service: backend
      kuma.io/protocol: http
  outbound:
  - port: 10000
    tags:
      kuma.io/service: redis
"""


@pytest.mark.rule("XP-1", "XP-16", "XP-67", "XP-93")
async def test_a_stored_dataplane_gets_its_clusters_endpoints_and_listeners(mesh, delta):
    await mesh.apply(REDIS.format(number=1))
    await mesh.apply(BACKEND)
    proxy = mesh.proxy("backend-1", delta=delta)
    await proxy.configure()
    assert {"redis", "localhost:80"} <= proxy.held[CLUSTER].keys()
    assert proxy.addresses("redis") == ["192.168.0.1:9000"]
    assert {"inbound:192.168.0.200:8000", "outbound:127.0.0.1:10000"} <= proxy.held[LISTENER].keys()


@pytest.mark.rule("XP-87", "XP-117")
async def test_endpoints_come_and_go_within_100_ms(mesh, delta):
    await mesh.apply(REDIS.format(number=1))
    await mesh.apply(BACKEND)
    proxy = mesh.proxy("backend-1", delta=delta)
    await proxy.configure()
    await asyncio.sleep(0.2)
    began_s = time.monotonic()
    await mesh.apply(REDIS.format(number=2))
    assert await proxy.take() == ENDPOINT
    assert time.monotonic() - began_s < 0.1
    assert proxy.addresses("redis") == ["192.168.0.1:9000", "192.168.0.2:9000"]
    await asyncio.sleep(0.2)
    for number in (1, 2):
        await mesh.delete("Dataplane", f"redis-{number}")
    while proxy.addresses("redis"):
        assert await proxy.take() == ENDPOINT


async def test_a_dataplane_that_came_along_lives_as_long_as_its_stream(mesh, delta, eventually):
    await mesh.apply(BACKEND)
    watching = mesh.proxy("backend-1", delta=delta)
    await watching.configure()
    redis = mesh.proxy("redis-7", delta=delta, carrying=REDIS.format(number=7))
    await redis.configure()
    assert await mesh.exists("redis-7")
    while watching.addresses("redis") != ["192.168.0.7:9000"]:
        await watching.take()
    redis.stream.cancel()

    async def gone() -> bool:
        return not await mesh.exists("redis-7")

    await eventually(gone)
    while watching.addresses("redis"):
        await watching.take()


@pytest.mark.rule("XP-17")
async def test_an_unknown_proxy_is_told_what_to_do_and_served_once_it_is_known(mesh, delta):
    stranger = mesh.proxy("backend-1", delta=delta)
    await stranger.ask(CLUSTER)
    code, text = await stranger.stream.ended()
    assert code == "NOT_FOUND"
    assert text == (
        'resource "default.backend-1" not found; '
        "create a Dataplane in Kuma CP first or pass it as an argument to kuma-dp"
    )
    await mesh.apply(BACKEND)
    await mesh.proxy("backend-1", delta=delta).configure()


@pytest.mark.rule("XP-63", "XP-98", "XP-143")
async def test_a_restart_sends_nothing_that_the_proxy_has(mesh):
    await mesh.apply(REDIS.format(number=1))
    await mesh.apply(BACKEND)
    before = mesh.proxy("backend-1", delta=True)
    await before.configure()
    await mesh.restart()
    after = mesh.proxy("backend-1", delta=True)
    for type_url in (CLUSTER, ENDPOINT, LISTENER):
        names = list(before.versions[type_url]) if type_url == ENDPOINT else []
        await after.ask(type_url, *names, claimed=before.versions[type_url])
    with pytest.raises(TimeoutError):
        await after.take(0.3)


async def test_a_dataplane_that_makes_no_sense_is_refused_with_its_fields(mesh, delta):
    twice = REDIS.format(number=3) + "  - port: 9000\n    servicePort: 1\n    tags: {kuma.io/service: other}\n"
    proxy = mesh.proxy("redis-3", delta=delta, carrying=twice.replace("9000", "99999"))
    await proxy.ask(CLUSTER)
    code, text = await proxy.stream.ended()
    assert code == "PERMISSION_DENIED"
    assert text.startswith("could not register dataplane passed in kuma-dp run: networking.inbound[0].port: ")


@pytest.mark.rule("XP-17")
async def test_a_dataplane_that_an_operator_deletes_loses_its_stream(mesh, delta):
    await mesh.apply(BACKEND)
    proxy = mesh.proxy("backend-1", delta=delta)
    await proxy.configure()
    await mesh.delete("Dataplane", "backend-1")
    assert await proxy.stream.ended() == ("NOT_FOUND", 'Dataplane "default.backend-1" was deleted')

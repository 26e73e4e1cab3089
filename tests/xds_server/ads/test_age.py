"""Connections grow old: GOAWAY, a gentle end, and a client that comes back elsewhere (XP-140)."""

from __future__ import annotations

import asyncio

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from snapshot.cache.resource import XdsResource
from snapshot.cache.type_url import CLUSTER
from snapshot.model.meta import ProxyKey
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, node
from xds_server.ads.age import GRACE_S, JITTER, Ages, core_age_s, core_grace_s
from xds_server.ads.ports import Ending
from xds_server.ads.settings import AdsSettings, channel_options

WEB = ProxyKey("default", "web")
NODE = node("default.web")
A = XdsResource.of(CLUSTER, "a", Cluster(name="a"))


@pytest.mark.rule("XP-140")
@pytest.mark.parametrize("age_s", [2.0, 1800.0, 86400.0])
def test_the_core_says_goaway_before_our_end_and_cuts_long_after_it(age_s):
    latest_goaway_s, earliest_goaway_s = core_age_s(age_s) * 1.1, core_age_s(age_s) * 0.9
    earliest_end_s, latest_end_s = age_s * (1 - JITTER), age_s * (1 + JITTER)
    assert latest_goaway_s < earliest_end_s
    assert earliest_goaway_s + core_grace_s(age_s) >= latest_end_s + GRACE_S - 0.001


@pytest.mark.rule("XP-140")
def test_by_default_connections_live_on():
    assert not any("age" in name for name, _ in channel_options(AdsSettings()) if name.startswith("grpc.max_conn"))
    ages = Ages(0, lambda peer: pytest.fail(f"{peer} has no age"))
    ages.opened("ipv4:127.0.0.1:1")
    assert ages._timers == {}


@pytest.mark.rule("XP-140")
@pytest.mark.parametrize("method", [SOTW_METHOD, DELTA_METHOD], ids=["sotw", "delta"])
async def test_an_old_connection_is_left_for_a_new_one_and_nothing_is_lost(special, method):
    harness = await special(settings=AdsSettings(max_connection_age_s=1.0, drain_s=0.1))
    harness.nodes.publish(WEB, A)
    channel = harness.channel()
    first = harness.stream(method, channel=channel)
    await first.send(node=NODE, type_url=CLUSTER)
    response = await first.receive()
    await first.ack(response)
    peers = {session.peer for session in harness.server.sessions(WEB)}
    code, text = await first.ended(3)
    assert (code, "maximum age" in text) == ("UNAVAILABLE", True)
    await harness.until(lambda: harness.registrar.released == [("default.web", Ending.SHUTDOWN)])

    second = harness.stream(method, channel=channel)
    known = {"initial_resource_versions": {"a": A.version}} if second.delta else {"version_info": response.version_info}
    await second.send(node=NODE, type_url=CLUSTER, **known)
    await harness.until(lambda: harness.server.sessions(WEB))
    assert {session.peer for session in harness.server.sessions(WEB)}.isdisjoint(peers)
    assert await second.silent()


@pytest.mark.rule("XP-140")
async def test_streams_that_come_and_go_do_not_make_a_connection_younger(special):
    expired = []
    ages = Ages(0.1, expired.append)
    async with asyncio.timeout(5):
        while not expired:
            ages.opened("ipv4:127.0.0.1:1")
            await asyncio.sleep(0.005)
    assert expired == ["ipv4:127.0.0.1:1"]
    ages.opened("ipv4:127.0.0.1:2")
    ages.close()
    assert ages._timers == {}

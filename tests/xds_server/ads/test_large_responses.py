"""Sizes are measured, and large responses for many are told once (XP-134)."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest

from snapshot.cache.resource import XdsResource
from snapshot.cache.type_url import CLUSTER, ENDPOINT
from snapshot.model.meta import ProxyKey
from tests.support.xds_client import DELTA_METHOD, node
from xds_server.ads import flow
from xds_server.ads.flow import LARGE_BYTES, MANY_PROXIES, LargeResponses
from xds_server.app.observer import Record
from xds_server.telemetry import Telemetry


@pytest.mark.rule("XP-134")
def test_more_than_a_hundred_proxies_are_told_once_for_each_type():
    told = []
    large = LargeResponses(lambda type_url, proxies: told.append((type_url, proxies)))
    for _ in range(3):
        for number in range(MANY_PROXIES):
            large.sent(ENDPOINT, ProxyKey("default", f"p{number}"))
    assert (MANY_PROXIES, told) == (100, [])
    for number in range(MANY_PROXIES, 3 * MANY_PROXIES):
        large.sent(ENDPOINT, ProxyKey("default", f"p{number}"))
    assert told == [(ENDPOINT, 101)]
    assert all(len(proxies) <= MANY_PROXIES + 1 for proxies in large._proxies.values())


@pytest.mark.rule("XP-134")
async def test_a_server_tells_of_large_responses(harness, monkeypatch):
    monkeypatch.setattr(flow, "MANY_PROXIES", 2)
    big = XdsResource(ENDPOINT, "big", b"x" * LARGE_BYTES)
    for number in range(4):
        proxy = ProxyKey("default", f"p{number}")
        harness.nodes.publish(proxy, big, XdsResource(CLUSTER, "small", b"x"))
        for type_url in (CLUSTER, ENDPOINT):
            stream = harness.stream(DELTA_METHOD)
            names = ["big"] if type_url == ENDPOINT else []
            await stream.send(node=node(f"default.p{number}"), type_url=type_url, resource_names_subscribe=names)
            await stream.receive()
    await asyncio.sleep(0.01)
    told = [fields for _, event, fields in harness.observer.lines if "large" in event]
    assert told == [{"type_url": ENDPOINT, "proxies_beyond": 2, "larger_than_bytes": 1 << 20}]


@pytest.mark.rule("XP-134")
def test_the_size_of_each_response_is_in_a_histogram_of_its_type():
    telemetry = Telemetry()
    record = Record(telemetry, mock.Mock())
    for size in (50, 5_000, 5_000_000):
        record.sent(ENDPOINT, size)
    record.sent("type.googleapis.com/of.a.Peer", 7)
    text = telemetry.exposition().decode()
    labels = f'type_url="{ENDPOINT}",zone="Standalone"'
    assert f'koguma_xds_response_size_bytes_bucket{{le="100.0",{labels}}} 1.0' in text
    assert f"koguma_xds_response_size_bytes_count{{{labels}}} 3.0" in text
    assert "of.a.Peer" not in text

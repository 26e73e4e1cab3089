from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.support.control_plane import control_plane_parts
from xds_server.clock import SystemClock
from xds_server.diagnostics import count_resources, diagnostics_app
from xds_server.telemetry import Telemetry


@pytest.fixture
def reason():
    return {"text": None}


@pytest.fixture
async def client(reason):
    app = diagnostics_app(Telemetry(), lambda: reason["text"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://d") as client:
        yield client


async def test_ready_follows_the_control_plane(client, reason):
    assert (await client.get("/ready")).status_code == 200
    reason["text"] = "draining"
    response = await client.get("/ready")
    assert (response.status_code, response.text) == (503, "not ready: draining\n")
    assert (await client.get("/healthy")).status_code == 200


async def test_metrics_are_prometheus_text(client):
    response = await client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'xds_streams_active{zone="Standalone"} 0.0' in response.text


async def test_other_paths_are_not_found(client):
    assert (await client.get("/x")).status_code == 404


class OneRound(SystemClock):
    async def sleep(self, seconds):
        assert seconds == 60
        raise asyncio.CancelledError


async def test_resources_are_counted_by_type(tmp_path):
    parts = await control_plane_parts(tmp_path)
    with pytest.raises(asyncio.CancelledError):
        await count_resources(parts.telemetry, parts.store, OneRound())
    text = parts.telemetry.exposition().decode()
    assert 'resources_count{resource_type="Mesh",zone="Standalone"} 1.0' in text
    assert 'resources_count{resource_type="GlobalSecret",zone="Standalone"} 4.0' in text

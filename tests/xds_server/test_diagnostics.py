from __future__ import annotations

import httpx
import pytest

from xds_server.diagnostics import diagnostics_app
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

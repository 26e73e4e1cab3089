from __future__ import annotations

import httpx
import pytest

from tests.support.control_plane import control_plane_parts
from xds_server.api.app import api_app

LOCAL = ("127.0.0.1", 40000)
REMOTE = ("192.0.2.7", 40000)


@pytest.fixture
async def parts(tmp_path):
    return await control_plane_parts(tmp_path)


def client_of(parts, address=LOCAL, **options):
    transport = httpx.ASGITransport(api_app(parts.api), client=address, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:5681", **options)


@pytest.fixture
async def operator(parts):
    async with client_of(parts) as client:
        yield client


@pytest.fixture
async def stranger(parts):
    async with client_of(parts, REMOTE) as client:
        yield client


@pytest.fixture
def clients(parts):
    return lambda address=LOCAL, **options: client_of(parts, address, **options)

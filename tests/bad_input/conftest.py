"""One running control plane for all abuse, and a well-behaved proxy that must be served during and after each case."""

from __future__ import annotations

import pytest

from tests.support import xds_client
from tests.support.running import Neighbour, RunningControlPlane


@pytest.fixture(scope="session")
def plane(tmp_path_factory):
    """`kuma-cp run` over SQLite, with every listener on."""
    running = RunningControlPlane(tmp_path_factory.mktemp("plane"), {"KUMA_GENERAL_LOG_FORMAT": "json"})
    running.start()
    yield running
    assert running.running, f"the control plane did not survive:\n{running.log[-4000:]}"
    assert running.stop() == 0
    failures = [line for line in running.log.splitlines() if '"level": "error"' in line or not line.startswith("{")]
    assert not failures, "nobody can make it log errors, or lines of libraries"


@pytest.fixture(autouse=True)
async def neighbour(plane):
    """Connected before the abuse begins, served after it."""
    proxy = Neighbour(plane)
    await proxy.join()
    yield proxy
    assert plane.running
    await proxy.is_served()
    await proxy.leave()


@pytest.fixture
async def open_stream(plane):
    """`open_stream(method, token, **channel options)`: a stream over a connection of its own."""
    channels = []

    def opened(method=xds_client.DELTA_METHOD, token=None, **options):
        channels.append(plane.channel(**options))
        return xds_client.XdsStream(channels[-1], method, token)

    yield opened
    for channel in channels:
        await channel.close()

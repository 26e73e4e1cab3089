from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from snapshot.stream import Limits
from tests.support import xds_client
from tests.support.ads_parts import (
    FakeAuthenticator,
    FakeDataplanes,
    FakeNodes,
    FakeObserver,
    FakeRegistrar,
    FakeSink,
    tls_pair,
)
from xds_server.ads.hds import HealthDiscovery
from xds_server.ads.server import AdsServer
from xds_server.ads.settings import AdsSettings
from xds_server.clock import SystemClock

PAIR = tls_pair()


@dataclass
class Harness:
    """A server with its surroundings, and clients of it."""

    settings: AdsSettings = field(default_factory=lambda: AdsSettings(drain_s=0.2))
    limits: Limits | None = None
    authenticator: FakeAuthenticator = field(default_factory=FakeAuthenticator)
    registrar: FakeRegistrar = field(default_factory=FakeRegistrar)
    nodes: FakeNodes = field(default_factory=FakeNodes)
    observer: FakeObserver = field(default_factory=FakeObserver)
    dataplanes: FakeDataplanes = field(default_factory=FakeDataplanes)
    sink: FakeSink = field(default_factory=FakeSink)
    pair: Any = PAIR
    hds_wait_s: float = 30.0
    hds_metrics: Any = None
    offer_hds: bool = True
    server: Any = None
    port: int = 0
    channels: list[Any] = field(default_factory=list)

    async def start(self) -> None:
        hds = HealthDiscovery(
            dataplanes=self.dataplanes, sink=self.sink, wait_s=self.hds_wait_s, metrics=self.hds_metrics
        )
        self.server = AdsServer(
            self.settings,
            tls=lambda: self.pair,
            clock=SystemClock(),
            authenticator=self.authenticator,
            registrar=self.registrar,
            nodes=self.nodes,
            observer=self.observer,
            hds=hds if self.offer_hds else None,
            limits=self.limits,
        )
        self.port = await self.server.start("127.0.0.1", 0)

    def channel(self, **options: int) -> Any:
        channel = xds_client.channel(self.port, self.pair.cert_pem, **options)
        self.channels.append(channel)
        return channel

    def stream(self, method: str, token: Any = xds_client.ANY_TOKEN, channel: Any = None) -> xds_client.XdsStream:
        return xds_client.XdsStream(channel or self.channel(), method, token)

    async def until(self, condition: Any, patience_s: float = 5.0) -> None:
        async with asyncio.timeout(patience_s):
            while not condition():  # noqa: ASYNC110  # the condition is anything
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        for channel in self.channels:
            await channel.close()
        await self.server.stop(0)


@pytest.fixture
def harness_of():
    """Start servers with special settings: `await harness_of(settings=…)`."""
    stack = contextlib.AsyncExitStack()

    async def make(**fields: Any) -> Harness:
        harness = Harness(**fields)
        await harness.start()
        stack.push_async_callback(harness.stop)
        return harness

    make.stack = stack
    return make


@pytest.fixture
async def harness(harness_of):
    async with harness_of.stack:
        yield await harness_of()


@pytest.fixture
async def special(harness_of):
    """Like `harness_of`, with the stopping done."""
    async with harness_of.stack:
        yield harness_of

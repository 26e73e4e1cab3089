"""The real parts together: SQLite, reconciler, engine, registrar, on the real clock."""

import asyncio
import time

import pytest

from snapshot.cache import type_url
from snapshot.engine.engine import Engine
from snapshot.model.codec import decode_spec
from snapshot.model.meta import ProxyKey, ResourceKey
from snapshot.registry import descriptor
from snapshot.topology.proxy import NodeInfo
from tests.support.stores import dataplane, mesh
from xds_server.clock import SystemClock
from xds_server.reconciler import Reconciler
from xds_server.registration import Claim, Ending, Patience, Registrar
from xds_server.resolver import Resolver
from xds_server.store import Delete, Put, SqlStore

EVERYTHING = [{"match": {"kuma.io/service": "*"}}]
ROUTE_ALL = {
    "sources": EVERYTHING,
    "destinations": EVERYTHING,
    "conf": {"destination": {"kuma.io/service": "*"}},
}
CLIENT, SERVER = ProxyKey("default", "client"), ProxyKey("default", "server")


def spec(service, address, *outbounds):
    networking = {"address": address, "inbound": [{"port": 80, "tags": {"kuma.io/service": service}}]}
    networking["outbound"] = [{"port": 10000, "tags": {"kuma.io/service": name}} for name in outbounds]
    return decode_spec("Dataplane", {"networking": networking}).spec


class ControlPlane:
    def __init__(self, store, clock):
        self.store = store
        self.reconciler = Reconciler(store, Engine(), Resolver(clock), clock)
        self.registrar = Registrar(
            store,
            self.reconciler.watch,
            clock,
            instance_id="cp-1",
            validate=descriptor("Dataplane").validate,
            patience=Patience(leave_grace_s=0.05),
        )

    async def connect(self, proxy, dataplane_spec, **fields):
        hold = await self.registrar.register(Claim(proxy, dataplane_spec, **fields))
        woken = asyncio.Event()
        handle = self.reconciler.join(proxy, NodeInfo(), lambda news: woken.set())
        await asyncio.wait_for(self.caught_up(), 5)
        return hold, handle, woken

    async def caught_up(self):
        await self.reconciler.applied(await self.store.head())


@pytest.fixture
async def cp(tmp_path):
    clock = SystemClock()
    store = await SqlStore.open(tmp_path, clock)
    await store.apply(Put(mesh(), {}), Put(ResourceKey("TrafficRoute", "default", "route-all"), ROUTE_ALL))
    made = ControlPlane(store, clock)
    await made.reconciler.start()
    await made.registrar.start()
    yield made
    await made.registrar.stop()
    await made.reconciler.stop()
    await store.close()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event of its own
            await asyncio.sleep(0.005)


def endpoints(handle):
    state = handle.state()
    return state and {name: state.get(type_url.ENDPOINT, name).version for name in state.names(type_url.ENDPOINT)}


@pytest.mark.parametrize("how", [Ending.LEFT, Ending.VANISHED])
async def test_the_endpoints_of_a_proxy_that_goes_go_from_its_peers(cp, how):
    _, client, woken = await cp.connect(CLIENT, spec("web", "127.0.0.1", "db"))
    await until(lambda: endpoints(client))
    without = endpoints(client)
    hold, _, _ = await cp.connect(SERVER, spec("db", "127.0.0.2"))
    await until(lambda: endpoints(client) != without)
    woken.clear()
    await cp.registrar.release(hold, how)
    await until(lambda: endpoints(client) == without)
    assert woken.is_set()
    assert (await cp.store.get(dataplane("server")) is None) == (how is Ending.LEFT)


async def test_a_change_is_applied_within_milliseconds(cp):
    _, client, _ = await cp.connect(CLIENT, spec("web", "127.0.0.1", "db"))
    await until(lambda: endpoints(client))
    times = []
    for n in range(5):
        await asyncio.sleep(0.1)
        started_s = time.monotonic()
        put = Put(dataplane("server"), {"networking": {"address": f"127.0.0.{n + 2}", **_db()}})
        await cp.reconciler.applied((await cp.store.apply(put)).seq)
        times.append(time.monotonic() - started_s)
    assert min(times) < 0.05


def _db():
    return {"inbound": [{"port": 80, "tags": {"kuma.io/service": "db"}}]}


async def test_a_stream_hears_that_its_dataplane_was_deleted(cp):
    ended = []
    await cp.connect(CLIENT, spec("web", "127.0.0.1"), ended=ended.append)
    await cp.store.apply(Delete(dataplane("client")))
    await until(lambda: ended)
    assert ended == ['Dataplane "default.client" was deleted']

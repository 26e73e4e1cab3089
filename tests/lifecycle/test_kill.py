"""kill -9 under load: what was acknowledged is there, with its version, and reconnecting clients are sent nothing."""

from __future__ import annotations

import asyncio
import random

import httpx
import pytest

from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER
from tests.support.running import LOOPBACK, dataplane, eventually
from tests.support.xds_client import DELTA_METHOD, XdsStream, node

CLIENTS = 20
TYPES = (CLUSTER, LISTENER)


class Client:
    """An Envoy that keeps versions over reconnects, as real ones do."""

    def __init__(self, plane, name, token):
        self._plane, self._name, self._token = plane, name, token
        self.held = {CLUSTER: {}, LISTENER: {}, ENDPOINT: {}}
        self.channel = None
        self.received = 0

    async def connect(self):
        self.channel = self._plane.channel()
        self.stream = XdsStream(self.channel, DELTA_METHOD, self._token)
        first = {"node": node(f"default.{self._name}")}
        for type_url in (*TYPES, ENDPOINT):
            names = ["load"] if type_url == ENDPOINT else ["*"]
            await self.stream.send(
                type_url=type_url,
                resource_names_subscribe=names,
                initial_resource_versions=self.held[type_url],
                **first,
            )
            first = {}

    async def follow(self):
        """Take and acknowledge until the stream breaks."""
        while True:
            response = await self.stream.receive(60)
            held = self.held[response.type_url]
            for resource in response.resources:
                held[resource.name] = resource.version
                self.received += 1
            for name in response.removed_resources:
                held.pop(name, None)
            await self.stream.ack(response)

    async def close(self):
        await self.channel.close()


async def settled(clients, quiet_s=0.4):
    """Until every client has its endpoints, and none has received anything for a while."""
    while True:
        before = [client.received for client in clients]
        await asyncio.sleep(quiet_s)
        if before == [client.received for client in clients] and all(client.held[ENDPOINT] for client in clients):
            return


async def write(plane, acknowledged, stop):
    """Change Dataplanes over REST as fast as answers come; remember the last acknowledged port of each."""
    async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{plane.ports['rest']}", timeout=5) as rest:
        number = 0
        while not stop.is_set():
            number += 1
            name, port = f"load-{number % 7}", 20_000 + number % 40_000
            document = dataplane(name, inbound=[{"port": port, "tags": {"kuma.io/service": "load"}}])
            acknowledged.setdefault(name, []).append([port, False])
            try:
                answer = await rest.put(f"/meshes/default/dataplanes/{name}", json=document)
            except httpx.HTTPError:
                return
            assert answer.is_success, answer.text
            acknowledged[name][-1][1] = True


def possible_ports(tries):
    """The last acknowledged port, or that of a later try whose answer was lost."""
    last = max((index for index, (_, done) in enumerate(tries) if done), default=-1)
    return {port for index, (port, _) in enumerate(tries) if index >= last}


async def broken(following):
    """All streams have noticed that the control plane is gone."""
    ends = await asyncio.gather(*following, return_exceptions=True)
    assert not [end for end in ends if not isinstance(end, Exception)]


async def killed_under_load(plane, kills, seed):
    choose = random.Random(seed)
    gateway = {"tags": {"kuma.io/service": "client"}}
    outbound = [{"port": 10_000, "tags": {"kuma.io/service": "load"}}]
    for number in range(CLIENTS):
        plane.put(dataplane(f"client-{number}", gateway=gateway, outbound=outbound))
    token = plane.token()
    clients = [Client(plane, f"client-{number}", token) for number in range(CLIENTS)]
    acknowledged: dict[str, list[list]] = {}
    for _ in range(kills):
        await asyncio.gather(*(client.connect() for client in clients))
        following = [asyncio.create_task(client.follow()) for client in clients]
        stop = asyncio.Event()
        writing = asyncio.create_task(write(plane, acknowledged, stop))
        await asyncio.sleep(choose.uniform(0.05, 0.5))
        plane.kill()
        stop.set()
        await writing
        await broken(following)
        for client in clients:
            await client.close()
        plane.start()
        for name, tries in acknowledged.items():
            stored = plane.rest.get(f"/meshes/default/dataplanes/{name}")
            if stored.status_code == 404:
                assert not any(done for _, done in tries), f"{name} was acknowledged and is gone"
                continue
            port = stored.json()["networking"]["inbound"][0]["port"]
            assert port in possible_ports(tries), (name, port, tries[-5:])
            acknowledged[name] = [[port, True]]
    await nothing_is_sent_again(plane, clients)


async def nothing_is_sent_again(plane, clients):
    await asyncio.gather(*(client.connect() for client in clients))
    following = [asyncio.create_task(client.follow()) for client in clients]
    await settled(clients)
    plane.kill()
    await broken(following)
    for client in clients:
        await client.close()
    plane.start()
    counts = [client.received for client in clients]
    await asyncio.gather(*(client.connect() for client in clients))
    following = [asyncio.create_task(client.follow()) for client in clients]
    await asyncio.sleep(0.5)
    assert [client.received for client in clients] == counts, "versions are the same, so nothing is sent"
    plane.put(dataplane("load-0", inbound=[{"port": 19_999, "tags": {"kuma.io/service": "load"}}]))
    one_more = [count + 1 for count in counts]
    await eventually(lambda: [client.received for client in clients] == one_more, "one change at every client", 5)
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    for client in clients:
        await client.close()


async def test_killed_a_few_times_under_load(plane):
    await killed_under_load(plane, 4, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_killed_many_times_under_load(plane, seed):
    await killed_under_load(plane, 25, seed=seed + 10)

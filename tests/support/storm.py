"""A process full of proxies that connect all at once, take everything, and come back when their stream ends.

`python -m tests.support.storm PORT CA_PEM COUNT sotw|delta` prints `full` once every proxy has had clusters, listeners
and endpoints. A line `want ADDRESS` on its input is answered by `have ADDRESS` once every proxy has been sent endpoints
with that address. The end of the input ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse

from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER
from tests.support import xds_client

TYPES = {CLUSTER, ENDPOINT, LISTENER}
SERVICE = "redis"
BACK_OFF_S = (0.1, 0.7)
"""What a real Envoy takes to come back."""


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Storm:
    """The client's side, in a process of its own."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.full: set[int] = set()
        self.current: set[int] = set()
        self.wanted = b""

    def want(self, address: str) -> None:
        self.wanted = address.encode()
        self.current = set()

    def got(self, number: int, seen: set[str], type_url: str, raw: bytes) -> None:
        seen.add(type_url)
        if seen == TYPES and number not in self.full:
            self.full.add(number)
            if len(self.full) == self.count:
                say("full")
        if type_url == ENDPOINT and self.wanted and self.wanted in raw and number not in self.current:
            self.current.add(number)
            if len(self.current) == self.count:
                say(f"have {self.wanted.decode()}")

    async def proxy(self, number: int, port: int, ca_pem: bytes, method: str) -> None:
        """One proxy, for ever."""
        versions: dict[str, dict[str, str]] = {}
        channel = xds_client.channel(port, ca_pem, **{"grpc.initial_reconnect_backoff_ms": 200})
        while True:
            stream = xds_client.XdsStream(channel, method, "any")
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.converse(number, stream, versions)
            await asyncio.sleep(random.uniform(*BACK_OFF_S))  # spread, not a secret

    async def converse(self, number: int, stream: xds_client.XdsStream, versions: dict[str, dict[str, str]]) -> None:
        """From the first request to the end of the stream."""
        delta = stream.delta
        node, seen = xds_client.node(f"default.p{number}"), set()

        async def ask(type_url: str, names: list[str], **first: Any) -> None:
            listed = {"resource_names_subscribe" if delta else "resource_names": names}
            claims = {"initial_resource_versions": versions.get(type_url, {})} if delta else {}
            await stream.send(type_url=type_url, **listed, **claims, **first)

        await ask(CLUSTER, [], node=node)
        await ask(LISTENER, [])
        if ENDPOINT in versions:
            await ask(ENDPOINT, [SERVICE])
        while (raw := await stream.call.read()) is not grpc.aio.EOF:
            response = (DeltaDiscoveryResponse if delta else DiscoveryResponse).FromString(raw)
            held = versions.setdefault(response.type_url, {})
            if delta:
                held.update((each.name, each.version) for each in response.resources)
            names = {"resource_names": [SERVICE] if response.type_url == ENDPOINT else []}
            await stream.ack(response, **({} if delta else names))
            if response.type_url == CLUSTER and ENDPOINT not in versions:
                versions[ENDPOINT] = {}
                await ask(ENDPOINT, [SERVICE])
            self.got(number, seen, response.type_url, raw)


async def main(port: int, ca_pem: bytes, count: int, variant: str) -> None:
    """Until the input ends."""
    storm = Storm(count)
    method = xds_client.DELTA_METHOD if variant == "delta" else xds_client.SOTW_METHOD
    tasks = [asyncio.ensure_future(storm.proxy(number, port, ca_pem, method)) for number in range(count)]
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        storm.want(line.split()[1])
    os._exit(1 if any(task.done() for task in tasks) else 0)


@contextlib.asynccontextmanager
async def storm_of(count: int, port: int, ca_pem: bytes, *, delta: bool) -> AsyncIterator[Any]:
    """Start it; the process is yielded, and ended with the block."""
    arguments = ["-m", "tests.support.storm", str(port), ca_pem.decode(), str(count), "delta" if delta else "sotw"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        process._transport.close()  # asyncio closes its pipes only when it is collected


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3]), sys.argv[4]))

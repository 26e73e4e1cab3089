"""CPU per push and ACK: one shared EDS change for N streams over TLS, beside a bare grpc.aio echo (T6).

    python perf/streams.py --streams 200 --pushes 20 --rounds 5 [--delta] [--uvloop]

The clients live in a process of their own, whose CPU is told too: it must not be the bottleneck. Compare the two lines
of one run, never seconds between runs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grpc
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import Changes
from snapshot.cache.type_url import ENDPOINT
from snapshot.model.meta import ProxyKey
from tests.support.ads_parts import FakeAuthenticator, FakeNodes, FakeObserver, FakeRegistrar, FakeState, tls_pair
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, channel, node
from xds_server.ads.server import AdsServer
from xds_server.ads.settings import AdsSettings, channel_options
from xds_server.app.observer import Record
from xds_server.clock import SystemClock
from xds_server.insights import Subscription
from xds_server.telemetry import Telemetry

ECHO_METHOD = "/bench/Echo"
GC_THRESHOLD = (100_000, 50, 1000)


def assignment(endpoints: int, weight: int) -> XdsResource:
    message = ClusterLoadAssignment(cluster_name="service")
    locality = message.endpoints.add()
    for number in range(endpoints):
        endpoint = locality.lb_endpoints.add()
        endpoint.endpoint.address.socket_address.address = f"10.0.0.{number}"
        endpoint.endpoint.address.socket_address.port_value = 8000
        endpoint.load_balancing_weight.value = weight
    return XdsResource.of(ENDPOINT, "service", message)


class Node(FakeState):
    """All nodes share one content."""

    shared: ClassVar[dict] = {}

    def __init__(self) -> None:
        self.resources = self.shared


async def client(port: int, ca_pem: bytes, streams: int, mode: str) -> None:
    """Open the streams, acknowledge every response; on stdin's end tell the CPU used."""
    method = {"sotw": SOTW_METHOD, "delta": DELTA_METHOD, "echo": ECHO_METHOD}[mode]

    async def one(number: int) -> None:
        call = channel(port, ca_pem).stream_stream(method)(metadata=[("authorization", "any")])
        if mode == "delta":
            first = DeltaDiscoveryRequest(
                node=node(f"default.p{number}"), type_url=ENDPOINT, resource_names_subscribe=["service"]
            )
        else:
            first = DiscoveryRequest(node=node(f"default.p{number}"), type_url=ENDPOINT, resource_names=["service"])
        await call.write(first.SerializeToString())
        while (raw := await call.read()) is not grpc.aio.EOF:
            nonce = raw[-8:].rpartition(b"\x2a")[2][1:].decode(errors="replace")  # field 5 comes last, in both variants
            if mode == "delta":
                answer = DeltaDiscoveryRequest(type_url=ENDPOINT, response_nonce=nonce)
            else:
                answer = DiscoveryRequest(
                    type_url=ENDPOINT, resource_names=["service"], response_nonce=nonce, version_info="0123456789abcdef"
                )
            await call.write(answer.SerializeToString())

    tasks = [asyncio.ensure_future(one(number)) for number in range(streams)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(time.process_time(), flush=True)
    os._exit(0 if not any(task.done() for task in tasks) else 1)


class Echo(grpc.GenericRpcHandler):
    """The floor: read, write the same bytes to all, nothing else."""

    def __init__(self) -> None:
        self.wakes: list[asyncio.Event] = []
        self.body = b""
        self.answers = 0

    def service(self, _details):
        async def serve(_requests, context) -> None:
            wake = asyncio.Event()
            await context.read()
            self.wakes.append(wake)

            async def write() -> None:
                while True:
                    await wake.wait()
                    wake.clear()
                    await context.write(self.body)

            writer = asyncio.ensure_future(write())
            try:
                while await context.read() is not grpc.aio.EOF:
                    self.answers += 1
            finally:
                writer.cancel()

        return grpc.stream_stream_rpc_method_handler(serve)


async def until(condition, patience_s: float = 60.0) -> None:
    async with asyncio.timeout(patience_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def measured(port: int, ca_pem: bytes, streams: int, mode: str, ready, push, answered, pushes: int) -> tuple:
    arguments = [sys.executable, __file__, "--client", str(port), ca_pem.decode(), str(streams), mode]
    process = subprocess.Popen(  # noqa: ASYNC220, S603  # once, before anything is measured
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        await until(lambda: ready() == streams)
        await asyncio.sleep(0.5)
        before = answered()
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        for number in range(pushes):
            push(number)
            await until(lambda done=before + (number + 1) * streams: answered() >= done)
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    finally:
        process.stdin.close()
        client_cpu_s = float(process.stdout.read() or 0)
        process.wait()
    return cpu_s / (streams * pushes) * 1e6, wall_s / pushes * 1e3, client_cpu_s


async def ads(options) -> tuple:
    pair = tls_pair()
    nodes, observer = FakeNodes(), FakeObserver()
    counted = {"acked": 0}

    telemetry, clock = Telemetry(), SystemClock()

    class Counting(Record):
        """What the control plane counts, and the ACKs for this measurement."""

        def nacked(self, _type_url, detail):
            raise SystemExit(f"refused: {detail}")

        def acked(self, type_url, waited_s):
            super().acked(type_url, waited_s)
            counted["acked"] += 1

    def opened(identity):
        subscription = Subscription(identity.proxy, "", clock.now(), None, lambda _closed: None, clock)
        return Counting(telemetry, subscription)

    observer.opened = opened
    Node.shared[ENDPOINT] = {"service": assignment(20, 1)}
    for number in range(options.streams):
        nodes.states[ProxyKey("default", f"p{number}")] = Node()
    server = AdsServer(
        AdsSettings(),
        tls=lambda: pair,
        clock=clock,
        authenticator=FakeAuthenticator(),
        registrar=FakeRegistrar(),
        nodes=nodes,
        observer=observer,
    )
    port = await server.start("127.0.0.1", 0)

    def push(number: int) -> None:
        Node.shared[ENDPOINT]["service"] = assignment(20, number + 2)
        changes = Changes({ENDPOINT: frozenset({"service"})})
        for handle in nodes.handles:
            handle.listener(changes)

    acked = lambda: counted["acked"]  # noqa: E731
    mode = "delta" if options.delta else "sotw"
    result = await measured(port, pair.cert_pem, options.streams, mode, acked, push, acked, options.pushes)
    await server.stop(0)
    return result


async def echo(options) -> tuple:
    pair = tls_pair()
    handler = Echo()
    server = grpc.aio.server(handlers=[handler], options=channel_options(AdsSettings()))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([tuple(pair)]))
    await server.start()
    handler.body = b"\x12" + b"x" * (len(assignment(20, 1).body) + 150) + b"\x2a\x04abcd"

    def push(_number: int) -> None:
        for wake in handler.wakes:
            wake.set()

    result = await measured(
        port,
        pair.cert_pem,
        options.streams,
        "echo",
        lambda: len(handler.wakes),
        push,
        lambda: handler.answers,
        options.pushes,
    )
    await server.stop(0)
    return result


async def main(options) -> None:
    gc.set_threshold(*GC_THRESHOLD)
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"grpcio {version('grpcio')}, protobuf {version('protobuf')}, loop {loop}; "
        f"{options.streams} streams, {options.pushes} pushes, {options.rounds} rounds"
    )
    mode = "delta" if options.delta else "sotw"
    rows: dict[str, list[tuple]] = {"echo": [], mode: []}
    for _ in range(options.rounds):
        rows["echo"].append(await echo(options))
        rows[mode].append(await ads(options))
    print(f"{'':8}{'µs CPU per push + ACK':>24}{'ms per push to all':>22}{'clients, s CPU':>18}")
    for name, results in rows.items():
        cpu_us, wall_ms, client_cpu_s = (median(column) for column in zip(*results, strict=True))
        print(f"{name:8}{cpu_us:24.1f}{wall_ms:22.1f}{client_cpu_s:18.2f}")
    more = sorted(ours[0] - floor[0] for floor, ours in zip(rows["echo"], rows[mode], strict=True))
    print(f"over the echo of the same round: median {median(more):+.1f} µs, from {more[0]:+.1f} to {more[-1]:+.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        asyncio.run(client(int(sys.argv[2]), sys.argv[3].encode(), int(sys.argv[4]), sys.argv[5]))
        raise SystemExit(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--pushes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delta", action="store_true")
    parser.add_argument("--uvloop", action="store_true")
    chosen = parser.parse_args()
    if chosen.uvloop:
        import uvloop

        uvloop.run(main(chosen))
    else:
        asyncio.run(main(chosen))

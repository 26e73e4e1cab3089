"""The whole control plane with a fleet: `kuma-cp run` in a process of its own, simulated proxies in this one.

    python perf/fleet.py --proxies 1000 [--services 100] [--outbounds 10] [--mode delta|sotw] [--chaos] [--json FILE]

Each proxy has a connection with TLS and a token of its own, registers by its node metadata and asks as Envoy does.
At the end, what each of them holds is compared with what the oracle builds from the resources that REST lists.
The proxies run on the same cores as the control plane: the figures hold what they cost too, and their CPU is told.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx
import psutil
import uvloop

from snapshot.cache.memo import Memo
from snapshot.cache.type_url import ENDPOINT
from snapshot.engine.oracle import mesh_context, policies_by_type
from snapshot.engine.world import World
from snapshot.model.codec import decode_resource
from snapshot.model.meta import NO_TIME, ProxyKey, Resource
from snapshot.pipeline import build, build_endpoints
from snapshot.topology.outbounds import MeshPolicies, routed_proxy
from snapshot.topology.proxy import Settings
from tests.support.fleet import TYPES, Fleet, Proxy, mark_address, mark_timeout
from xds_server.ads.node import read_identity
from xds_server.bootstrap.first_start import ADMIN_CERT, ADMIN_KEY
from xds_server.certs.pair import CERT_FILE
from xds_server.demo.processes import LOOPBACK, ControlPlane
from xds_server.store.sqlite import DATABASE_FILE
from xds_server.tokens.keys import secret_data

MESH = "default"
PROBES = 10
PROBE_EVERY_S = 0.3
PATIENCE_S = 30.0
COLLECTIONS = ("meshes", "traffic-routes", "timeouts", "circuit-breakers", "retries", "dataplanes")


def service(number: int) -> str:
    return f"service-{number}"


def dataplane(index: int, options: argparse.Namespace) -> dict[str, Any]:
    """One proxy of the fleet: an inbound, and outbounds to what all, a tenth, and some others have."""
    others = options.outbounds - 1 - (index % 10 == 0)
    wanted = ["everyone", *(["tenth"] if index % 10 == 0 else [])]
    wanted += [service((index * 7 + at) % options.services) for at in range(others)]
    own = service(index % options.services)
    protocol = "http" if index % options.services % 2 else "tcp"
    return {
        "type": "Dataplane",
        "mesh": MESH,
        "name": f"proxy-{index}",
        "networking": {
            "address": f"10.{1 + (index >> 16)}.{index >> 8 & 255}.{index & 255}",
            "inbound": [
                {"port": 8080, "servicePort": 80, "tags": {"kuma.io/service": own, "kuma.io/protocol": protocol}}
            ],
            "outbound": [{"port": 10_000 + at, "tags": {"kuma.io/service": name}} for at, name in enumerate(wanted)],
        },
    }


def probe(number: int) -> dict[str, Any]:
    """A proxy that is there before the storm, and has an outbound of its own to what changes during it."""
    return {
        "type": "Dataplane",
        "mesh": MESH,
        "name": f"probe-{number}",
        "networking": {
            "address": f"10.100.0.{number}",
            "gateway": {"tags": {"kuma.io/service": "probe"}},
            "outbound": [{"port": 10_000, "tags": {"kuma.io/service": "probed"}}],
        },
    }


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Plane:
    """The control plane's process, its REST API, and what both processes used."""

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        self.control_plane = ControlPlane(directory, settings)
        self.directory = directory / "cp"
        self.rest = httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{self.control_plane.ports['rest']}", timeout=60)
        self.measured = psutil.Process()
        self.started()

    def started(self) -> None:
        began_s = time.monotonic()
        self.control_plane.start()
        self.start_s = time.monotonic() - began_s
        self.measured = psutil.Process(self.control_plane.process.pid)

    @property
    def cpu_s(self) -> float:
        used = self.measured.cpu_times()
        return used.user + used.system

    @property
    def rss_kib(self) -> float:
        return self.measured.memory_info().rss / 1024

    async def put(self, path: str, document: dict[str, Any]) -> None:
        (await self.rest.put(f"/meshes/{MESH}/{path}", json=document)).raise_for_status()

    async def tokens(self, names: list[str]) -> list[str]:
        gate = asyncio.Semaphore(8)

        async def one(name: str) -> str:
            async with gate:
                made = await self.rest.post("/tokens/dataplane", json={"mesh": MESH, "name": name})
                return made.raise_for_status().text

        return await asyncio.gather(*map(one, names))

    async def endpoint(self, of: str, number: int) -> None:
        """Make the one endpoint of a service stand for change `number`."""
        await self.put(
            f"dataplanes/endpoint-of-{of}",
            {
                "type": "Dataplane",
                "mesh": MESH,
                "name": f"endpoint-of-{of}",
                "networking": {
                    "address": mark_address(number),
                    "inbound": [{"port": 8080, "tags": {"kuma.io/service": of, "kuma.io/protocol": "http"}}],
                },
            },
        )

    async def policy(self, number: int) -> None:
        """Make the Timeout of everything stand for change `number`."""
        everything = [{"match": {"kuma.io/service": "*"}}]
        conf = {"connectTimeout": mark_timeout(number), "tcp": {"idleTimeout": "1h"}}
        name = f"timeout-all-{MESH}"
        document = {"type": "Timeout", "mesh": MESH, "name": name, "sources": everything, "destinations": everything}
        await self.put(f"timeouts/{name}", {**document, "conf": conf})

    async def world(self) -> World:
        """Everything that REST lists, and the admin listener's pair, which only the store has."""
        world = World(settings=Settings(**self._admin_pair()))
        for collection in COLLECTIONS:
            url: str | None = f"/{collection}?size=1000"
            while url:
                page = (await self.rest.get(url)).raise_for_status().json()
                for document in page["items"]:
                    key, decoded = decode_resource(document)
                    world.resources[key] = Resource(
                        key=key, spec=decoded.spec, version=1, creation_time=NO_TIME, modification_time=NO_TIME
                    )
                url = page.get("next")
        return world

    def _admin_pair(self) -> dict[str, bytes]:
        with closing(sqlite3.connect(f"file:{self.directory / DATABASE_FILE}?mode=ro", uri=True)) as connection:
            found = {
                name: secret_data(json.loads(spec))
                for name, spec in connection.execute("SELECT name, spec FROM resources WHERE type = ?", ADMIN_CERT[:1])
            }
        return {"admin_cert_pem": found[ADMIN_CERT.name], "admin_key_pem": found[ADMIN_KEY.name]}


class Run:
    """The phases of one run, and their figures."""

    def __init__(self, plane: Plane, fleet: Fleet, options: argparse.Namespace) -> None:
        self.plane, self.fleet, self.options = plane, fleet, options
        self.figures: dict[str, dict[str, float | str]] = {}
        self.numbers = iter(range(1, 1000))
        self.members: list[Proxy] = []
        self.lag_s = 0.0

    async def phase(self, name: str, work: Callable[[], Awaitable[dict[str, float | str]]]) -> None:
        gc.collect()
        began_s, plane_cpu_s, own_cpu_s = time.monotonic(), self.plane.cpu_s, time.process_time()
        sent, pid, self.lag_s = self.fleet.resources, self.plane.measured.pid, 0.0
        figures = await work()
        self.figures[name] = {
            **figures,
            "wall s": time.monotonic() - began_s,
            "server CPU s": self.plane.cpu_s - (plane_cpu_s if self.plane.measured.pid == pid else 0.0),
            "generator CPU s": time.process_time() - own_cpu_s,
            "generator lag s": self.lag_s,
            "resources received": self.fleet.resources - sent,
        }
        show(name, self.figures[name])

    async def watch_lag(self) -> None:
        """How late this process is: what it measures is late by as much."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(0.02)
            self.lag_s = max(self.lag_s, time.monotonic() - began_s - 0.02)

    # The storm

    async def connect(self, proxies: list[Proxy]) -> None:
        self.fleet.start(proxies)
        if not await self.fleet.until(lambda: all(proxy.full for proxy in proxies), PATIENCE_S):
            full = sum(proxy.full for proxy in proxies)
            stuck = next(proxy for proxy in proxies if not proxy.full)
            print(stuck.name, stuck.responses, sorted(stuck.wanted - stuck.answered), stuck.state)
            print(self.plane.control_plane.process.tail(40))
            raise SystemExit(f"only {full} of {len(proxies)} proxies became full; errors: {self.fleet.errors}")

    async def storm(self) -> dict[str, float | str]:
        began_s, rss_kib = time.monotonic(), self.plane.rss_kib
        over = asyncio.Event()
        probing = asyncio.create_task(self.probe(over))
        await self.connect(self.members)
        over.set()
        live = await probing
        full = [proxy.full_s - began_s for proxy in self.members]
        first = [proxy.first_s - began_s for proxy in self.members]
        if not await self.fleet.quiet(1.0, PATIENCE_S):
            raise SystemExit("the fleet never came to rest")
        converged_s = self.fleet.last_s - began_s
        return {
            "first answers s": max(first),
            "registrations /s": len(first) / max(first),
            "full p50 s": quantile(full, 0.5),
            "full s": max(full),
            "converged s": converged_s,
            "responses": self.fleet.responses,
            "REST change live, max s": max(live, default=float("nan")),
            "REST changes": len(live),
            "RSS KiB per proxy, at once": (self.plane.rss_kib - rss_kib) / len(self.members),
        }

    async def probe(self, over: asyncio.Event) -> list[float]:
        """How long REST changes take to the proxies that were there before."""
        took: list[float] = []
        while not over.is_set():
            number, began_s = next(self.numbers), time.monotonic()
            arrived = self.fleet.expect(number)
            await self.plane.endpoint("probed", number)
            if not await self.fleet.until(lambda here=arrived: len(here) == PROBES, 10):
                raise SystemExit("a REST change was not live within 10 s of the storm")
            took.append(max(arrived.values()) - began_s)
            await asyncio.sleep(PROBE_EVERY_S)
        return took

    async def idle(self) -> dict[str, float | str]:
        before_s = self.plane.cpu_s
        await asyncio.sleep(self.options.idle)
        return {"% of a core": (self.plane.cpu_s - before_s) / self.options.idle * 100}

    # Changes

    def changes(
        self, change: Callable[[int], Awaitable[None]], affected: int, rounds: int, rest_s: float = 0.5
    ) -> Callable[[], Awaitable[dict[str, float | str]]]:
        async def measure() -> dict[str, float | str]:
            all_s: list[float] = []
            last_s: list[float] = []
            for _ in range(rounds):
                number = next(self.numbers)
                arrived = self.fleet.expect(number)
                gc.collect()
                began_s = time.monotonic()
                await change(number)
                if not await self.fleet.until(lambda here=arrived: len(here) >= affected, 60):
                    raise SystemExit(f"change {number} reached {len(arrived)} of {affected} proxies")
                took = [at_s - began_s for at_s in arrived.values()]
                all_s += took
                last_s.append(max(took))
                await self.fleet.quiet(rest_s, PATIENCE_S)
            return {
                "p50 s": quantile(all_s, 0.5),
                "p99 s": quantile(all_s, 0.99),
                "to the last, best s": min(last_s),
                "to the last, median s": statistics.median(last_s),
                "affected": affected,
                "changes": rounds,
            }

        return measure

    # Correctness

    async def check(self) -> dict[str, float | str]:
        """What each proxy holds must be what the oracle builds from what REST lists."""
        await self.fleet.quiet(1.0, PATIENCE_S)
        world = await self.plane.world()
        wrong: list[str] = []
        context, memo = mesh_context(world, MESH), Memo()
        policies = MeshPolicies.of(policies_by_type(world, MESH))
        for proxy in self.fleet.proxies:
            key = ProxyKey(MESH, proxy.name)
            own = next((one for it, one in world.resources.items() if it[1:] == key and it.type == "Dataplane"), None)
            if own is None:
                wrong.append(f"{proxy.name}: its Dataplane is not stored")
                continue
            node = read_identity(type("First", (), {"node": proxy.node, "HasField": lambda *_: True})()).node
            address = context.contributions[proxy.name].address
            built = build(routed_proxy(key, own.spec, address, node, policies), context, world.settings, memo)
            wanted = {
                url: {name: one.version for name, one in built.snapshot.resources.get(url, {}).items()} for url in TYPES
            }
            wanted[ENDPOINT] = {
                name: build_endpoints(name, context.endpoints(selector)).version
                for name, selector in built.endpoints.items()
            }
            wrong += [
                f"{proxy.name}: {url.rpartition('.')[2]}: {differences(wanted[url], proxy.state.get(url, {}))}"
                for url in TYPES
                if wanted[url] != proxy.state.get(url, {})
            ]
            await asyncio.sleep(0)
        if self.fleet.decoder.mislabelled:
            wrong.append(f"versions that are not those of the content: {self.fleet.decoder.mislabelled}")
        if wrong:
            raise SystemExit(f"{len(wrong)} states are wrong:\n" + "\n".join(wrong[:10]))
        return {"proxies right": len(self.fleet.proxies)}

    # Chaos

    async def slow(self) -> dict[str, float | str]:
        """One proxy in twenty stops reading; the others must not notice."""
        stopped = self.members[::20]
        for proxy in stopped:
            proxy.reads.clear()
        affected = len(self.members) - len(stopped)
        figures = await self.changes(lambda number: self.plane.endpoint("everyone", number), affected, 5)()
        figures |= {
            f"policy {name}": value for name, value in (await self.changes(self.plane.policy, affected, 3)()).items()
        }
        for proxy in stopped:
            proxy.reads.set()
        await self.fleet.quiet(1.0, PATIENCE_S)
        return {"slow": len(stopped), **figures}

    async def crash(self) -> dict[str, float | str]:
        """Kill -9 and start again: all come back, and are sent nothing that they have."""
        for proxy in self.members:
            proxy.forget_times()
        began_s = time.monotonic()
        self.plane.control_plane.kill()
        await asyncio.to_thread(self.plane.started)
        number = next(self.numbers)
        arrived = self.fleet.expect(number)
        await self.connected(began_s + 30)
        back_s = time.monotonic() - began_s
        await self.fleet.quiet(1.0, PATIENCE_S)
        sent, responses = sum(p.resources for p in self.members), sum(p.responses for p in self.members)
        await self.plane.endpoint("everyone", number)
        if not await self.fleet.until(lambda: len(arrived) >= len(self.members), 30):
            print(self.plane.control_plane.process.tail(60))
            raise SystemExit(f"after the restart, {len(arrived)} of {len(self.members)} proxies receive changes")
        return {
            "start s": self.plane.start_s,
            "all back s": back_s,
            "resources sent again": sent,
            "responses": responses,
        }

    async def connected(self, deadline_s: float) -> None:
        """Return when the control plane counts a stream for each proxy."""
        url = f"http://{LOOPBACK}:{self.plane.control_plane.ports['diagnostics']}/metrics"
        async with httpx.AsyncClient(timeout=30) as client:
            while (count := streams((await client.get(url)).text)) < len(self.fleet.proxies):
                if time.monotonic() > deadline_s:
                    raise SystemExit(f"30 s after the crash {count} of {len(self.fleet.proxies)} streams are back")
                await asyncio.sleep(0.1)


def streams(metrics: str) -> int:
    """The open streams that the control plane counts."""
    lines = [line for line in metrics.splitlines() if line.startswith("xds_streams_active")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def differences(wanted: dict[str, str], held: dict[str, str]) -> str:
    names = [name for name in wanted.keys() | held.keys() if wanted.get(name) != held.get(name)]
    return ", ".join(f"{name}: wants {wanted.get(name)}, has {held.get(name)}" for name in sorted(names)[:3])


def show(name: str, figures: dict[str, float | str]) -> None:
    print(f"\n{name}")
    for label, value in figures.items():
        print(f"  {label:28} {value:12.3f}" if isinstance(value, float) else f"  {label:28} {value!s:>12}", flush=True)


async def main(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    gc.set_threshold(100_000, 50, 1000)
    plane = Plane(directory, dict(setting.split("=", 1) for setting in options.set))
    fleet = Fleet(
        plane.control_plane.ports["xds"], (plane.directory / CERT_FILE).read_bytes(), delta=options.mode == "delta"
    )
    run = Run(plane, fleet, options)
    lag = asyncio.create_task(run.watch_lag())
    try:
        await phases(run, plane, fleet, options)
    finally:
        lag.cancel()
        await fleet.stop()
        await plane.rest.aclose()
        plane.control_plane.stop()
        if fleet.errors:
            print("\nends of streams:", fleet.errors)
    return run.figures


async def phases(run: Run, plane: Plane, fleet: Fleet, options: argparse.Namespace) -> None:
    documents = [*(dataplane(index, options) for index in range(options.proxies)), *map(probe, range(PROBES))]
    tokens = await plane.tokens([document["name"] for document in documents])
    made = [
        Proxy(fleet, index, document, token, options.extensions)
        for index, (document, token) in enumerate(zip(documents, tokens, strict=True))
    ]
    run.members = made[: options.proxies]
    for of in ("everyone", "tenth", "probed"):
        await plane.endpoint(of, next(run.numbers))
    await run.connect(made[options.proxies :])
    await fleet.quiet(0.5, PATIENCE_S)
    if options.wait:
        print(f"control plane: process {plane.measured.pid}", flush=True)
        await asyncio.sleep(options.wait)
    rss_kib = plane.rss_kib
    await run.phase("storm", run.storm)
    if options.only_storm:
        return
    await asyncio.sleep(3 + options.proxies / 500)  # the insights of the storm are written in batches
    await run.phase("idle", run.idle)
    run.figures["idle"]["RSS KiB per proxy"] = (plane.rss_kib - rss_kib) / options.proxies
    print(f"  RSS KiB per proxy            {run.figures['idle']['RSS KiB per proxy']:12.1f}")
    tenth = sum(index % 10 == 0 for index in range(options.proxies))
    one = lambda of: lambda number: plane.endpoint(of, number)  # noqa: E731
    await run.phase("endpoint, all", run.changes(one("everyone"), options.proxies, options.changes))
    await run.phase(
        "endpoint, all, one after the other", run.changes(one("everyone"), options.proxies, options.changes, 0)
    )
    await run.phase("endpoint, a tenth", run.changes(one("tenth"), tenth, options.changes))
    await run.phase("policy, all", run.changes(plane.policy, options.proxies, max(3, options.changes // 3)))
    await run.phase("check", run.check)
    if options.chaos:
        await run.phase("slow clients", run.slow)
        await run.phase("check, slow clients", run.check)
        await run.phase("crash", run.crash)
        await run.phase("check, crash", run.check)
    run.figures["end"] = {"RSS MiB": plane.rss_kib / 1024}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxies", type=int, default=200)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--outbounds", type=int, default=10)
    parser.add_argument("--mode", choices=("delta", "sotw"), default="delta")
    parser.add_argument("--changes", type=int, default=10, help="how many changes of each kind are measured")
    parser.add_argument("--extensions", type=int, default=0, help="in the first request; a real Envoy names 516")
    parser.add_argument("--chaos", action="store_true", help="also slow clients, kill -9 and restart")
    parser.add_argument("--idle", type=float, default=10, help="seconds over which idle CPU is measured")
    parser.add_argument("--only-storm", action="store_true", help="stop after it")
    parser.add_argument("--wait", type=float, default=0, help="seconds before the storm, to attach a profiler")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the control plane"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, grpcio {version('grpcio')}; {chosen.proxies} proxies, "
        f"{chosen.services} services, {chosen.outbounds} outbounds, {chosen.mode}"
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the control plane ends with this script
    with tempfile.TemporaryDirectory(prefix="koguma-fleet-") as temporary:
        found = uvloop.run(main(chosen, Path(temporary)))
    print("\n" + json.dumps(found))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1), encoding="utf-8")

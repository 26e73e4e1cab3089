"""A fleet of simulated proxies in one process: they ask as Envoy does, acknowledge everything, and remember little.

Responses of equal content are decoded once for all; content is remembered by its version, which is computed from the
bytes that came, never taken from the label.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)

from snapshot.cache.resource import content_version
from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER
from snapshot.stream.wire import text
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, node

NONCE_TAG = b"\x2a"  # field 5, a string, in both variants
LONGEST_NONCE = 40
MARK_NETWORK = "10.200."
MARK_TIMEOUT_S = 7
BACK_OFF_S = (0.2, 1.0)
TYPES = (CLUSTER, ENDPOINT, LISTENER)


class Parsed(NamedTuple):
    """A response without its nonce. `marks` are the numbers of the changes that made its content."""

    type_url: str
    version: str
    held: dict[str, str]
    removed: tuple[str, ...]
    marks: frozenset[int]


def mark_address(number: int) -> str:
    """The endpoint address that stands for change `number` (below 65,536)."""
    return f"{MARK_NETWORK}{number >> 8}.{number & 255}"


def mark_timeout(number: int) -> str:
    """The connect timeout that stands for change `number` (below 1000)."""
    return f"{MARK_TIMEOUT_S}.{number:03}s"


class Decoder:
    """Decodes each distinct response, and each distinct resource, once."""

    def __init__(self, *, delta: bool) -> None:
        self._message = DeltaDiscoveryResponse if delta else DiscoveryResponse
        self._delta = delta
        self._responses: dict[bytes, Parsed] = {}
        self._resources: dict[tuple[str, bytes], tuple[str, str, str | None, frozenset[int]]] = {}
        self.eds_names: dict[tuple[str, str], str] = {}
        self.mislabelled: set[tuple[str, str]] = set()

    def read(self, raw: bytes) -> tuple[Parsed, str]:
        """What a response says, and its nonce."""
        at = raw.rfind(NONCE_TAG, max(0, len(raw) - LONGEST_NONCE))
        if at >= 0 and at + 1 < len(raw) and raw[at + 1] == len(raw) - at - 2:
            known = self._responses.get(raw[:at])
            if known is not None:
                return known, raw[at + 2 :].decode()
        message: Any = self._message.FromString(raw)
        parsed = self._parse(message)
        if at >= 0 and raw[at + 2 :].decode(errors="replace") == message.nonce:
            if len(self._responses) > 20_000:
                self._responses.clear()
            self._responses[raw[:at]] = parsed
        return parsed, message.nonce

    def _parse(self, message: Any) -> Parsed:
        url, held, marks = message.type_url, dict[str, str](), frozenset[int]()
        for resource in message.resources:
            body = resource.resource.value if self._delta else resource.value
            name, version, eds_name, marked = self._resource(url, body)
            if self._delta and (name, version) != (resource.name, resource.version):
                self.mislabelled.add((url, resource.name))
            held[name] = version
            if eds_name is not None:
                self.eds_names[name, version] = eds_name
            marks |= marked
        removed = tuple(message.removed_resources) if self._delta else ()
        version = "" if self._delta else message.version_info
        return Parsed(url, version, held, removed, marks)

    def _resource(self, url: str, body: bytes) -> tuple[str, str, str | None, frozenset[int]]:
        key = url, body
        known = self._resources.get(key)
        if known is None:
            known = self._resources[key] = _decoded(url, body)
        return known


def _decoded(url: str, body: bytes) -> tuple[str, str, str | None, frozenset[int]]:
    version, marks = content_version(url, body), set[int]()
    if url == CLUSTER:
        cluster = Cluster.FromString(body)
        eds_name = None
        if cluster.type == Cluster.EDS:
            eds_name = cluster.eds_cluster_config.service_name or cluster.name
        if cluster.connect_timeout.seconds == MARK_TIMEOUT_S:
            marks.add(cluster.connect_timeout.nanos // 1_000_000)
        return cluster.name, version, eds_name, frozenset(marks)
    if url == ENDPOINT:
        assignment = ClusterLoadAssignment.FromString(body)
        for locality in assignment.endpoints:
            for endpoint in locality.lb_endpoints:
                address = endpoint.endpoint.address.socket_address.address
                if address.startswith(MARK_NETWORK):
                    high, low = address.removeprefix(MARK_NETWORK).split(".")
                    marks.add(int(high) << 8 | int(low))
        return assignment.cluster_name, version, None, frozenset(marks)
    return Listener.FromString(body).name, version, None, frozenset()


class Fleet:
    """What all proxies of a fleet share. `port` may be changed while they are away."""

    def __init__(self, port: int, ca_pem: bytes, *, delta: bool) -> None:
        self.port = port
        self.delta = delta
        self.decoder = Decoder(delta=delta)
        self.credentials = grpc.ssl_channel_credentials(root_certificates=ca_pem)
        self.proxies: list[Proxy] = []
        self.arrivals: dict[int, dict[int, float]] = {}
        self.responses = 0
        self.resources = 0
        self.last_s = 0.0
        self.errors: dict[str, int] = {}
        self.changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def expect(self, number: int) -> dict[int, float]:
        """From now on, when each proxy receives change `number`, by the proxy's index."""
        return self.arrivals.setdefault(number, {})

    def start(self, proxies: list[Proxy]) -> None:
        """Connect all of them at once; they come back whenever they are disconnected."""
        self.proxies += proxies
        for proxy in proxies:
            task = asyncio.create_task(proxy.run())
            task.add_done_callback(_must_run)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Disconnect all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Whether the condition came to hold in time; looked at after each response."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            self.changed.clear()
            if time.monotonic() > deadline_s:
                return False
            timer = asyncio.get_running_loop().call_later(0.25, self.changed.set)
            await self.changed.wait()
            timer.cancel()
        return True

    async def quiet(self, for_s: float, within_s: float) -> bool:
        """Whether nothing came for a while, within a time."""
        deadline_s = time.monotonic() + within_s
        while (rest_s := self.last_s + for_s - time.monotonic()) > 0:
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(rest_s)
        return True


def _must_run(task: asyncio.Task[None]) -> None:
    """A proxy that fails is a fault of this module: everyone must hear of it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        asyncio.get_running_loop().call_exception_handler({"message": "a simulated proxy failed", "exception": error})


class Proxy:
    """One Envoy: its own connection, CDS, then EDS for its clusters, then LDS; back with what it has after an end."""

    def __init__(self, fleet: Fleet, index: int, dataplane: dict[str, Any], token: str, extensions: int = 0) -> None:
        self.fleet = fleet
        self.index = index
        self.name: str = dataplane["name"]
        self._token = token
        metadata = {
            "dataplane.resource": json.dumps(dataplane),
            "dataplane.admin.port": "9901",
            "dataplane.proxyType": "dataplane",
            "koguma.runId": f"run-{random.getrandbits(64):x}",
            "version": {"kumaDp": {"version": "1.5.1"}, "envoy": {"version": "1.21.1"}},
        }
        self.node = node(f"{dataplane['mesh']}.{self.name}", metadata, user_agent_name="envoy")
        for number in range(extensions):
            self.node.extensions.add(
                name=f"envoy.filters.http.number_{number}",
                category="envoy.filters.http",
                type_urls=[f"envoy.extensions.filters.http.number_{number}.v3.Filter"],
            )
        self.state: dict[str, dict[str, str]] = {}
        self.answered: set[str] = set()
        self.wanted: frozenset[str] = frozenset()
        self.full_s = 0.0
        self.first_s = 0.0
        self.responses = 0
        self.resources = 0
        self.reads = asyncio.Event()
        self.reads.set()
        self._asked: set[str] = set()
        self._last: dict[str, tuple[str, str]] = {}
        self._call: Any = None

    @property
    def full(self) -> bool:
        """Whether everything that it asked for on this connection was answered."""
        return self.full_s > 0

    def forget_times(self) -> None:
        """Begin to count anew."""
        self.full_s = self.first_s = 0.0
        self.responses = self.resources = 0

    async def run(self) -> None:
        """Be connected, for ever."""
        fleet = self.fleet
        while True:
            options = [
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.ssl_target_name_override", "localhost"),
                ("grpc.max_receive_message_length", -1),
                ("grpc.http2.bdp_probe", 0),
            ]
            channel = grpc.aio.secure_channel(f"127.0.0.1:{fleet.port}", fleet.credentials, options=options)
            try:
                await self._serve(channel)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                said = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.RpcError) else repr(error)
                fleet.errors[said[:160]] = fleet.errors.get(said[:160], 0) + 1
            finally:
                await channel.close()
            await asyncio.sleep(random.uniform(*BACK_OFF_S))

    async def _serve(self, channel: grpc.aio.Channel) -> None:
        method = DELTA_METHOD if self.fleet.delta else SOTW_METHOD
        call = self._call = channel.stream_stream(method)(metadata=[("authorization", f"Bearer {self._token}")])
        returning = list(self.state)
        self._asked, self.full_s, self.first_s = set(), 0.0, 0.0
        self._last = {url: (version, "") for url, (version, _) in self._last.items()}
        await self._ask(CLUSTER, first=True)
        for url in returning:
            if url != CLUSTER:
                await self._ask(url)
        if returning:
            self.answered = {*self.wanted, *self.answered}
            self._look_full()
        while True:
            await self.reads.wait()
            raw = await call.read()
            if raw is grpc.aio.EOF:
                return
            await self._take(raw)

    async def _ask(self, url: str, *, first: bool = False) -> None:
        self._asked.add(url)
        names = sorted(self.wanted) if url == ENDPOINT else []
        fields: dict[str, Any] = {"type_url": url}
        if first:
            fields["node"] = self.node
        if self.fleet.delta:
            fields["initial_resource_versions"] = self.state.get(url, {})
            request: Any = DeltaDiscoveryRequest(resource_names_subscribe=names, **fields)
        else:
            version = self._last.get(url, ("", ""))[0]
            request = DiscoveryRequest(resource_names=names, version_info=version, **fields)
        await self._call.write(request.SerializeToString())

    async def _take(self, raw: bytes) -> None:
        fleet, now_s = self.fleet, time.monotonic()
        parsed, nonce = fleet.decoder.read(raw)
        url = parsed.type_url
        self._last[url] = parsed.version, nonce
        self.first_s = self.first_s or now_s
        self._store(parsed)
        count = len(parsed.held)
        self.responses += 1
        self.resources += count
        fleet.responses += 1
        fleet.resources += count
        fleet.last_s = now_s
        for mark in parsed.marks:
            if (arrived := fleet.arrivals.get(mark)) is not None:
                arrived.setdefault(self.index, now_s)
        await self._acknowledge(url, parsed, nonce)
        if url == CLUSTER:
            await self._follow_clusters()
        if LISTENER not in self._asked and ENDPOINT in self._asked and self.wanted <= self.answered:
            await self._ask(LISTENER)
        self._look_full()
        fleet.changed.set()

    def _look_full(self) -> None:
        if not self.full_s and LISTENER in self.state and self.wanted <= self.answered:
            self.full_s = time.monotonic()
            self.fleet.changed.set()

    def _store(self, parsed: Parsed) -> None:
        url = parsed.type_url
        if self.fleet.delta or url == ENDPOINT:
            held = self.state.setdefault(url, {})
            held.update(parsed.held)
            for name in parsed.removed:
                held.pop(name, None)
        else:
            self.state[url] = dict(parsed.held)
        if url == ENDPOINT:
            self.answered.update(parsed.held, parsed.removed)

    async def _acknowledge(self, url: str, parsed: Parsed, nonce: str) -> None:
        if self.fleet.delta:
            await self._call.write(text(2, url) + text(6, nonce))
            return
        names = b"".join(text(3, name) for name in sorted(self.wanted)) if url == ENDPOINT else b""
        await self._call.write(text(1, parsed.version) + names + text(4, url) + text(5, nonce))

    async def _follow_clusters(self) -> None:
        """Subscribe to the endpoints of the clusters that there are now."""
        known = self.fleet.decoder.eds_names
        names = frozenset(known[held] for held in self.state[CLUSTER].items() if held in known)
        if names == self.wanted and ENDPOINT in self._asked:
            return
        before, self.wanted = self.wanted, names
        self.answered &= names
        held = self.state.setdefault(ENDPOINT, {})
        for name in before - names:
            held.pop(name, None)
        if ENDPOINT not in self._asked or not self.fleet.delta:
            version, nonce = self._last.get(ENDPOINT, ("", ""))
            if not self.fleet.delta and nonce:
                encoded = b"".join(text(3, name) for name in sorted(names))
                await self._call.write(text(1, version) + encoded + text(4, ENDPOINT) + text(5, nonce))
            else:
                await self._ask(ENDPOINT)
            return
        request = DeltaDiscoveryRequest(
            type_url=ENDPOINT,
            resource_names_subscribe=sorted(names - before),
            resource_names_unsubscribe=sorted(before - names),
        )
        await self._call.write(request.SerializeToString())

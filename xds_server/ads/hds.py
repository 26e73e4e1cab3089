"""HDS: proxies check their own application and say whether it is ready (R §7.4, P §22).

A checker that leaves changes nothing: its last word stays, and says "unknown" rather than "unhealthy" by silence.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc
from envoy.config.core.v3.health_check_pb2 import HEALTHY, UNKNOWN
from envoy.service.health.v3.hds_pb2 import HealthCheckRequestOrEndpointHealthResponse, HealthCheckSpecifier
from google.protobuf.message import DecodeError

from snapshot.model.dataplane import Dataplane, Inbound
from snapshot.model.meta import NANOSECONDS
from xds_server.ads.admission import Admission
from xds_server.ads.flow import Pace, WriteWatch, converse
from xds_server.ads.node import MAX_ID_BYTES, invalid
from xds_server.ads.ports import Dataplanes, End, Ending, HealthSink, Identity, Observer, Refused
from xds_server.clock import Clock

CLUSTER_PREFIX: Final = "localhost:"
READY: Final = frozenset({HEALTHY, UNKNOWN})
SPECIFIER_TYPE: Final = "type.googleapis.com/envoy.service.health.v3.HealthCheckSpecifier"
REPORT_TYPE: Final = "type.googleapis.com/envoy.service.health.v3.EndpointHealthResponse"
MISSING: Final = "dataplane not found. Create Dataplane in Kuma CP first or pass it as an argument to kuma-dp"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckDefaults:
    """What a `serviceProbe` does not say (`dpServer.hds.checkDefaults`). Times in seconds."""

    timeout_s: float = 2.0
    interval_s: float = 1.0
    no_traffic_interval_s: float = 1.0
    healthy_threshold: int = 1
    unhealthy_threshold: int = 1


class HealthMetrics(Protocol):
    """Counters of HDS (R §9.6); `telemetry.hds` is one."""

    def opened(self) -> None:
        """A stream was admitted."""
        ...

    def closed(self) -> None:
        """It is gone."""
        ...

    def sent(self, type_url: str, size: int) -> None:
        """A specifier of `size` bytes was written."""
        ...

    def received(self, type_url: str, *, ack: bool) -> None:
        """A report came."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthDiscovery:
    """What HDS needs beside what every stream needs. `interval_s` is how often Envoy reports."""

    dataplanes: Dataplanes
    sink: HealthSink
    interval_s: float = 5.0
    defaults: CheckDefaults = field(default_factory=CheckDefaults)
    metrics: HealthMetrics | None = None
    wait_s: float = 30.0
    """How long a Dataplane that its ADS stream is about to register is waited for."""


def specifier(dataplane: Dataplane | None, settings: HealthDiscovery) -> bytes:
    """The serialised HealthCheckSpecifier for a Dataplane: one TCP check for each workload with a `serviceProbe`."""
    message = HealthCheckSpecifier()
    message.interval.FromNanoseconds(round(settings.interval_s * NANOSECONDS))
    seen: set[str] = set()
    inbounds = dataplane.networking.inbound if dataplane is not None and dataplane.networking is not None else ()
    for inbound in inbounds:
        name = f"{CLUSTER_PREFIX}{inbound.workload_port}"
        if inbound.service_probe is not None and name not in seen:
            seen.add(name)
            _add_check(message.cluster_health_checks.add(cluster_name=name), inbound, settings.defaults)
    return bytes(message.SerializeToString(deterministic=True))


def _add_check(cluster: Any, inbound: Inbound, defaults: CheckDefaults) -> None:
    """Each part the probe leaves open comes from the defaults, the interval too (1.5 forgets it beside a timeout)."""
    probe = inbound.service_probe
    if probe is None:
        return
    address = cluster.locality_endpoints.add().endpoints.add().address.socket_address
    address.address, address.port_value = inbound.workload_address, inbound.workload_port
    check = cluster.health_checks.add()
    check.tcp_health_check.SetInParent()
    for target, own, default_s in (
        (check.timeout, probe.timeout, defaults.timeout_s),
        (check.interval, probe.interval, defaults.interval_s),
        (check.no_traffic_interval, None, defaults.no_traffic_interval_s),
    ):
        target.FromNanoseconds(round(default_s * NANOSECONDS) if own is None else int(own))
    for wrapper, threshold, default in (
        (check.healthy_threshold, probe.healthy_threshold, defaults.healthy_threshold),
        (check.unhealthy_threshold, probe.unhealthy_threshold, defaults.unhealthy_threshold),
    ):
        wrapper.value = default if threshold is None else threshold


def readiness(report: Any) -> dict[int, bool]:
    """Readiness by workload port in an `endpoint_health_response`; of each cluster its first endpoint counts."""
    ready: dict[int, bool] = {}
    for cluster in report.cluster_endpoints_health:
        prefix, _, port = cluster.cluster_name.rpartition(":")
        if f"{prefix}:" != CLUSTER_PREFIX or not (port.isascii() and port.isdigit() and len(port) <= 5):  # noqa: PLR2004
            continue
        endpoints = next((locality.endpoints_health for locality in cluster.locality_endpoints_health), ())
        status = next((endpoint.health_status for endpoint in endpoints), None)
        if status is not None:
            ready[int(port)] = status in READY
    return ready


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthParts:
    """What a health session shares with the discovery sessions."""

    clock: Clock
    admission: Admission
    observer: Observer
    writes: WriteWatch
    health: HealthDiscovery


class HealthSession:
    """One HDS stream: the same admission as ADS, except that a missing Dataplane is waited for."""

    def __init__(self, parts: HealthParts, context: Any) -> None:
        self._parts = parts
        self._context = context
        self.peer: Final[str] = context.peer()
        self._changed = asyncio.Event()
        self._ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._stuck = self._write_is_stuck
        self.identity: Identity | None = None
        self.responses = 0

    def end(self, end: End, *, gently: bool = False) -> None:
        """End the stream from outside; a specifier that is being written is not worth waiting for."""
        del gently
        if not self._ended.done():
            self._ended.set_result(end)

    async def run(self) -> None:
        """Serve the stream. Raises End, and CancelledError where the client is gone."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                if await self._admit(stack):
                    await self._converse()
        except Refused as refused:
            self._parts.observer.count("refused")
            raise End(refused.code, refused.text, Ending.LEFT) from refused

    async def _admit(self, stack: contextlib.AsyncExitStack) -> bool:
        parts = self._parts
        stack.callback(parts.admission.disconnected, self.peer)
        parts.admission.connected(self.peer)
        message = await parts.admission.first(self._context.read, _parsed)
        if message is None:
            return False
        if not message.HasField("health_check_request"):
            raise invalid("the first message of an HDS stream must be a health_check_request")
        wait = self._wait_for_dataplane(stack)
        identity, subject = await parts.admission.admit(self._context, message.health_check_request, before_bind=wait)
        self.identity = identity
        parts.admission.enter(identity.proxy)
        stack.callback(parts.admission.leave, identity.proxy)
        stack.callback(parts.admission.authenticator.watch(subject, self._revoked))
        if (metrics := parts.health.metrics) is not None:
            metrics.opened()
            stack.callback(metrics.closed)
        return True

    def _wait_for_dataplane(self, stack: contextlib.AsyncExitStack) -> Callable[[Identity], Awaitable[None]]:
        """Follow the Dataplane of this identity, and return once it exists. Raises Refused after `wait_s`."""
        health = self._parts.health

        async def wait(identity: Identity) -> None:
            stack.callback(health.dataplanes.watch(identity.proxy, self._changed.set))
            try:
                async with asyncio.timeout(health.wait_s):
                    while health.dataplanes.get(identity.proxy) is None:
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                raise Refused("NOT_FOUND", MISSING) from None

        return wait

    def _revoked(self, reason: str) -> None:
        self.end(End("UNAUTHENTICATED", reason, Ending.LEFT))

    def _write_is_stuck(self) -> None:
        self._parts.observer.count("stuck")
        self.end(End("RESOURCE_EXHAUSTED", "a HealthCheckSpecifier has not been read in time", Ending.VANISHED))

    async def _converse(self) -> None:
        await self._context.send_initial_metadata(())  # a status can follow even while a write is stuck
        await converse(self._read(), self._write(), self._ended)

    async def _read(self) -> None:
        parts, identity = self._parts, self.identity
        pace = Pace(parts.admission.settings.requests_per_s)
        while (raw := await self._context.read()) is not grpc.aio.EOF:
            message = _parsed(raw)
            if message.HasField("endpoint_health_response") and identity is not None:
                parts.health.sink.report(identity.proxy, readiness(message.endpoint_health_response))
                if parts.health.metrics is not None:
                    parts.health.metrics.received(REPORT_TYPE, ack=True)
            elif message.HasField("health_check_request"):
                self._same_node(message.health_check_request.node.id)
            delay_s = pace.delay_s(parts.clock.monotonic_s())
            if delay_s:
                parts.observer.count("slowed")
                await asyncio.sleep(delay_s)

    def _same_node(self, node_id: str) -> None:
        own = self.identity.node_id if self.identity else ""
        if node_id not in {"", own}:
            raise invalid(
                f"stream was authenticated for ID {own}. Received request is for node with ID "
                f"{node_id[:MAX_ID_BYTES]}. "
                "Node ID cannot be changed after stream is initialized"
            )

    async def _write(self) -> None:
        """Send the specifier, and again whenever the Dataplane makes it another one. No polling (L1)."""
        health, sent = self._parts.health, None
        while self.identity is not None:
            self._changed.clear()
            wanted = specifier(health.dataplanes.get(self.identity.proxy), health)
            if wanted != sent:
                self._parts.writes.began(self._stuck, self._parts.clock.monotonic_s())
                try:
                    await self._context.write(wanted)
                finally:
                    self._parts.writes.ended(self._stuck)
                sent = wanted
                if health.metrics is not None:
                    health.metrics.sent(SPECIFIER_TYPE, len(wanted))
                self.responses += 1
            await self._changed.wait()


def _parsed(raw: bytes) -> Any:
    try:
        return HealthCheckRequestOrEndpointHealthResponse.FromString(raw)
    except DecodeError as error:
        raise invalid(f"the request is not a HealthCheckRequestOrEndpointHealthResponse: {error}") from error

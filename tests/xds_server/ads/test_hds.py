"""HDS: what proxies are asked to check, and what becomes of their answers."""

from __future__ import annotations

import pytest
from envoy.config.core.v3.health_check_pb2 import DEGRADED, HEALTHY, TIMEOUT, UNHEALTHY, UNKNOWN
from envoy.service.health.v3.hds_pb2 import HealthCheckRequestOrEndpointHealthResponse, HealthCheckSpecifier
from google.protobuf.json_format import MessageToDict

from snapshot.model.codec import decode_spec
from snapshot.model.meta import ProxyKey, ResourceKey
from tests.support.ads_parts import FakeDataplanes, FakeObserver
from tests.support.clock import FakeClock
from xds_server.ads.hds import HealthDiscovery, specifier
from xds_server.ads.health_writer import HealthWriter
from xds_server.store import ABSENT, Put
from xds_server.store.memory import MemoryStore

METHOD = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
WEB = ProxyKey("default", "web.1")
KEY = ResourceKey("Dataplane", *WEB)


def dataplane(**probe):
    inbound = {
        "port": 80,
        "servicePort": 8080,
        "tags": {"kuma.io/service": "web"},
        "serviceProbe": {"tcp": {}, **probe},
    }
    return decode_spec("Dataplane", {"networking": {"address": "127.0.0.1", "inbound": [inbound]}}).spec


def without_probe():
    inbound = {"port": 80, "tags": {"kuma.io/service": "web"}}
    return decode_spec("Dataplane", {"networking": {"address": "127.0.0.1", "inbound": [inbound]}}).spec


def hello(node_id="default.web.1") -> bytes:
    message = HealthCheckRequestOrEndpointHealthResponse()
    message.health_check_request.node.id = node_id
    return message.SerializeToString()


def report(*statuses, cluster="localhost:8080") -> bytes:
    message = HealthCheckRequestOrEndpointHealthResponse()
    health = message.endpoint_health_response.cluster_endpoints_health.add(cluster_name=cluster)
    locality = health.locality_endpoints_health.add()
    for status in statuses:
        locality.endpoints_health.add(health_status=status)
    return message.SerializeToString()


async def connect(harness):
    stream = harness.stream(METHOD)
    await stream.raw(hello())
    return stream


async def received(stream) -> dict:
    return MessageToDict(HealthCheckSpecifier.FromString(await stream.call.read()))


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ({}, {"timeout": "2s", "interval": "1s", "healthyThreshold": 1, "unhealthyThreshold": 1}),
        ({"timeout": "3s"}, {"timeout": "3s", "interval": "1s"}),
        ({"interval": "7s"}, {"timeout": "2s", "interval": "7s"}),
        ({"healthyThreshold": 4, "unhealthyThreshold": 5}, {"healthyThreshold": 4, "unhealthyThreshold": 5}),
    ],
)
def test_a_probe_becomes_a_tcp_check_with_defaults(probe, expected):
    raw = specifier(dataplane(**probe), HealthDiscovery(dataplanes=FakeDataplanes(), sink=None))
    message = MessageToDict(HealthCheckSpecifier.FromString(raw))
    assert message["interval"] == "5s"
    (cluster,) = message["clusterHealthChecks"]
    assert cluster["clusterName"] == "localhost:8080"
    (endpoint,) = cluster["localityEndpoints"][0]["endpoints"]
    assert endpoint["address"]["socketAddress"] == {"address": "127.0.0.1", "portValue": 8080}
    (check,) = cluster["healthChecks"]
    assert check["tcpHealthCheck"] == {}
    assert check["noTrafficInterval"] == "1s"
    assert expected.items() <= check.items()


@pytest.mark.rule("XP-168")
async def test_checks_are_sent_and_sent_again_when_they_change(harness):
    harness.dataplanes.put(WEB, dataplane())
    stream = await connect(harness)
    assert len((await received(stream))["clusterHealthChecks"]) == 1
    harness.dataplanes.put(WEB, dataplane())
    harness.dataplanes.put(WEB, without_probe())
    assert await received(stream) == {"interval": "5s"}
    await stream.half_close()
    assert (await stream.ended())[0] == "OK"
    await harness.until(lambda: not harness.dataplanes.watchers)


@pytest.mark.rule("XP-168")
@pytest.mark.parametrize(
    ("statuses", "ready"),
    [((HEALTHY,), True), ((UNKNOWN,), True), ((UNHEALTHY,), False), ((TIMEOUT,), False), ((DEGRADED, HEALTHY), False)],
)
async def test_reports_reach_the_sink(harness, statuses, ready):
    harness.dataplanes.put(WEB, dataplane())
    stream = await connect(harness)
    await received(stream)
    await stream.raw(report(*statuses, cluster="localhost:x"))
    await stream.raw(report(*statuses))
    await harness.until(lambda: len(harness.sink.reports) == 2)
    assert harness.sink.reports == [(WEB, {}), (WEB, {8080: ready})]


async def test_streams_specifiers_and_reports_are_counted(special):
    class Metrics:
        def __init__(self):
            self.seen = []

        def opened(self):
            self.seen.append("opened")

        def closed(self):
            self.seen.append("closed")

        def sent(self, type_url, size):
            self.seen.append(("sent", type_url.rpartition(".")[2], size > 0))

        def received(self, type_url, *, ack):
            self.seen.append(("received", type_url.rpartition(".")[2], ack))

    harness = await special(hds_metrics=Metrics())
    harness.dataplanes.put(WEB, dataplane())
    stream = await connect(harness)
    await received(stream)
    await stream.raw(report(HEALTHY))
    await stream.half_close()
    assert (await stream.ended())[0] == "OK"
    assert harness.hds_metrics.seen == [
        "opened",
        ("sent", "HealthCheckSpecifier", True),
        ("received", "EndpointHealthResponse", True),
        "closed",
    ]


async def test_a_dataplane_that_is_about_to_be_registered_is_waited_for(harness):
    stream = await connect(harness)
    await harness.until(lambda: harness.dataplanes.watchers)
    harness.dataplanes.put(WEB, without_probe())
    assert await received(stream) == {"interval": "5s"}


async def test_the_wait_for_a_dataplane_is_bounded(special):
    harness = await special(hds_wait_s=0.1)
    stream = await connect(harness)
    assert await stream.ended() == (
        "NOT_FOUND",
        "dataplane not found. Create Dataplane in Kuma CP first or pass it as an argument to kuma-dp",
    )
    assert harness.dataplanes.watchers == []


async def test_the_first_message_must_be_a_request_and_the_node_stays(harness):
    harness.dataplanes.put(WEB, dataplane())
    stream = harness.stream(METHOD)
    await stream.raw(report(HEALTHY))
    assert (await stream.ended())[0] == "INVALID_ARGUMENT"
    other = await connect(harness)
    await received(other)
    await other.raw(hello("default.web.2"))
    code, text = await other.ended()
    assert (code, "Node ID cannot be changed" in text) == ("INVALID_ARGUMENT", True)


@pytest.mark.rule("XP-149")
async def test_revocation_ends_the_stream(harness):
    harness.dataplanes.put(WEB, dataplane())
    stream = await connect(harness)
    await received(stream)
    harness.authenticator.revoke("token")
    assert await stream.ended(1.0) == ("UNAUTHENTICATED", "token is revoked")


class Ready:
    """A store with one Dataplane, and the writer over it."""

    async def set_up(self):
        spec = {
            "networking": {
                "address": "127.0.0.1",
                "inbound": [
                    {"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "web"}, "serviceProbe": {"tcp": {}}},
                    {"port": 81, "servicePort": 8080, "tags": {"kuma.io/service": "b"}, "serviceProbe": {"tcp": {}}},
                    {"port": 82, "tags": {"kuma.io/service": "c"}},
                ],
            }
        }
        self.store, self.dataplanes, self.observer = MemoryStore(FakeClock()), FakeDataplanes(), FakeObserver()
        await self.store.apply(Put(KEY, spec, ABSENT))
        self.dataplanes.put(WEB, decode_spec("Dataplane", spec).spec)
        self.epoch = None
        self.writer = HealthWriter(self.store, self.dataplanes, self.observer, FakeClock(), lambda _: self.epoch)
        return self

    async def state(self):
        stored = await self.store.get(KEY)
        return stored.version, [inbound.get("health") for inbound in stored.spec["networking"]["inbound"]]


async def test_readiness_is_written_to_every_inbound_of_the_port_once():
    ready = await Ready().set_up()
    ready.writer.report(WEB, {8080: True, 82: True})
    ready.writer.report(WEB, {8080: False})
    await ready.writer.flush()
    version, health = await ready.state()
    assert (version, health) == (2, [{}, {}, None]) or health == [{"ready": False}, {"ready": False}, None]
    ready.writer.report(WEB, {8080: True})
    await ready.writer.flush()
    assert await ready.state() == (3, [{"ready": True}, {"ready": True}, None])
    ready.dataplanes.put(WEB, decode_spec("Dataplane", (await ready.store.get(KEY)).spec).spec)
    ready.writer.report(WEB, {8080: True})
    await ready.writer.flush()
    assert (await ready.state())[0] == 3


async def test_a_conflict_is_written_again_and_an_old_lease_is_not():
    ready = await Ready().set_up()
    apply, calls = ready.store.apply, []

    async def contended(*operations):
        calls.append(operations)
        if len(calls) == 1:
            await apply(Put(KEY, (await ready.store.get(KEY)).spec))
        return await apply(*operations)

    ready.store.apply = contended
    ready.writer.report(WEB, {8080: True})
    await ready.writer.flush()
    await ready.writer.flush()
    assert (await ready.state())[1][0] == {"ready": True}
    ready.epoch = 7  # there is no such lease
    ready.writer.report(WEB, {8080: False})
    await ready.writer.flush()
    await ready.writer.flush()
    assert (await ready.state())[1][0] == {"ready": True}

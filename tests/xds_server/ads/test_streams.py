"""Discovery streams over real TLS sockets: what holds whatever the content is."""

from __future__ import annotations

import asyncio

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from snapshot.cache.resource import XdsResource
from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER
from snapshot.model.meta import ProxyKey
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, node, single_type
from xds_server.ads.session import Session

WEB = ProxyKey("default", "web.1")
NODE = node("default.web.1")
BOTH = pytest.mark.parametrize("method", [SOTW_METHOD, DELTA_METHOD], ids=["sotw", "delta"])


def cluster(name: str, timeout_s: int = 1) -> XdsResource:
    message = Cluster(name=name)
    message.connect_timeout.seconds = timeout_s
    return XdsResource.of(CLUSTER, name, message)


def endpoints(name: str) -> XdsResource:
    return XdsResource.of(ENDPOINT, name, ClusterLoadAssignment(cluster_name=name))


def names(response) -> list[str]:
    if hasattr(response, "removed_resources"):
        return sorted(resource.name for resource in response.resources)
    return sorted(Cluster.FromString(resource.value).name for resource in response.resources)


@pytest.mark.rule("XP-1", "XP-11", "XP-76")
@BOTH
async def test_all_types_share_one_aggregated_stream(harness, method):
    harness.nodes.publish(WEB, cluster("a"), endpoints("a"))
    stream = harness.stream(method)
    await stream.send(node=NODE, type_url=CLUSTER)
    response = await stream.receive()
    assert (response.type_url, names(response)) == (CLUSTER, ["a"])
    assert response.control_plane.identifier == harness.settings.identifier
    await stream.ack(response)
    wanted = {"resource_names_subscribe": ["a"]} if stream.delta else {"resource_names": ["a"]}
    await stream.send(type_url=ENDPOINT, **wanted)
    assert (await stream.receive()).type_url == ENDPOINT


@pytest.mark.rule("XP-2", "XP-3")
@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
async def test_a_single_type_service_means_its_type(harness, delta):
    harness.nodes.publish(WEB, cluster("a"))
    stream = harness.stream(single_type("Clusters", delta=delta))
    await stream.send(node=NODE)
    response = await stream.receive()
    assert (response.type_url, names(response)) == (CLUSTER, ["a"])
    await stream.send(type_url=LISTENER)
    code, text = await stream.ended()
    assert code == "INVALID_ARGUMENT"
    assert LISTENER in text


@pytest.mark.rule("XP-4")
@BOTH
async def test_an_aggregated_request_must_name_its_type(harness, method):
    stream = harness.stream(method)
    await stream.send(node=NODE)
    code, text = await stream.ended()
    assert (code, "type_url" in text) == ("INVALID_ARGUMENT", True)


@pytest.mark.rule("XP-7")
@BOTH
async def test_half_close_ends_the_stream_ok_within_a_second(harness, method):
    harness.nodes.publish(WEB, cluster("a"))
    stream = harness.stream(method)
    await stream.send(node=NODE, type_url=CLUSTER)
    await stream.receive()
    await stream.half_close()
    assert (await stream.ended(1.0))[0] == "OK"
    await harness.until(lambda: not harness.nodes.handles)


@pytest.mark.rule("XP-9")
async def test_an_old_stream_that_ends_takes_nothing_from_the_new_one(harness):
    harness.nodes.publish(WEB, cluster("a"))
    old, new = harness.stream(SOTW_METHOD), harness.stream(SOTW_METHOD)
    for stream in (old, new):
        await stream.send(node=NODE, type_url=CLUSTER)
        response = await stream.receive()
    old.cancel()
    await harness.until(lambda: len(harness.nodes.handles) == 1)
    await new.ack(response)
    harness.nodes.publish(WEB, cluster("b"))
    assert names(await new.receive()) == ["a", "b"]


@pytest.mark.rule("XP-14")
async def test_a_reconnect_brings_new_node_values(harness):
    for port in ("9901", "9902"):
        stream = harness.stream(SOTW_METHOD)
        await stream.send(node=node("default.web.1", {"dataplane.admin.port": port}), type_url=CLUSTER)
        await harness.until(lambda: harness.nodes.handles)
        stream.cancel()
        await harness.until(lambda: not harness.nodes.handles)
    assert [info.admin_port for _, info in harness.nodes.joined] == [9901, 9902]


@pytest.mark.rule("XP-15", "XP-16")
@BOTH
async def test_nothing_is_sent_before_the_state_exists_and_an_empty_state_is_answered(harness, method):
    stream = harness.stream(method)
    await stream.send(node=NODE, type_url=CLUSTER)
    await harness.until(lambda: harness.nodes.handles)
    reading = asyncio.ensure_future(stream.receive())
    await asyncio.sleep(0.1)
    assert not reading.done()
    harness.nodes.publish(WEB)
    response = await reading
    assert (response.type_url, names(response)) == (CLUSTER, [])


@pytest.mark.rule("XP-15", "XP-182")
async def test_a_state_that_goes_away_leaves_the_stream_open_and_silent(harness):
    harness.nodes.publish(WEB, cluster("a"))
    stream = harness.stream(SOTW_METHOD)
    await stream.send(node=NODE, type_url=CLUSTER)
    await stream.ack(await stream.receive())
    harness.nodes.forget(WEB)
    reading = asyncio.ensure_future(stream.receive())
    await asyncio.sleep(0.1)
    assert not reading.done()
    harness.nodes.publish(WEB, cluster("b"))
    assert names(await reading) == ["b"]


@pytest.mark.rule("XP-10", "XP-169")
@pytest.mark.parametrize(
    "method",
    [
        "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters",
        "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats",
        "/envoy.service.discovery.v2.AggregatedDiscoveryService/StreamAggregatedResources",
        "/nonsense",
    ],
)
async def test_what_is_not_offered_is_unimplemented(harness, method):
    assert (await harness.stream(method).ended())[0] == "UNIMPLEMENTED"


@pytest.mark.rule("XP-169")
async def test_hds_can_be_left_out(special):
    harness = await special(offer_hds=False)
    stream = harness.stream("/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck")
    assert (await stream.ended())[0] == "UNIMPLEMENTED"


@pytest.mark.rule("XP-6", "XP-139")
async def test_2000_streams_on_one_connection_each_get_their_own(harness):
    count = 2000
    harness.nodes.publish(WEB, *(endpoints(f"service-{number}") for number in range(count)))
    channel = harness.channel()
    method = single_type("Endpoints", delta=False)
    streams = [harness.stream(method, channel=channel) for _ in range(count)]

    async def ask(number: int) -> list[str]:
        await streams[number].send(node=NODE, resource_names=[f"service-{number}"])
        response = await streams[number].receive(30)
        return [ClusterLoadAssignment.FromString(each.value).cluster_name for each in response.resources]

    assert await asyncio.gather(*map(ask, range(count))) == [[f"service-{number}"] for number in range(count)]
    assert harness.server.open_streams == count


@pytest.mark.rule("XP-111")
async def test_an_unknown_type_does_not_disturb_the_others(harness):
    harness.nodes.publish(WEB, cluster("a"))
    stream = harness.stream(DELTA_METHOD)
    await stream.send(node=NODE, type_url="type.googleapis.com/x.Y", resource_names_subscribe=["z"])
    response = await stream.receive()
    assert (response.type_url, list(response.removed_resources)) == ("type.googleapis.com/x.Y", ["z"])
    await stream.send(type_url=CLUSTER)
    assert names(await stream.receive()) == ["a"]
    assert harness.observer.counts["unknown_type"] == 1


@pytest.mark.rule("XP-52", "XP-55", "XP-58")
async def test_a_client_that_refuses_everything_gets_one_response_for_each_change(harness):
    harness.nodes.publish(WEB, cluster("a", 1))
    stream = harness.stream(SOTW_METHOD)
    await stream.send(node=NODE, type_url=CLUSTER)
    for timeout_s in (2, 3, 4):
        response = await stream.receive()
        await stream.ack(response, version_info="", error_detail={"code": 3, "message": "no, thanks"})
        await harness.until(lambda: harness.observer.records[0].events[-1][0] == "nacked")
        harness.nodes.publish(WEB, cluster("a", timeout_s))
    await stream.receive()
    sent = [event for event in harness.observer.records[0].events if event[0] == "sent"]
    await asyncio.sleep(0.1)
    assert len(sent) == 4
    assert ("nacked", CLUSTER, "no, thanks") in harness.observer.records[0].events


@pytest.mark.rule("XP-122")
async def test_a_client_that_never_answers_gets_one_response_and_disturbs_nobody(harness):
    harness.nodes.publish(WEB, cluster("a", 1))
    mute, lively = harness.stream(SOTW_METHOD), harness.stream(SOTW_METHOD)
    await mute.send(node=NODE, type_url=CLUSTER)
    await mute.receive()
    await lively.send(node=NODE, type_url=CLUSTER)
    for timeout_s in range(2, 20):
        await lively.ack(await lively.receive())
        harness.nodes.publish(WEB, cluster("a", timeout_s))
    await lively.receive()
    assert sum(event[0] == "sent" for event in harness.observer.records[0].events) == 1


@pytest.mark.rule("XP-117", "XP-118", "XP-121")
@BOTH
async def test_what_is_written_is_the_newest_at_that_moment(harness, monkeypatch, method):
    harness.nodes.publish(WEB, cluster("a", 1))
    take = Session._take

    def take_and_publish(session, message, now_s) -> None:
        take(session, message, now_s)
        if not message.response_nonce:
            harness.nodes.publish(WEB, cluster("a", 2))  # before the writer has had its turn

    monkeypatch.setattr(Session, "_take", take_and_publish)
    stream = harness.stream(method)
    await stream.send(node=NODE, type_url=CLUSTER)
    (resource,) = (await stream.receive()).resources
    body = resource.resource.value if stream.delta else resource.value
    assert Cluster.FromString(body).connect_timeout.seconds == 2

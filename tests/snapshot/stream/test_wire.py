"""Messages put together by hand are what protobuf would have written."""

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse
from google.protobuf.internal.encoder import _VarintBytes

from snapshot.cache.resource import XdsResource
from snapshot.cache.type_url import CLUSTER, ENDPOINT
from snapshot.stream import BodyCache, SotwRequest, Stream, Variant
from snapshot.stream.bodies import cost, delta_body, empty_endpoints, sotw_body
from snapshot.stream.wire import data, text, varint
from tests.support.conversation import IDENTIFIER, Node, name_and_content, resource


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 16_383, 16_384, 1 << 31, (1 << 64) - 1])
def test_varint(value):
    assert varint(value) == _VarintBytes(value)


def test_fields_of_any_length():
    for length in (0, 1, 127, 128, 20_000):
        assert DiscoveryResponse.FromString(text(4, "ü" * length)).type_url == "ü" * length
        assert DiscoveryResponse.FromString(data(5, b"x" * length, b"y")).nonce == "x" * length + "y"


@pytest.mark.rule("XP-73", "XP-76", "XP-62", "XP-187")
@pytest.mark.parametrize("count", [0, 1, 3])
def test_bodies_equal_what_protobuf_writes(count):
    resources = [resource(CLUSTER, f"c{number}-ü", "x" * 300 * number) for number in range(count)]
    sotw = DiscoveryResponse(type_url=CLUSTER)
    sotw.control_plane.identifier = IDENTIFIER
    delta = DeltaDiscoveryResponse(type_url=CLUSTER, removed_resources=["gone", "ü"])
    delta.control_plane.identifier = IDENTIFIER
    for each in resources:
        sotw.resources.add(type_url=CLUSTER, value=each.body)
        added = delta.resources.add(name=each.name, version=each.version)
        added.resource.type_url, added.resource.value = CLUSTER, each.body
    assert DiscoveryResponse.FromString(sotw_body(IDENTIFIER.encode(), CLUSTER, resources)) == sotw
    body = delta_body(IDENTIFIER.encode(), CLUSTER, resources, ("gone", "ü"))
    assert DeltaDiscoveryResponse.FromString(body) == delta


@pytest.mark.rule("XP-132")
@pytest.mark.parametrize("content", ["", "x" * 100, "x" * 70_000, "x" * 3_000_000])
def test_the_estimated_size_is_never_too_small(content):
    for name in ("a", "ü" * 1000, "n" * 4096):
        each = resource(CLUSTER, name, content)
        empty = len(delta_body(b"i", CLUSTER, [], ()))
        assert len(delta_body(b"i", CLUSTER, [each], ())) - empty <= cost(each)


@pytest.mark.rule("XP-88")
def test_endpoints_for_a_cluster_that_is_gone():
    assert name_and_content(ENDPOINT, empty_endpoints("gone-ü").body) == ("gone-ü", "")
    assert empty_endpoints("gone").version == resource(ENDPOINT, "gone", "").version


@pytest.mark.rule("XP-127", "XP-187")
def test_streams_with_the_same_difference_share_one_body():
    cache, resources = BodyCache(), [resource(CLUSTER, "a", "1"), resource(CLUSTER, "b", "1")]
    first = cache.delta(b"i", CLUSTER, resources, ["gone"])
    assert cache.delta(b"i", CLUSTER, resources, ["gone"]) is first
    assert cache.delta(b"i", CLUSTER, resources, []) is not first
    assert cache.sotw(b"i", CLUSTER, resources) is not first
    assert cache.sotw(b"i", CLUSTER, resources) is cache.sotw(b"i", CLUSTER, resources)


def test_the_cache_is_bounded_by_bytes():
    cache = BodyCache(max_bytes=4000)
    for number in range(100):
        cache.sotw(b"i", CLUSTER, [resource(CLUSTER, f"c{number}", "x" * 500)])
    assert len(cache._entries) < 8
    assert cache._bytes <= 4000
    assert cache._bytes == sum(len(body) for body, _ in cache._entries.values())
    large = [resource(CLUSTER, "large", "x" * 5000)]
    assert cache.sotw(b"i", CLUSTER, large) is not cache.sotw(b"i", CLUSTER, large)


@pytest.mark.rule("XP-183")
def test_what_this_server_does_not_know_passes_unchanged():
    newer = XdsResource(CLUSTER, "a", text(1, "a") + text(5000, "a field of a newer Envoy"))
    sotw = DiscoveryResponse.FromString(sotw_body(b"i", CLUSTER, [newer]))
    delta = DeltaDiscoveryResponse.FromString(delta_body(b"i", CLUSTER, [newer], ()))
    assert sotw.resources[0].value == delta.resources[0].resource.value == newer.body


@pytest.mark.rule("XP-180")
def test_a_resource_does_not_follow_the_message_it_was_made_of():
    message = Cluster(name="a", alt_stat_name="1")
    made = XdsResource.of(CLUSTER, "a", message)
    body, version = made.body, made.version
    message.alt_stat_name = "2"
    assert (made.body, made.version) == (body, version)


@pytest.mark.rule("XP-130", "XP-132")
def test_envoy_gets_a_complete_answer_of_any_size():
    node, stream = Node(), Stream(Variant.SOTW, identifier="i", nonces=iter("123").__next__, bodies=BodyCache())
    for number in range(12):
        node.put(resource(CLUSTER, f"c{number}", "x" * 1_000_000))
    stream.attach(node)
    stream.receive(SotwRequest(CLUSTER), 0)
    response = stream.next_response(0)
    assert response.size > 12_000_000
    assert len(DiscoveryResponse.FromString(response.message()).resources) == 12

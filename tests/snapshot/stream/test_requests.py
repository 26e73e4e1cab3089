"""Requests: from protobuf to values, and the bounds of what one client may ask for."""

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

from snapshot.cache.snapshot import Changes
from snapshot.cache.type_url import CLUSTER, ENDPOINT
from snapshot.stream import (
    BodyCache,
    Close,
    DeltaRequest,
    Limits,
    Nack,
    SotwRequest,
    StatusCode,
    Stream,
    UnknownType,
    Variant,
    decode_delta,
    decode_sotw,
)
from snapshot.stream.limits import MAX_UNKNOWN_TYPES
from tests.support.conversation import IDENTIFIER, Node, resource


def stream_of(variant: Variant, **limits) -> Stream:
    return Stream(
        variant, identifier=IDENTIFIER, nonces=iter("123456789").__next__, bodies=BodyCache(), limits=Limits(**limits)
    )


def receive(request: SotwRequest | DeltaRequest, **limits) -> tuple:
    variant = Variant.SOTW if isinstance(request, SotwRequest) else Variant.DELTA
    stream = stream_of(variant, **limits)
    effects = stream.receive(request, 0.0)
    stream.check_invariants()
    return effects


@pytest.mark.rule("XP-116")
def test_decode_sotw():
    message = DiscoveryRequest(type_url=CLUSTER, version_info="v", response_nonce="7", resource_names=["a", "b"])
    message.resource_locators.add(name="located").dynamic_parameters["k"] = "v"
    assert decode_sotw(message) == SotwRequest(CLUSTER, ("a", "b", "located"), "v", "7")
    message.error_detail.code, message.error_detail.message = 13, "why"
    assert decode_sotw(message).error == Nack(13, "why")


@pytest.mark.rule("XP-116")
def test_decode_delta():
    message = DeltaDiscoveryRequest(
        type_url=CLUSTER,
        response_nonce="7",
        resource_names_subscribe=["a"],
        resource_names_unsubscribe=["b"],
        initial_resource_versions={"a": "1"},
    )
    message.resource_locators_subscribe.add(name="in")
    message.resource_locators_unsubscribe.add(name="out")
    assert decode_delta(message) == DeltaRequest(CLUSTER, ("a", "in"), ("b", "out"), {"a": "1"}, "7")
    message.error_detail.message = ""
    assert decode_delta(message).error == Nack(0, ""), "an empty error_detail is a NACK as well"


@pytest.mark.rule("XP-157", "XP-156")
def test_names_stay_as_they_were_written():
    names = ("xdstp://A/Type/x?b=1&a=%20", "Ü|:/ %", "", "a" * 4096)
    assert decode_sotw(DiscoveryRequest(resource_names=names)).names == names
    assert decode_delta(DeltaDiscoveryRequest(resource_names_subscribe=names)).subscribe == names


@pytest.mark.rule("XP-62", "XP-63")
def test_system_version_is_the_same_where_the_client_holds_the_same():
    def version_after(*contents: str) -> str:
        node, stream = Node(), stream_of(Variant.DELTA)
        stream.attach(node)
        stream.receive(DeltaRequest(CLUSTER), 0)
        for content in contents:
            node.put(resource(CLUSTER, content[0], content))
            stream.published(Changes({CLUSTER: frozenset({content[0]})}), 0)
            response = stream.next_response(0)
            stream.receive(DeltaRequest(CLUSTER, nonce=response.nonce), 0)
        return response.version

    assert version_after("a1", "b1") == version_after("b1", "a2", "a1") != version_after("a2", "b1")


CASES = [
    (SotwRequest(ENDPOINT, tuple(map(str, range(6)))), {"names": 5}, "RESOURCE_EXHAUSTED", "resource_names: 6 names"),
    (DeltaRequest(ENDPOINT, tuple("abcdef")), {"names": 5}, "RESOURCE_EXHAUSTED", "resource_names_subscribe: 6 names"),
    (DeltaRequest(ENDPOINT, (), tuple("abcdef")), {"names": 5}, "RESOURCE_EXHAUSTED", "resource_names_unsubscribe: 6"),
    (SotwRequest(ENDPOINT, ("x" * 4097,)), {}, "INVALID_ARGUMENT", "has 4097 characters, at most 4096"),
    (DeltaRequest(ENDPOINT, ("x" * 4097,)), {}, "INVALID_ARGUMENT", "has 4097 characters, at most 4096"),
    (SotwRequest(ENDPOINT, ("xxx", "yyy")), {"names_bytes": 5}, "RESOURCE_EXHAUSTED", "names of this stream: 6 char"),
    (
        DeltaRequest(ENDPOINT, initial_versions=dict.fromkeys("abc", "1")),
        {"initial_versions": 2},
        "RESOURCE_EXHAUSTED",
        "initial_resource_versions: 3 names, at most 2 are served",
    ),
    (
        DeltaRequest(ENDPOINT, initial_versions={"abc": "123"}),
        {"initial_versions_bytes": 5},
        "RESOURCE_EXHAUSTED",
        "initial_resource_versions: 6 characters, at most 5",
    ),
]


@pytest.mark.rule("XP-156")
@pytest.mark.parametrize(("request_", "limits", "code", "message"), CASES)
def test_too_much_is_refused_by_name(request_, limits, code, message):
    *_, close = receive(request_, **limits)
    assert isinstance(close, Close)
    assert close.code is StatusCode(code)
    assert message in close.message


@pytest.mark.rule("XP-156", "XP-129")
def test_as_much_as_allowed_is_served():
    names = tuple(f"{number:04}".ljust(100, "ü") for number in range(20_000))
    assert receive(SotwRequest(ENDPOINT, names)) == ()
    assert receive(DeltaRequest(ENDPOINT, ("x" * 4096,))) == ()
    assert receive(DeltaRequest(CLUSTER, initial_versions=dict.fromkeys(names, "0123456789abcdef"))) == ()


def test_names_of_many_messages_add_up_and_are_given_back():
    stream = stream_of(Variant.DELTA, names_bytes=10)
    for _ in range(5):
        assert stream.receive(DeltaRequest(ENDPOINT, ("12345678",)), 0) == ()
        assert stream.receive(DeltaRequest(ENDPOINT, (), ("12345678",)), 0) == ()
    assert stream.receive(DeltaRequest(ENDPOINT, ("12345678",)), 0) == ()
    assert [type(effect) for effect in stream.receive(DeltaRequest(CLUSTER, ("abc",)), 0)] == [Close]
    assert stream.receive(DeltaRequest(CLUSTER), 0) == (), "a closed stream says no more"
    stream.check_invariants()


@pytest.mark.rule("XP-111")
@pytest.mark.parametrize("request_", [SotwRequest, DeltaRequest])
def test_unknown_types_are_bounded(request_):
    stream = stream_of(Variant.SOTW if request_ is SotwRequest else Variant.DELTA)
    for number in range(MAX_UNKNOWN_TYPES):
        assert stream.receive(request_(f"type/{number}"), 0) == (UnknownType(f"type/{number}"),)
    (close,) = stream.receive(request_("one/more"), 0)
    assert close.code is StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.rule("XP-58")
def test_a_complaint_is_cut_to_4_kb():

    stream = stream_of(Variant.SOTW)
    stream.attach(Node())
    stream.receive(SotwRequest(CLUSTER), 0)
    response = stream.next_response(1)
    (nacked,) = stream.receive(SotwRequest(CLUSTER, nonce=response.nonce, error=Nack(3, "ü" * 9000)), 2)
    record = stream.status()[CLUSTER].nack
    assert nacked.detail == record.detail == "ü" * 2048
    assert (record.time_s, record.nonce, record.version) == (2, response.nonce, response.version)


def test_a_request_of_the_other_variant_is_a_mistake_of_ours():
    stream = stream_of(Variant.SOTW)
    stream.receive(SotwRequest(CLUSTER), 0)
    with pytest.raises(TypeError, match="delta request"):
        stream.receive(DeltaRequest(CLUSTER), 0)

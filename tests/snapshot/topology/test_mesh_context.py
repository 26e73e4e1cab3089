"""What a mesh offers (R §1.2, X §3.3 no. 4, X §4.1, X §4.3, X §4.6)."""

from __future__ import annotations

import itertools

import pytest

from snapshot.model.dataplane import Dataplane, Inbound
from snapshot.model.tags import NO_TAGS, Tags
from snapshot.topology.mesh_context import (
    MeshContext,
    Names,
    common_protocol,
    contribution,
    domain_names,
    is_ip,
    protocol_of,
)
from snapshot.topology.proxy import Endpoint, EndpointSelector, Protocol
from tests.support.worlds import dataplane, inbound, tags

GRPC, HTTP2, HTTP, KAFKA, TCP, UNKNOWN = (
    Protocol.GRPC,
    Protocol.HTTP2,
    Protocol.HTTP,
    Protocol.KAFKA,
    Protocol.TCP,
    Protocol.UNKNOWN,
)
NOTHING_KNOWN = Names({}, {})


def dialled(spec, names=NOTHING_KNOWN):
    return [(endpoint.address, endpoint.port) for endpoint in contribution(spec, names).endpoints]


@pytest.mark.parametrize(
    ("spoken", "common"),
    [
        ((), None),
        *(((protocol,), protocol) for protocol in Protocol),
        ((GRPC, HTTP2), HTTP2),
        ((HTTP, HTTP2), TCP),
        ((GRPC, HTTP), TCP),
        ((KAFKA, HTTP), TCP),
        ((KAFKA, TCP), TCP),
        ((GRPC, HTTP2, TCP), TCP),
        ((HTTP, HTTP, HTTP), HTTP),
        ((HTTP, UNKNOWN), UNKNOWN),
        ((TCP, UNKNOWN), UNKNOWN),
    ],
)
def test_the_common_protocol_is_the_first_that_all_stacks_hold_in_any_order(spoken, common):
    assert {common_protocol(order) for order in itertools.permutations(spoken)} == {common}


@pytest.mark.parametrize(
    ("tag", "protocol"),
    [("http", HTTP), ("HTTP", HTTP), ("Grpc", GRPC), ("", UNKNOWN), ("smtp", UNKNOWN), ("<unknown>", UNKNOWN)],
)
def test_the_protocol_tag_is_read_in_any_case_of_letters(tag, protocol):
    assert protocol_of(Tags({"kuma.io/protocol": tag})) is protocol
    assert protocol_of(NO_TAGS) is UNKNOWN


@pytest.mark.parametrize(
    ("advertised", "own", "expected"),
    [
        ("", "", "10.0.0.1"),
        ("", "10.0.0.9", "10.0.0.9"),
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "10.0.0.9", "192.0.2.1"),
    ],
)
def test_peers_dial_the_advertised_address_else_the_inbounds_else_the_proxys(advertised, own, expected):
    spec = dataplane("10.0.0.1", Inbound(port=80, address=own, tags=tags("web")), advertised=advertised)
    assert dialled(spec) == [(expected, 80)]


@pytest.mark.parametrize(("ready", "counts"), [(None, True), (True, True), (False, False)])
def test_an_inbound_counts_unless_it_is_said_not_to_be_ready(ready, counts):
    assert bool(dialled(dataplane("10.0.0.1", inbound("web", ready=ready)))) is counts


def test_endpoints_carry_the_inbounds_tags_and_weigh_one():
    spec = dataplane("10.0.0.1", inbound("web", "http", version="v1"))
    assert contribution(spec, NOTHING_KNOWN).endpoints == (
        Endpoint(address="10.0.0.1", port=8000, tags=tags("web", "http", version="v1"), weight=1),
    )


def test_the_port_of_the_serviceless_is_an_endpoint_as_in_kuma():
    assert dialled(dataplane("10.0.0.1", inbound("web", port=49151))) == [("10.0.0.1", 49151)]


def test_a_gateway_offers_nothing():
    assert dialled(dataplane("10.0.0.1", gateway=tags("edge"))) == []


def test_names_are_those_of_the_two_addresses_each_once():
    assert domain_names(dataplane("a.test", advertised="b.test")) == ("a.test", "b.test")
    assert domain_names(dataplane("a.test", advertised="a.test")) == ("a.test",)
    assert domain_names(dataplane("10.0.0.1", advertised="fd00::1")) == ()
    assert domain_names(Dataplane()) == ()
    assert [is_ip(text) for text in ("10.0.0.1", "::1", "a.test", "10.0.0", "")] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("address", "advertised", "names", "own", "expected", "problem"),
    [
        ("a.test", "", Names({"a.test": "10.1.0.1"}, {}), "10.1.0.1", ["10.1.0.1"], ""),
        ("10.0.0.1", "a.test", Names({"a.test": "10.1.0.1"}, {}), "10.0.0.1", ["10.1.0.1"], ""),
        ("a.test", "", NOTHING_KNOWN, None, [], 'networking.address: the name "a.test" has not been resolved yet'),
        ("a.test", "", Names({}, {"a.test": "NXDOMAIN"}), None, [], '"a.test" has not been resolved: NXDOMAIN;'),
        ("a.test", "192.0.2.1", NOTHING_KNOWN, None, [], "networking.address: "),
        ("10.0.0.1", "a.test", NOTHING_KNOWN, "10.0.0.1", [], "networking.advertisedAddress: "),
        (
            "a.test",
            "",
            Names({"a.test": "10.1.0.1"}, {"a.test": "SERVFAIL"}),
            "10.1.0.1",
            ["10.1.0.1"],
            "no longer resolves: SERVFAIL; its last address 10.1.0.1 stays",
        ),
        ("a.test", "", Names({"a.test": "b.test"}, {}), None, [], 'was resolved to "b.test", which is no IP address'),
        ("a.test", "", Names({"a.test": "fe80::1%eth0"}, {}), None, [], '"fe80::1%eth0", which is no IP address'),
        ("", "", NOTHING_KNOWN, None, [], "networking.address: has to be set"),
    ],
)
def test_a_name_stands_for_its_last_answer_and_without_one_the_proxy_offers_nothing(
    address, advertised, names, own, expected, problem
):
    found = contribution(dataplane(address, inbound("web"), advertised=advertised), names)
    assert found.address == own
    assert [endpoint.address for endpoint in found.endpoints] == expected
    assert problem in "".join(found.problems)
    assert bool(found.problems) is bool(problem)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (Inbound(port=80), 'networking.inbound[1].tags: must have the tag "kuma.io/service"'),
        (Inbound(port=0, tags=tags("web")), "networking.inbound[1].port: 0 is not between 1 and 65535"),
        (Inbound(port=65536, tags=tags("web")), "networking.inbound[1].port: 65536 is not"),
        (Inbound(port=80, address="x.test", tags=tags("web")), 'networking.inbound[1].address: "x.test" is no IP'),
    ],
)
def test_an_inbound_that_envoy_would_reject_is_left_out_and_reported(bad, problem):
    found = contribution(dataplane("10.0.0.1", inbound("web"), bad), NOTHING_KNOWN)
    assert [endpoint.port for endpoint in found.endpoints] == [8000]
    assert problem in "".join(found.problems)


def test_a_dataplane_without_networking_offers_nothing_and_says_so():
    assert contribution(Dataplane(), NOTHING_KNOWN) == (None, (), ("networking: has to be defined",))


def test_a_mesh_context_holds_all_reachable_endpoints_by_service_and_tags():
    context = MeshContext(
        {
            "a": dataplane("10.0.0.1", inbound("web", "grpc", version="v1"), inbound("api", port=81)),
            "b": dataplane("10.0.0.2", inbound("web", "http2", version="v2")),
            "gone": dataplane("10.0.0.3", inbound("web", "tcp", version="v1")),
        },
        NOTHING_KNOWN,
        unreachable={"gone"},
    )
    assert context.services == {"web", "api"}
    assert [e.address for e in context.endpoints(EndpointSelector("web"))] == ["10.0.0.1", "10.0.0.2"]
    assert [e.address for e in context.endpoints(EndpointSelector("web", Tags({"version": "v2"})))] == ["10.0.0.2"]
    assert context.endpoints(EndpointSelector("web", Tags({"version": "*"}))) == ()
    assert context.endpoints(EndpointSelector("nobody")) == ()
    assert (context.protocol("web"), context.protocol("api"), context.protocol("nobody")) == (HTTP2, UNKNOWN, None)
    assert context.contributions["gone"].address == "10.0.0.3"

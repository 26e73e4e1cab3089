"""Node metadata that makes no sense, `dataplane.resource` above all: the stream ends with what is wrong with it."""

from __future__ import annotations

import json

import pytest
from envoy.config.core.v3.base_pb2 import Node
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

from snapshot.cache.type_url import CLUSTER
from tests.support.running import dataplane
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, node

WHERE = "node metadata dataplane.resource: "
NAME = "carried"
GOOD = dataplane(NAME, "carried")


def with_networking(**networking):
    return json.dumps({**GOOD, "networking": {**GOOD["networking"], **networking}})


RESOURCES = {
    "not JSON": ("{{{", WHERE + "not JSON: "),
    "YAML": ("type: Dataplane\n", WHERE + "not JSON: "),
    "an empty object": ("{}", WHERE + "type: must be a string that is not empty"),
    "an array": ("[]", WHERE + "must be a JSON object with the fields type, mesh, name and networking"),
    "a number": ("1", WHERE + "must be a JSON object with the fields type, mesh, name and networking"),
    "NaN": ("NaN", WHERE),
    "no networking": (json.dumps({**GOOD, "networking": None}), WHERE + "networking: has to be defined"),
    "a list of inbounds that is none": (with_networking(inbound={"port": 1}), WHERE + "networking.inbound"),
    "a port of words": (with_networking(inbound=[{"port": "eighty"}]), WHERE + "networking.inbound[0].port"),
    "a port beyond 32 bits": (with_networking(inbound=[{"port": 1 << 40}]), WHERE + "networking.inbound[0].port"),
    "tags that are a list": (with_networking(inbound=[{"tags": ["a"]}]), WHERE + "networking.inbound[0].tags"),
    "a name that is a number": (json.dumps({**GOOD, "name": 7}), WHERE + "name: must be a string that is not empty"),
    "another type": (
        json.dumps({"type": "Retry", "mesh": "default", "name": NAME, "conf": {}}),
        WHERE + "type: must be Dataplane, got 'Retry'",
    ),
    "a zone ingress": (json.dumps({"type": "ZoneIngress", "name": NAME}), WHERE),
    "1 MB of text": ("x" * (1 << 20), WHERE + "not JSON: "),
    "10,000 brackets": ("[" * 10_000, WHERE + "not JSON: "),
    "10,000 nested objects": ('{"a":' * 10_000 + "1" + "}" * 10_000, WHERE + "not JSON: "),
    "nesting below a field": (
        json.dumps({**GOOD, "networking": "N"}).replace('"N"', '{"a":' * 900 + "1" + "}" * 900),
        "could not register dataplane passed in kuma-dp run: ",
    ),
    "a surrogate": (with_networking(address="\ud800"), ""),
    "no address": (
        with_networking(address=""),
        "could not register dataplane passed in kuma-dp run: networking.address",
    ),
    "one port twice": (
        with_networking(inbound=[{"port": 80, "tags": {"kuma.io/service": "a"}}] * 2),
        "could not register dataplane passed in kuma-dp run: networking.inbound[1].port: ",
    ),
    "another name": (json.dumps({**GOOD, "name": "x"}), "authentication failed: the Dataplane in the node metadata is"),
}


@pytest.mark.parametrize("method", [DELTA_METHOD, SOTW_METHOD])
@pytest.mark.parametrize("case", RESOURCES)
async def test_a_dataplane_that_is_none_ends_its_stream(plane, open_stream, method, case):
    text, said = RESOURCES[case]
    stream = open_stream(method, plane.token())
    await stream.send(node=node(f"default.{NAME}", {"dataplane.resource": text}), type_url=CLUSTER)
    code, details = await stream.ended()
    assert code in {"INVALID_ARGUMENT", "PERMISSION_DENIED"}, details
    assert details.startswith(said), details
    assert len(details) < 4096
    assert plane.rest.get(f"/meshes/default/dataplanes/{NAME}").status_code == 404


@pytest.mark.parametrize("method", [DELTA_METHOD, SOTW_METHOD])
async def test_invalid_utf_8_ends_its_stream(plane, open_stream, method):
    placeholder = "\x01" * 7
    kind = DeltaDiscoveryRequest if method == DELTA_METHOD else DiscoveryRequest
    for field in (
        kind(node=node(f"default.{placeholder}"), type_url=CLUSTER),
        kind(node=node("default.x", {"dataplane.resource": placeholder}), type_url=CLUSTER),
        kind(node=Node(id="default.x"), type_url=placeholder),
    ):
        stream = open_stream(method, plane.token())
        await stream.raw(field.SerializeToString().replace(placeholder.encode(), b"\xff\xfe\xfd\xc0\x80\xf5\xff"))
        code, details = await stream.ended()
        assert code == "INVALID_ARGUMENT", details
        assert details.startswith(f"the request is not a {kind.__name__}: "), details


@pytest.mark.parametrize(
    ("node_id", "metadata", "said"),
    [
        ("", {}, "request must have a valid Proxy ID: Envoy ID must not be nil"),
        ("default", {}, "request must have a valid Proxy ID: the name should be provided after the dot"),
        ("default.", {}, "request must have a valid Proxy ID: name must not be empty"),
        ("d" * 5000, {}, "request must have a valid Proxy ID: the id has 5000 characters, at most 1024 are allowed"),
        ("default.x", {"dataplane.proxyType": "ingress"}, 'unsupported proxy type "ingress"'),
        ("default.x", {"dataplane.proxyType": 1}, "node metadata dataplane.proxyType: must be a string"),
        ("default.x", {"dataplane.resource": {"a": 1}}, "node metadata dataplane.resource: must be a string"),
        (
            "default.x",
            {"dataplane.admin.port": "1e3"},
            'node metadata dataplane.admin.port: must be a decimal number, such as "9901"',
        ),
        ("default.x", {"dataplane.admin.port": 70_000}, "node metadata dataplane.admin.port: must be at most 65535"),
        ("default.x", {"version": "1"}, "node metadata version: must be an object"),
    ],
)
async def test_a_node_that_makes_no_sense_ends_its_stream(plane, open_stream, node_id, metadata, said):
    stream = open_stream(DELTA_METHOD, plane.token())
    await stream.send(node=node(node_id, metadata), type_url=CLUSTER)
    assert await stream.ended() == ("INVALID_ARGUMENT", said)


@pytest.mark.parametrize("method", [DELTA_METHOD, SOTW_METHOD])
async def test_an_unknown_mesh_is_named(plane, open_stream, method):
    elsewhere = {**GOOD, "mesh": "nowhere"}
    stream = open_stream(method, plane.token(mesh="default"))
    metadata = {"dataplane.resource": json.dumps(elsewhere)}
    await stream.send(node=node(f"nowhere.{NAME}", metadata), type_url=CLUSTER)
    code, details = await stream.ended()
    assert code == "UNAUTHENTICATED"
    assert '"dataplane-token-signing-key-nowhere-1" in mesh "nowhere" is not found' in details

"""What is not a resource, from every door it may come in by: REST, kumactl, kuma-dp and its bootstrap."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
import yaml

from tests.support.running import dataplane, eventually

JSON, YAML = "application/json", "application/yaml"
WRONG = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "wrong",
    "networking": {
        "address": "not an address!",
        "inbound": [
            {"port": 0, "tags": {}},
            {"port": 70_000, "tags": {"kuma.io/service": "a", "kuma.io/protocol": "foo"}},
        ],
        "outbound": [{"port": 0, "tags": {}}],
    },
}
CAUSES = [
    ("networking.address", "address has to be valid IP address or domain name"),
    ("networking.inbound[0].port", "port must be in the range [1, 65535]"),
    ('networking.inbound[0].tags["kuma.io/service"]', "tag has to exist"),
    ("networking.inbound[1].port", "port must be in the range [1, 65535]"),
    (
        'networking.inbound[1].tags["kuma.io/protocol"]',
        'tag "kuma.io/protocol" has an invalid value "foo". Allowed values: grpc, http, http2, kafka, tcp',
    ),
    ("networking.outbound[0].port", "port must be in the range [1, 65535]"),
    ("networking.outbound[0].tags", 'mandatory tag "kuma.io/service" is missing'),
]
TWICE = dataplane(
    "twice",
    inbound=[
        {"port": 8080, "tags": {"kuma.io/service": "a"}},
        {"port": 8080, "tags": {"kuma.io/service": "b"}},
    ],
)
TWICE_CAUSE = (
    "networking.inbound[1].port",
    "127.0.0.1:8080 is already taken by networking.inbound[0]; each listener needs a place of its own",
)
ELSEWHERE = {**dataplane("lost", "a"), "mesh": "nowhere"}


def fields_of(response):
    return [(cause["field"], cause["message"]) for cause in response.json()["causes"]]


@pytest.mark.parametrize(
    ("media", "body", "said"),
    [
        (JSON, b'{"type": "Dataplane", ', "is not JSON: Input data was truncated"),
        (JSON, b"\xff\xfe", "is not JSON: JSON is malformed: invalid character (byte 0)"),
        (JSON, b"[" * 10_000, "is not JSON: maximum recursion depth exceeded while deserializing an object"),
        (JSON, b"[1]", "must be an object"),
        (JSON, b"null", "must be an object"),
        (YAML, b"a: [1\nb: }", "is not YAML: while parsing a flow sequence"),
        (YAML, b"a: &a [1]\nb: *a", "is not YAML: aliases (*name) are not allowed here; write the value out"),
        (YAML, b"\xff", "is not YAML: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (YAML, b"[" * 10_000, "is not YAML: while increasing flow level"),
        (YAML, b"- " * 10_000, "is not YAML: "),
        (YAML, b"[" * 900 + b"]" * 900, "must be an object"),
    ],
)
def test_what_cannot_be_parsed_is_400_at_the_rest_api(plane, media, body, said):
    response = plane.rest.put("/meshes/default/dataplanes/x", content=body, headers={"content-type": media})
    assert response.status_code == 400
    assert response.json()["title"] == "Could not process a resource"
    ((field, message),) = fields_of(response)
    assert field == "body"
    assert message.startswith(said), message


@pytest.mark.parametrize("text", ["a: [1\nb: }", '{"a": ', "a: b: c", "\tx", "- 1\nb: 2"])
async def test_what_cannot_be_parsed_is_refused_by_the_commands(plane, text):
    applied = await asyncio.to_thread(plane.kumactl, "apply", "-f", "-", stdin=text)
    assert applied.returncode == 1
    assert applied.stderr.startswith("Error: nothing was applied:\n* stdin: not valid YAML: "), applied.stderr
    started = plane.kuma_dp("malformed", text, plane.token())
    await eventually(lambda: not started.running, "kuma-dp giving up")
    assert f"Error: --dataplane-file {plane.directory}/malformed.yaml: not valid YAML: " in started.tail(1)
    assert started.stop() == 1
    started.log.unlink()


def bootstrap(plane, document, **fields) -> httpx.Response:
    body = {"mesh": document["mesh"], "name": document["name"], "dataplaneToken": plane.token(), **fields}
    body.setdefault("dataplaneResource", json.dumps(document))
    return httpx.post(f"{plane.url}/bootstrap", json=body, verify=False)  # noqa: S501  # the trust is tested elsewhere


async def test_every_violation_comes_back_at_once_by_every_door(plane):
    response = plane.rest.put("/meshes/default/dataplanes/wrong", json=WRONG)
    assert (response.status_code, fields_of(response)) == (400, CAUSES)
    applied = await asyncio.to_thread(plane.kumactl, "apply", "-f", "-", stdin=yaml.safe_dump(WRONG))
    assert applied.returncode == 1
    assert [line for line in applied.stderr.splitlines() if line.startswith("* ")] == [
        f"* {field}: {message}" for field, message in CAUSES
    ]
    one_line = "; ".join(f"{field}: {message}" for field, message in CAUSES)
    answer = bootstrap(plane, WRONG)
    assert (answer.status_code, answer.text) == (422, one_line)
    started = plane.kuma_dp("violations", yaml.safe_dump(WRONG), plane.token())
    await eventually(lambda: not started.running, "kuma-dp giving up")
    assert one_line in started.tail(1)
    assert plane.rest.get("/meshes/default/dataplanes/wrong").status_code == 404, "nothing of it was stored"


async def test_two_inbounds_of_one_port_are_refused_by_every_door(plane):
    field, message = TWICE_CAUSE
    response = plane.rest.put("/meshes/default/dataplanes/twice", json=TWICE)
    assert (response.status_code, fields_of(response)) == (400, [TWICE_CAUSE])
    applied = await asyncio.to_thread(plane.kumactl, "apply", "-f", "-", stdin=yaml.safe_dump(TWICE))
    assert applied.returncode == 1
    assert f"* {field}: {message}" in applied.stderr
    answer = bootstrap(plane, TWICE)
    assert (answer.status_code, answer.text) == (422, f"{field}: {message}")


async def test_an_unknown_mesh_is_named_by_every_door(plane):
    response = plane.rest.put("/meshes/nowhere/dataplanes/lost", json=ELSEWHERE)
    assert (response.status_code, fields_of(response)) == (400, [("mesh", "mesh of name nowhere is not found")])
    applied = await asyncio.to_thread(plane.kumactl, "apply", "-f", "-", stdin=yaml.safe_dump(ELSEWHERE))
    assert applied.returncode == 1
    assert "* mesh: mesh of name nowhere is not found" in applied.stderr
    answer = bootstrap(plane, ELSEWHERE)
    assert (answer.status_code, answer.text) == (422, 'mesh: mesh "nowhere" does not exist')
    started = plane.kuma_dp("lost", yaml.safe_dump(ELSEWHERE), plane.token())
    await eventually(lambda: not started.running, "kuma-dp giving up")
    assert 'mesh: mesh "nowhere" does not exist' in started.tail(1)


def test_a_body_beyond_the_limit_is_413(plane):
    large = b'{"a": "' + b"x" * (4 << 20) + b'"}'
    response = plane.rest.put("/meshes/default/dataplanes/x", content=large, headers={"content-type": JSON})
    assert response.status_code == 413
    assert fields_of(response) == [("body", "must not exceed 4194304 bytes (apiServer.bodyLimit)")]
    answer = httpx.post(f"{plane.url}/bootstrap", content=large, verify=False)  # noqa: S501  # as above
    assert (answer.status_code, answer.text) == (413, "the request must not exceed 4194304 bytes")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 10_000, b'{"mesh": 1}', b'{"dnsPort": 70000}'])
def test_a_bootstrap_request_that_is_none_is_400(plane, body):
    answer = httpx.post(f"{plane.url}/bootstrap", content=body, verify=False)  # noqa: S501  # as above
    assert (answer.status_code, answer.text) == (400, "")


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        ("{", "dataplaneResource: is not JSON: "),
        ("[]", "dataplaneResource: "),
        ("{}", "type: None is not the type of a dataplane proxy: Dataplane"),
        ("[" * 10_000, "dataplaneResource: is not JSON: "),
        (
            '{"type": "Retry", "mesh": "default", "name": "x"}',
            "type: Retry is not the type of a dataplane proxy: Dataplane",
        ),
    ],
)
def test_a_bootstrap_with_a_dataplane_that_is_none_is_422(plane, resource, said):
    answer = bootstrap(plane, {"mesh": "default", "name": "x"}, dataplaneResource=resource)
    assert answer.status_code == 422, answer.text
    assert answer.text.startswith(said), answer.text

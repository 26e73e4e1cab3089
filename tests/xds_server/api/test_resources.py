from __future__ import annotations

import json
import re

import pytest

from snapshot.model.kinds import Scope
from snapshot.model.meta import ResourceKey
from snapshot.registry import TYPES
from xds_server.api import later
from xds_server.store.contract import Put, StoreUnavailable

ALL = [{"match": {"kuma.io/service": "*"}}]
BOTH = {"sources": ALL, "destinations": ALL}
GATEWAY = {"networking": {"address": "192.168.0.1", "gateway": {"tags": {"kuma.io/service": "edge"}}}}
SPECS = {
    "Mesh": {},
    "Dataplane": GATEWAY,
    "CircuitBreaker": {**BOTH, "conf": {"detectors": {"totalErrors": {}}}},
    "Retry": {**BOTH, "conf": {"tcp": {"maxConnectAttempts": 3}}},
    "Timeout": {**BOTH, "conf": {"connectTimeout": "7s"}},
    "TrafficPermission": BOTH,
    "TrafficRoute": {**BOTH, "conf": {"destination": {"kuma.io/service": "*"}}},
    "Secret": {"data": "eA=="},
    "GlobalSecret": {"data": "eA=="},
}
WRITABLE = [TYPES[name] for name in SPECS]


def url(one, name, mesh="default"):
    return f"/{one.path}/{name}" if one.scope is Scope.GLOBAL else f"/meshes/{mesh}/{one.path}/{name}"


def document(type_name, name, mesh="default", **changes):
    meta = {"type": type_name, "name": name}
    if TYPES[type_name].scope is Scope.MESH:
        meta["mesh"] = mesh
    return {**meta, **SPECS[type_name], **changes}


async def put(client, type_name, name, mesh="default", **changes):
    return await client.put(url(TYPES[type_name], name, mesh), json=document(type_name, name, mesh, **changes))


def test_every_type_of_the_registry_is_covered():
    assert set(SPECS) == {name for name, one in TYPES.items() if not one.read_only}


@pytest.mark.parametrize("one", WRITABLE, ids=lambda one: one.name)
async def test_create_replace_get_list_delete(operator, one):
    created = await put(operator, one.name, "x1")
    assert (created.status_code, created.content) == (201, b""), created.text
    assert (await put(operator, one.name, "x1")).status_code == 200
    got = await operator.get(url(one, "x1"))
    assert got.status_code == 200
    assert got.headers["content-type"] == "application/json"
    body = got.json()
    meta = ["type", "mesh", "name", "creationTime", "modificationTime"]
    assert list(body)[: len(meta)] == meta if one.scope is Scope.MESH else [key for key in meta if key != "mesh"]
    assert {key: body[key] for key in SPECS[one.name]} == SPECS[one.name]
    assert got.text == json.dumps(body, indent=1, ensure_ascii=False) + "\n"
    lists = [f"/{one.path}", f"/meshes/default/{one.path}"] if one.scope is Scope.MESH else [f"/{one.path}"]
    for path in lists:
        listed = (await operator.get(path)).json()
        assert "x1" in [item["name"] for item in listed["items"]]
        assert listed["total"] == len(listed["items"])
        assert listed["next"] is None
    deleted = await operator.delete(url(one, "x1"))
    assert (deleted.status_code, deleted.content) == (200, b"")
    for response in (await operator.get(url(one, "x1")), await operator.delete(url(one, "x1"))):
        assert response.status_code == 404
        assert response.json()["details"] == "Not found"


TITLE = "Could not process a resource"


@pytest.mark.parametrize(
    ("changes", "causes"),
    [
        ({"name": "b"}, [("name", "name from the URL has to be the same as in body")]),
        ({"type": "Mesh"}, [("type", "type from the URL has to be the same as in body")]),
        ({"mesh": "m2"}, [("mesh", "mesh from the URL has to be the same as in body")]),
        ({"networking": None}, [("networking", "must be defined")]),
        (
            {"networking": {"address": "x y", "inbound": [{"port": 0}]}},
            [
                ("networking.address", "address has to be valid IP address or domain name"),
                ("networking.inbound[0].port", "port must be in the range [1, 65535]"),
            ],
        ),
        ({"networking": {"address": 1}}, [("networking.address", None)]),
        (
            {
                "networking": {
                    "address": "10.0.0.1",
                    "inbound": [{"port": "x", "tags": {"v": 1}}, {"port": "y"}],
                    "gateway": {"type": "Z"},
                }
            },
            [
                ("networking.inbound[0].port", "json: cannot unmarshal string into Go value of type uint32"),
                ('networking.inbound[0].tags["v"]', "json: cannot unmarshal number into Go value of type string"),
                ("networking.inbound[1].port", "json: cannot unmarshal string into Go value of type uint32"),
                ("networking.gateway.type", '"Z" is not one of: DELEGATED, BUILTIN'),
            ],
        ),
    ],
)
async def test_what_is_wrong_is_said_all_at_once(operator, changes, causes):
    body = document("Dataplane", "a") | changes
    response = await operator.put("/meshes/default/dataplanes/a", json=body)
    body = response.json()
    assert (response.status_code, body["title"], body["details"]) == (400, TITLE, "Resource is not valid")
    for cause, (field, message) in zip(body["causes"], causes, strict=False):
        assert cause["field"] == field
        assert message in {None, cause["message"]}
    assert len(body["causes"]) >= len(causes)


async def test_a_bad_name_is_refused(operator):
    response = await put(operator, "Mesh", "A.b")
    assert response.json()["causes"] == [
        {
            "field": "name",
            "message": "invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_' "
            "symbols.",
        }
    ]


@pytest.mark.parametrize("type_name", [one.name for one in WRITABLE if one.scope is Scope.MESH])
async def test_a_mesh_that_is_missing_is_named(operator, type_name):
    response = await put(operator, type_name, "a", mesh="nope")
    assert response.status_code == 400
    assert response.json() == {
        "title": TITLE,
        "details": "Mesh is not found",
        "causes": [{"field": "mesh", "message": "mesh of name nope is not found"}],
    }


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {"content-type": "application/json"}, 400),
        (b"", {"content-type": "application/json"}, 400),
        (b"[]", {"content-type": "application/json"}, 400),
        (b"\xff", {"content-type": "application/json"}, 400),
        (b"[" * 200_000, {"content-type": "application/json"}, 400),
        (b'{"x": NaN}', {"content-type": "application/json"}, 400),
        (b'{"x": 1e999}', {"content-type": "application/json"}, 400),
        (b'{"x": "\\ud800"}', {"content-type": "application/json"}, 400),
        (b'{"type": "Mesh", "name": "m1", "name": "m2"}', {"content-type": "application/json"}, 400),
        (b"a: [", {"content-type": "application/yaml"}, 400),
        (b'a: "\\ud800"', {"content-type": "application/yaml"}, 400),
        (b"a: 1\n---\nb: 2", {"content-type": "application/yaml"}, 400),
        (b"- " * 100_000, {"content-type": "application/yaml"}, 400),
        (b"a: &x [1]\nb: *x", {"content-type": "application/yaml"}, 400),
        (b"!!python/object:os.system x", {"content-type": "application/yaml"}, 400),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {}, 415),
        (b"{}", {"content-type": "application/json", "accept": "text/html"}, 406),
        (b" " * (4 * 1024 * 1024 + 1), {"content-type": "application/json"}, 413),
    ],
)
async def test_bad_bodies(operator, content, headers, status):
    response = await operator.put("/meshes/m1", content=content, headers=headers)
    assert response.status_code == status
    if status in {415, 406}:
        assert response.text.startswith(f"{status}: ")
    else:
        assert response.json()["title"] == TITLE
        assert response.json()["details"]


async def test_yaml_is_taken_too(operator):
    text = "type: Mesh\nname: m1\n"
    response = await operator.put("/meshes/m1", content=text, headers={"content-type": "application/yaml"})
    assert response.status_code == 201


async def test_unknown_fields_are_returned_as_warnings(operator):
    response = await put(operator, "Dataplane", "a", netwrking={"x": 1})
    assert response.status_code == 201
    assert response.headers.get_list("warning")[0].startswith('299 - "netwrking: unknown field')


async def test_warnings_are_few_enough_for_every_client(operator):
    """Python's HTTP client gives up on an answer with more than a hundred header lines."""
    response = await put(operator, "Dataplane", "a", **{f"x{n}": 1 for n in range(500)})
    assert response.status_code == 201
    assert 20 < len(response.headers.get_list("warning")) < 90


async def test_violations_are_bounded(operator):
    inbound = [{"port": 0, "tags": {"kuma.io/service": "a"}}] * 3000
    response = await put(operator, "Dataplane", "a", networking={"address": "127.0.0.1", "inbound": inbound})
    causes = response.json()["causes"]
    assert (response.status_code, len(causes)) == (400, 1001)
    assert causes[-1] == {"field": "", "message": "and 2000 more"}


async def test_unknown_paths_and_methods_are_answered_in_kumas_words(operator):
    response = await operator.get("/nothing/here")
    assert (response.status_code, response.text) == (404, "404: Page Not Found")
    assert (await operator.get("/meshes/")).status_code == 404
    for method in ("POST", "PATCH", "HEAD", "OPTIONS", "FOO"):
        response = await operator.request(method, "/meshes/default")
        assert response.status_code == 405
        assert response.headers["allow"] == "GET, PUT, DELETE"
    assert (await operator.post("/meshes")).text == "405: Method Not Allowed"


async def test_insights_are_read_only(operator):
    assert (await operator.get("/dataplane-insights")).json()["items"] == []
    response = await operator.put("/meshes/default/dataplane-insights/a", json={})
    assert response.status_code == 405
    assert response.text.startswith("On Kubernetes you cannot change the state of Kuma resources")


@pytest.mark.parametrize("path", ["external-services", "zones", "meshgateways"])
async def test_types_of_later_versions_are_refused_by_name(operator, path):
    type_name = {**later.MESH_SCOPED, **later.GLOBAL}[path]
    single = f"/{path}/a" if path in later.GLOBAL else f"/meshes/default/{path}/a"
    for response, status in ((await operator.get(f"/{path}"), 404), (await operator.put(single, json={}), 400)):
        body = response.json()
        assert (response.status_code, body["details"]) == (status, f"{type_name} is not supported by this version")
        assert "Supported types: CircuitBreaker, Dataplane" in body["causes"][0]["message"]


# --- meshes


async def test_a_new_mesh_is_born_with_policies_and_a_key_in_one_batch(operator, parts):
    head = await parts.store.head()
    assert (await put(operator, "Mesh", "m1")).status_code == 201
    changes = await parts.store.changes(head)
    assert sorted(f"{change.key.type}/{change.key.name}" for change in changes) == [
        "CircuitBreaker/circuit-breaker-all-m1",
        "Mesh/m1",
        "Retry/retry-all-m1",
        "Secret/dataplane-token-signing-key-m1-1",
        "Timeout/timeout-all-m1",
        "TrafficPermission/allow-all-m1",
        "TrafficRoute/route-all-m1",
    ]
    assert (await operator.post("/tokens", json={"mesh": "m1"})).status_code == 200


async def test_replacing_a_mesh_brings_no_policies_back(operator):
    await put(operator, "Mesh", "m1")
    await operator.delete("/meshes/m1/retries/retry-all-m1")
    assert (await put(operator, "Mesh", "m1")).status_code == 200
    assert (await operator.get("/meshes/m1/retries")).json()["total"] == 0


async def test_a_mesh_with_dataplanes_stays(operator):
    await put(operator, "Mesh", "m1")
    await put(operator, "Dataplane", "a", "m1")
    response = await operator.delete("/meshes/m1")
    assert response.status_code == 400
    message = "unable to delete mesh, there are still some dataplanes attached"
    assert response.json()["causes"] == [{"field": "mesh", "message": message}]
    assert (await operator.delete("/meshes/m1/dataplanes/a")).status_code == 200
    assert (await operator.delete("/meshes/m1")).status_code == 200


async def test_a_deleted_mesh_takes_everything_with_it(operator, parts):
    await put(operator, "Mesh", "m1")
    for type_name in SPECS:
        if TYPES[type_name].scope is Scope.MESH and type_name != "Dataplane":
            await put(operator, type_name, "mine", "m1")
    await parts.store.apply(Put(ResourceKey("Secret", "m1", "unowned"), {"data": "eA=="}))
    assert (await operator.delete("/meshes/m1")).status_code == 200
    _, everything = await parts.store.snapshot()
    assert [stored.key for stored in everything if stored.key.mesh == "m1"] == []
    assert (await put(operator, "Mesh", "m1")).status_code == 201


# --- dataplanes


async def test_constraints_of_the_mesh_are_kept(operator):
    constraints = {"dataplaneProxy": {"restrictions": [{"tags": {"kuma.io/service": "edge"}}]}}
    await put(operator, "Mesh", "m1", constraints=constraints)
    response = await put(operator, "Dataplane", "a", "m1")
    assert response.status_code == 400
    assert 'cannot be a member of mesh "m1"' in response.json()["causes"][0]["message"]


async def test_a_probed_inbound_starts_as_not_ready_and_keeps_what_hds_said(operator):
    inbound = {"port": 80, "serviceProbe": {"tcp": {}}, "tags": {"kuma.io/service": "web"}}
    networking = {"address": "192.168.0.1", "inbound": [inbound]}
    await put(operator, "Dataplane", "a", networking=networking)
    got = (await operator.get("/meshes/default/dataplanes/a")).json()
    assert got["networking"]["inbound"][0]["health"] == {}


async def test_deleting_a_dataplane_ends_its_credentials(operator, parts):
    await put(operator, "Dataplane", "a")
    await operator.delete("/meshes/default/dataplanes/a")
    await parts.authority.ring.catch_up()
    assert parts.authority.ring.ended_until_ms("default", "a") > 0


# --- lists


async def test_lists_are_paged_by_item_index(operator, parts):
    spec = {"data": "eA=="}
    await parts.store.apply(*(Put(ResourceKey("GlobalSecret", "", f"z-{i:04}"), spec) for i in range(250)))
    names, path = [], "/global-secrets?size=100"
    for _ in range(3):
        page = (await operator.get(path)).json()
        assert page["total"] == 254
        names += [item["name"] for item in page["items"]]
        path = page["next"]
    assert path is None
    assert names == sorted(names)
    assert len(names) == 254
    default = (await operator.get("/global-secrets")).json()
    assert len(default["items"]) == 100
    assert re.fullmatch(r"http://localhost:5681/global-secrets\?offset=100", default["next"])
    assert len((await operator.get("/global-secrets?size=0")).json()["items"]) == 254
    assert (await operator.get("/global-secrets?offset=9999")).json() == {"total": 254, "items": [], "next": None}


@pytest.mark.parametrize(
    ("query", "details", "field", "message"),
    [
        ("size=x", "Invalid page size", "size", "Invalid format"),
        ("size=-1", "Invalid page size", "size", "Invalid format"),
        ("size=1001", "Invalid page size", "size", "Invalid page size of 1001. Maximum page size is 1000"),
        ("offset=x", "Invalid offset", "offset", "Invalid format"),
    ],
)
async def test_bad_pages(operator, query, details, field, message):
    response = await operator.get(f"/meshes?{query}")
    assert response.status_code == 400
    assert response.json() == {
        "title": "Could not retrieve resources",
        "details": details,
        "causes": [{"field": field, "message": message}],
    }


async def test_a_store_that_is_away_is_said_so(operator, parts, monkeypatch):
    async def away(*_args, **_options):
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(parts.store, "apply", away)
    response = await put(operator, "Mesh", "m1")
    assert response.status_code == 503
    assert "disk full" in response.json()["details"]


async def test_a_fault_of_ours_is_an_error_body(operator, parts, monkeypatch):
    async def broken(*_args, **_options):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(parts.store, "get", broken)
    response = await operator.get("/meshes/default")
    assert response.status_code == 500
    assert response.json() == {"title": "Could not retrieve a resource", "details": "Internal Server Error"}

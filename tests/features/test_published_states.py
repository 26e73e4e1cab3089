"""What the engine publishes, and what the rules of the server demand of a published state (P §24), over any history."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings

from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER, PUSH_ORDER, ROUTE
from snapshot.engine.engine import Engine
from snapshot.engine.oracle import build_all
from snapshot.engine.world import ResourceGone
from snapshot.topology.proxy import Settings
from tests.support.worlds import (
    content,
    dataplane,
    dataplane_put,
    histories,
    inbound,
    joined,
    key,
    mesh_put,
    outbounds,
    proxy,
    route_all,
)

ROOT = Path(__file__).parents[2]
LAW = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
KINDS = {CLUSTER: Cluster, ENDPOINT: ClusterLoadAssignment, LISTENER: Listener}
WEB = proxy("web")


def unpacked(message: Message):
    """This message and every one inside it, those in an `Any` included."""
    yield message
    if message.DESCRIPTOR.full_name == "google.protobuf.Any":
        kind = descriptor_pool.Default().FindMessageTypeByName(message.TypeName())
        inner = message_factory.GetMessageClass(kind)()
        message.Unpack(inner)
        yield from unpacked(inner)
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        repeated = field.is_repeated
        if repeated and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for each in value.values():
                    yield from unpacked(each)
        else:
            for each in value if repeated else (value,):
                yield from unpacked(each)


def routed_clusters(listener: Listener) -> set[str]:
    """Names of all clusters that a listener leads to, by routes or by itself."""
    found: set[str] = set()
    for each in unpacked(listener):
        match each.DESCRIPTOR.full_name:
            case "envoy.config.route.v3.RouteAction" | "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy":
                found.add(each.cluster)
            case "envoy.config.route.v3.WeightedCluster.ClusterWeight":
                found.add(each.name)
            case "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight":
                found.add(each.name)
    return found - {""}


def rds_names(listener: Listener) -> set[str]:
    names = {
        each.route_config_name
        for each in unpacked(listener)
        if each.DESCRIPTOR.full_name == "envoy.extensions.filters.network.http_connection_manager.v3.Rds"
    }
    return names - {""}


def check_state(engine: Engine, of) -> None:
    state = engine.state(of)
    held = {
        url: {name: kind.FromString(state.get(url, name).body) for name in state.names(url)}
        for url, kind in KINDS.items()
    }
    for url in PUSH_ORDER:
        assert all(name and state.get(url, name).name == name for name in state.names(url))
    for name, cluster in held[CLUSTER].items():
        assert cluster.name == name
        if cluster.type == Cluster.EDS:
            assert (cluster.eds_cluster_config.service_name or name) in held[ENDPOINT]
    assert {each.cluster_name for each in held[ENDPOINT].values()} == held[ENDPOINT].keys()
    for name, listener in held[LISTENER].items():
        assert listener.name == name
        assert routed_clusters(listener) <= held[CLUSTER].keys()
        assert rds_names(listener) <= set(state.names(ROUTE))


@pytest.mark.rule("XP-179", "XP-72", "XP-87")
@LAW
@given(histories())
def test_every_published_state_is_complete_and_names_nothing_twice(history):
    engine = Engine()
    for batch in history:
        engine.apply(batch)
        for of in engine.world.nodes:
            if engine.state(of) is not None:
                check_state(engine, of)


@pytest.mark.rule("XP-179")
def test_the_check_finds_the_clusters_of_routes():
    engine = started()
    state = engine.state(WEB)
    listeners = [Listener.FromString(state.get(LISTENER, name).body) for name in state.names(LISTENER)]
    assert {"db", "api"} <= set().union(*map(routed_clusters, listeners))


@pytest.mark.rule("XP-154")
@LAW
@given(histories())
def test_endpoints_need_no_overprovisioning(history):
    engine = Engine()
    for batch in history:
        engine.apply(batch)
    for of in engine.world.nodes:
        for resource in (content(engine, of) or {}).get(ENDPOINT, {}).values():
            assignment = ClusterLoadAssignment.FromString(resource.body)
            assert not assignment.HasField("policy")
            assert {locality.priority for locality in assignment.endpoints} <= {0}


@pytest.mark.rule("XP-66", "XP-63")
@LAW
@given(histories())
def test_the_order_of_the_input_is_in_no_byte(history):
    engine = Engine()
    for batch in history:
        engine.apply(batch)
    world = engine.world
    turned = replace(
        world,
        resources=dict(reversed(world.resources.items())),
        names=dict(reversed(world.names.items())),
        nodes=dict(reversed(world.nodes.items())),
    )
    bodies, again = (
        {of: {url: {n: r.body for n, r in named.items()} for url, named in held.items()} for of, held in built.items()}
        for built in (build_all(world), build_all(turned))
    )
    assert bodies == again


VERSIONS = """
from snapshot.cache.type_url import PUSH_ORDER
from tests.features.test_published_states import WEB, started
state = started().state(WEB)
print(sorted((url, name, state.get(url, name).version) for url in PUSH_ORDER for name in state.names(url)))
"""


def started(**settings_: int) -> Engine:
    engine = Engine(Settings(**settings_))
    web = dataplane("10.0.0.1", inbound("web", "http"), to=outbounds("db", "api"))
    engine.apply([mesh_put(), route_all(), dataplane_put("web", web), *(_db(number) for number in (3, 1, 2))])
    engine.apply([dataplane_put("api", dataplane("10.0.1.1", inbound("api", "http", version="1", a="2", z="3")))])
    engine.apply([joined("web")])
    return engine


def _db(number: int):
    return dataplane_put(f"db-{number}", dataplane(f"10.0.0.{10 + number}", inbound("db", "tcp", version="1", a="2")))


@pytest.mark.rule("XP-66", "XP-63", "XP-64")
def test_versions_do_not_depend_on_the_hash_seed_of_the_process():
    def versions(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", VERSIONS]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert versions("1") == versions("2")


@pytest.mark.rule("XP-133")
def test_endpoints_above_the_limit_are_refused_and_the_last_good_ones_stay():
    engine = started(resource_bytes=6_000)
    before = engine.state(WEB).get(ENDPOINT, "db")
    many = [_db(number) for number in range(4, 200)]
    publication = engine.apply(many)
    assert engine.state(WEB).get(ENDPOINT, "db") == before
    (issue,) = engine.issues_of(key("Mesh", "default"))
    assert "ClusterLoadAssignment db has " in issue.reason
    assert "bytes, at most 6000 are allowed (xdsServer.limits.resourceSize)" in issue.reason
    assert [failure.issue for failure in publication.failures] == [issue]
    engine.apply([ResourceGone(key("Dataplane", f"db-{number}")) for number in range(4, 199)])
    assert engine.issues_of(key("Mesh", "default")) == ()
    assert engine.state(WEB).get(ENDPOINT, "db") != before


@pytest.mark.rule("XP-133")
def test_a_proxy_with_a_resource_above_the_limit_keeps_what_it_had():
    engine = started(resource_bytes=6_000)
    before = content(engine, WEB)
    long_tags = {f"tag-{number}": "x" * 60 for number in range(90)}
    web = dataplane("10.0.0.1", inbound("web", "http", **long_tags), to=outbounds("db", "api"))
    engine.apply([dataplane_put("web", web)])
    assert content(engine, WEB) == before
    (issue,) = engine.issues_of(key("Dataplane", "web"))
    assert "cannot be built, what it had stays in force" in issue.reason
    assert "Listener outbound:127.0.0.1:10001 has " in issue.reason
    assert "bytes, at most 6000 are allowed" in issue.reason

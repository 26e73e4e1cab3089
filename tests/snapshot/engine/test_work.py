"""Work in proportion to what changed (laws L2–L5), counted."""

from __future__ import annotations

import pytest

from snapshot.cache import type_url
from snapshot.engine.engine import Engine
from snapshot.engine.world import NameFailed, NameResolved, ReachabilityChanged, ResourceGone
from snapshot.model.dataplane import Outbound
from tests.support.worlds import (
    connect_timeout,
    dataplane,
    dataplane_put,
    inbound,
    joined,
    key,
    mesh_put,
    outbounds,
    proxy,
    put,
    route_all,
    tags,
)

CLIENTS = 1000
SUBSCRIBERS = 100


def client(at):
    """The first clients consume `db`; all consume `api`."""
    to = outbounds("api", "db") if at < SUBSCRIBERS else outbounds("api")
    return dataplane_put(f"client-{at}", dataplane(f"10.1.{at // 250}.{at % 250}", inbound("web", "http"), to=to))


def db(name="db-1", address="10.0.0.1", *inbounds):
    return dataplane_put(name, dataplane(address, *(inbounds or [inbound("db", "tcp")])))


@pytest.fixture(scope="module")
def _mesh_of_a_thousand():
    engine = Engine()
    engine.apply([mesh_put(), route_all(), db(), *map(client, range(CLIENTS))])
    engine.apply([joined(f"client-{at}") for at in range(CLIENTS)])
    return engine


@pytest.fixture
def thousand(_mesh_of_a_thousand):
    yield _mesh_of_a_thousand
    _mesh_of_a_thousand.apply([ResourceGone(key("Dataplane", "db-2")), ResourceGone(key("Timeout", "t")), db()])
    _mesh_of_a_thousand.check_invariants()


ENDPOINT_CHANGES = {
    "appears": ([], db("db-2", "10.0.0.2")),
    "disappears": ([db("db-2", "10.0.0.2")], ResourceGone(key("Dataplane", "db-2"))),
    "changes its address": ([], db("db-1", "10.0.0.9")),
    "changes its port": ([], db("db-1", "10.0.0.1", inbound("db", "tcp", port=9))),
    "changes a tag": ([], db("db-1", "10.0.0.1", inbound("db", "tcp", version="v2"))),
    "is no longer ready": (
        [db("db-2", "10.0.0.2")],
        db("db-2", "10.0.0.2", inbound("db", "tcp", ready=False)),
    ),
    "is unreachable": ([db("db-2", "10.0.0.2")], ReachabilityChanged(proxy("db-2"), reachable=False)),
    "has a name that moves": (
        [NameResolved("db.test", "10.0.0.7"), db("db-2", "db.test")],
        NameResolved("db.test", "10.0.0.8"),
    ),
}


@pytest.mark.parametrize(("before", "change"), ENDPOINT_CHANGES.values(), ids=ENDPOINT_CHANGES.keys())
def test_an_endpoint_change_builds_one_assignment_no_proxy_and_wakes_subscribers_only(thousand, before, change):
    thousand.apply([ReachabilityChanged(proxy("db-2"), reachable=True), *before])
    publication = thousand.apply([change])
    work = publication.work
    assert (work.endpoints_built, work.proxies_routed, work.proxies_built, work.facts_read) == (1, 0, 0, 0)
    assert publication.changes.keys() == {proxy(f"client-{at}") for at in range(SUBSCRIBERS)}
    assert {id(changes) for changes in publication.changes.values()} == {id(publication.changes[proxy("client-0")])}
    assert publication.changes[proxy("client-0")].names == {type_url.ENDPOINT: {"db"}}


def test_an_endpoint_change_that_changes_a_fact_builds_those_that_read_it(thousand):
    publication = thousand.apply([db("db-2", "10.0.0.2", inbound("db"))])  # no protocol: all of db is unknown now
    work = publication.work
    assert (work.endpoints_built, work.proxies_built) == (1, SUBSCRIBERS)
    assert work.facts_read == 2 * SUBSCRIBERS
    assert publication.changes.keys() == {proxy(f"client-{at}") for at in range(SUBSCRIBERS)}


def test_many_changes_in_one_batch_are_folded(thousand):
    moves = [db("db-1", f"10.0.0.{at}") for at in range(2, 30)]
    publication = thousand.apply(
        [*moves, put("Timeout", "t", connect_timeout(1)), put("Timeout", "t", connect_timeout(2))]
    )
    assert publication.work.endpoints_built == 1
    assert publication.work.proxies_built == CLIENTS


def test_back_and_forth_in_one_batch_is_silent(thousand):
    publication = thousand.apply([db("db-1", "10.0.0.99"), ResourceGone(key("Dataplane", "db-1")), db()])
    assert publication.changes == {}
    assert publication.work.endpoints_built == publication.work.proxies_built == 0


def test_equal_endpoints_from_another_dataplane_are_silent(thousand):
    publication = thousand.apply([ResourceGone(key("Dataplane", "db-1")), db("db-2")])
    assert publication.work.endpoints_built == 1
    assert publication.changes == {}


def test_rewriting_the_same_is_free(thousand):
    publication = thousand.apply([mesh_put(), route_all(), db(), joined("client-0"), client(0)])
    assert publication.changes == {}
    assert (publication.work.proxies_routed, publication.work.endpoints_built) == (0, 0)


def test_a_policy_change_builds_the_proxies_it_selects_before_and_after(thousand):
    other = dataplane("10.2.0.1", inbound("batch"), to=outbounds("api"))
    thousand.apply([dataplane_put("batch-1", other), joined("batch-1")])
    for change, built in (
        (put("Timeout", "t", connect_timeout(3, sources="batch")), {"batch-1"}),
        (put("Timeout", "t", connect_timeout(3, sources="web", destinations="db")), {"batch-1", *_subscribers()}),
        (put("Timeout", "t", connect_timeout(3, sources="web", destinations="db")), set()),
        (put("Timeout", "t", connect_timeout(4, sources="web", destinations="db")), _subscribers()),
        (ResourceGone(key("Timeout", "t")), _subscribers()),
        (put("Timeout", "t", connect_timeout(4, sources="nobody")), set()),
        (put("TrafficPermission", "p", connect_timeout(4)), set()),
    ):
        publication = thousand.apply([change])
        assert publication.work.proxies_built == len(built)
        assert {told.name for told in publication.changes} == built
    thousand.apply([ResourceGone(key("Dataplane", "batch-1"))])


def _subscribers():
    return {f"client-{at}" for at in range(SUBSCRIBERS)}


def test_an_own_change_builds_only_that_proxy_and_publishes_only_what_differs(thousand):
    spec = dataplane("10.1.0.0", inbound("web", "http"), to=outbounds("api", "db", "cache"))
    publication = thousand.apply([dataplane_put("client-0", spec)])
    assert (publication.work.proxies_built, publication.work.endpoints_built) == (1, 1)
    assert publication.changes.keys() == {proxy("client-0")}
    assert publication.changes[proxy("client-0")].names == {
        type_url.CLUSTER: {"cache"},
        type_url.ENDPOINT: {"cache"},
        type_url.LISTENER: {"outbound:127.0.0.1:10002"},
    }
    thousand.apply([client(0)])


def test_replicas_share_every_object(thousand):
    one, two = (thousand.state(proxy(f"client-{at}")) for at in (SUBSCRIBERS + 1, SUBSCRIBERS + 2))
    for url, name in (
        (type_url.CLUSTER, "api"),
        (type_url.ENDPOINT, "api"),
        (type_url.LISTENER, "outbound:127.0.0.1:10000"),
    ):
        assert one.get(url, name) is two.get(url, name) is not None


def test_proxies_that_never_joined_cost_nothing():
    engine = Engine()
    work = engine.apply([mesh_put(), route_all(), *map(client, range(50)), NameFailed("x.test", "no")]).work
    assert (work.proxies_routed, work.endpoints_built, work.resources_built) == (0, 0, 0)


def test_repeated_endpoints_of_one_dataplane_are_told_apart_from_one(engine):
    engine.apply([mesh_put(), route_all(), client(0), db(), joined("client-0")])
    assert engine.apply([db("db-1", "10.0.0.1", inbound("db", "tcp"), inbound("db", "tcp"))]).work.endpoints_built == 1


def test_a_subset_is_rebuilt_only_for_its_own_members(engine):
    v1 = Outbound(port=1, tags=tags("db", version="v1"))
    v2 = Outbound(port=2, tags=tags("db", version="v2"))
    engine.apply([mesh_put(), route_all(), dataplane_put("c", dataplane("10.1.0.1", inbound("web"), to=(v1, v2)))])
    engine.apply([joined("c")])
    assert len(engine.state(proxy("c")).names(type_url.ENDPOINT)) == 2
    publication = engine.apply([db("db-1", "10.0.0.1", inbound("db", "tcp", version="v1"))])
    assert publication.work.endpoints_built == 1
    (name,) = publication.changes[proxy("c")].names[type_url.ENDPOINT]
    assert engine.provenance(proxy("c"), type_url.ENDPOINT, name) == (key("Dataplane", "db-1"),)

"""What is served when: states that come and go, bad objects, failures, and the questions for other parts."""

from __future__ import annotations

import pytest

from snapshot import pipeline
from snapshot.cache import type_url
from snapshot.engine import builder
from snapshot.engine.world import (
    Issue,
    NameFailed,
    NameResolved,
    NodeLeft,
    ReachabilityChanged,
    ResourceGone,
)
from snapshot.model.dataplane import Dataplane
from snapshot.topology.proxy import NodeInfo
from tests.support.worlds import (
    EPOCH,
    connect_timeout,
    content,
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
)

WEB = proxy("web")
WEB_PUT = dataplane_put("web", dataplane("10.0.0.1", inbound("web", "http"), to=outbounds("db")))
DB_PUT = dataplane_put("db", dataplane("10.0.0.2", inbound("db", "tcp")))
START = [mesh_put(), route_all(), WEB_PUT, DB_PUT]


def cluster(engine, name="db"):
    return engine.state(WEB).get(type_url.CLUSTER, name)


# States that come and go


@pytest.mark.parametrize(
    "missing", [[], [mesh_put()], [WEB_PUT], [mesh_put(), dataplane_put("web", dataplane("web.test", inbound("web")))]]
)
def test_a_proxy_that_cannot_be_built_yet_has_no_state_rather_than_an_empty_one(engine, missing):
    publication = engine.apply([*missing, joined("web")])
    assert engine.state(WEB) is None
    assert publication.changes == {}


@pytest.mark.parametrize("gone", [key("Mesh", "default"), key("Dataplane", "web")])
def test_what_goes_away_takes_the_state_with_it_silently_and_brings_it_back(engine, clients, gone):
    clients.apply([*START, joined("web")])
    before, state = content(engine, WEB), engine.state(WEB)
    publication = clients.apply([ResourceGone(gone)])
    assert publication.changes == {}
    assert engine.state(WEB) is None
    assert state.get(type_url.CLUSTER, "db") is not None  # a reader that still holds it never sees it empty
    clients.apply([DB_PUT, mesh_put(), WEB_PUT])
    assert engine.state(WEB) is state
    assert content(engine, WEB) == before == clients.held[WEB]


def test_what_changed_meanwhile_reaches_a_proxy_whose_state_comes_back(engine, clients):
    clients.apply([*START, joined("web")])
    clients.apply([ResourceGone(key("Dataplane", "web"))])
    clients.apply([dataplane_put("db", dataplane("10.0.0.7", inbound("db", "tcp")))])
    clients.apply([dataplane_put("web", dataplane("10.0.0.1", inbound("web"), to=outbounds("db", "api")))])
    assert clients.held[WEB] == content(engine, WEB)


def test_a_state_is_one_live_object_that_always_reads_the_newest(engine):
    engine.apply([*START, joined("web")])
    state = engine.state(WEB)
    old = state.get(type_url.ENDPOINT, "db")
    engine.apply([dataplane_put("db", dataplane("10.0.0.9", inbound("db", "tcp")))])
    assert engine.state(WEB) is state
    assert state.get(type_url.ENDPOINT, "db") != old
    assert list(state.names(type_url.ENDPOINT)) == ["db"]
    assert state.get(type_url.ENDPOINT, "other") is None
    assert state.get("unknown", "x") is None
    assert list(state.names("unknown")) == []


def test_a_node_that_left_is_forgotten(engine, clients):
    clients.apply([*START, joined("web")])
    clients.apply([NodeLeft(WEB), NodeLeft(proxy("nobody"))])
    assert engine.state(WEB) is None
    assert clients.apply([DB_PUT, put("Timeout", "t", connect_timeout(1))]).work.proxies_routed == 0


def test_a_node_that_left_and_joined_again_in_one_batch_is_told_everything(engine, clients):
    clients.apply([*START, joined("web")])
    clients.apply([NodeLeft(WEB), joined("web")])
    assert clients.held[WEB] == content(engine, WEB)


def test_what_a_node_says_about_itself_decides_what_it_gets(engine):
    engine.apply([*START, joined("web", info=NodeInfo(admin_port=0))])
    assert cluster(engine, "kuma:envoy:admin") is None
    engine.apply([joined("web", info=NodeInfo(admin_port=9901))])
    assert cluster(engine, "kuma:envoy:admin") is not None


def test_meshes_do_not_see_each_other(engine):
    engine.apply([*START, mesh_put("other"), route_all(mesh="other"), joined("web")])
    other = dataplane_put("db", dataplane("10.0.0.3", inbound("db", "http")), mesh="other")
    assert engine.apply([other]).changes == {}
    assert engine.apply([put("Timeout", "t", connect_timeout(1), mesh="other")]).changes == {}


def test_of_two_equal_policies_the_newest_wins_and_of_two_as_old_the_first_name(engine):
    later = EPOCH.replace(year=2027)
    engine.apply(
        [*START, joined("web"), put("Timeout", "b", connect_timeout(2)), put("Timeout", "a", connect_timeout(1))]
    )
    first = cluster(engine)
    engine.apply([put("Timeout", "b", connect_timeout(2), created=later)])
    assert cluster(engine) != first
    engine.apply([put("Timeout", "a", connect_timeout(1), created=later)])
    assert cluster(engine) == first


# Names and reachability


def test_a_name_that_stops_resolving_keeps_its_answer_and_is_reported(engine):
    named = dataplane_put("db", dataplane("db.test", inbound("db", "tcp")))
    engine.apply([mesh_put(), route_all(), WEB_PUT, named, joined("web")])
    (issue,) = engine.issues_of(key("Dataplane", "db"))
    assert issue.reason.startswith('networking.address: the name "db.test" has not been resolved yet')
    assert engine.provenance(WEB, type_url.ENDPOINT, "db") == ()
    engine.apply([NameResolved("db.test", "10.1.0.1")])
    assert engine.issues() == ()
    resolved = engine.state(WEB).get(type_url.ENDPOINT, "db")
    assert engine.apply([NameFailed("db.test", "SERVFAIL")]).changes == {}
    assert engine.state(WEB).get(type_url.ENDPOINT, "db") is resolved
    assert "no longer resolves: SERVFAIL" in engine.issues()[0].reason


def test_an_unreachable_proxy_is_no_endpoint_but_keeps_its_own_state(engine):
    engine.apply([*START, joined("web"), joined("db")])
    before = content(engine, proxy("db"))
    engine.apply([ReachabilityChanged(proxy("db"), reachable=False)])
    assert engine.provenance(WEB, type_url.ENDPOINT, "db") == ()
    assert content(engine, proxy("db")) == before
    engine.apply([ReachabilityChanged(proxy("db"), reachable=True)])
    assert engine.provenance(WEB, type_url.ENDPOINT, "db") == (key("Dataplane", "db"),)


# Bad objects and failures


@pytest.mark.parametrize("kind", ["Dataplane", "TrafficRoute", "Timeout", "CircuitBreaker", "Retry"])
def test_an_object_with_the_wrong_content_is_skipped_and_reported(engine, kind):
    engine.apply([*START, joined("web")])
    before = content(engine, WEB)
    assert engine.apply([put(kind, "bad", "rubbish")]).changes == {}
    assert content(engine, WEB) == before
    assert (
        engine.issues()
        == engine.issues_of(key(kind, "bad"))
        == (Issue(key(kind, "bad"), f"skipped: its content is no {kind}"),)
    )
    engine.apply([ResourceGone(key(kind, "bad"))])
    assert engine.issues() == ()


def test_a_dataplane_that_nobody_can_read_is_its_own_problem(engine):
    broken = dataplane_put("broken", Dataplane(networking="rubbish"))  # no decoder lets this pass
    engine.apply([*START, broken, dataplane_put("bare", Dataplane()), joined("web"), joined("broken"), joined("bare")])
    assert {issue.object.name for issue in engine.issues()} == {"bare", "broken"}
    assert engine.provenance(WEB, type_url.ENDPOINT, "db") == (key("Dataplane", "db"),)
    engine.apply([ResourceGone(key("Dataplane", "broken"))])
    assert {issue.object.name for issue in engine.issues()} == {"bare"}


def test_a_proxy_without_its_mesh_says_why_it_gets_nothing(engine):
    engine.apply([WEB_PUT, joined("web")])
    reason = 'mesh "default" does not exist; this proxy gets no configuration'
    assert (
        engine.issues() == engine.issues_of(key("Dataplane", "web")) == (Issue(key("Dataplane", "web"), reason, WEB),)
    )
    engine.apply([mesh_put()])
    assert engine.issues() == ()


@pytest.fixture
def failing(monkeypatch):
    """Names of proxies whose build raises, after it has read a fact."""
    names = set()

    def build(proxy, facts, settings, memo):
        if proxy.key.name in names:
            facts.protocol("fact")
            raise RuntimeError("boom")
        return pipeline.build(proxy, facts, settings, memo)

    monkeypatch.setattr(builder, "build", build)
    return names


def test_a_build_that_fails_keeps_the_last_good_state_and_stops_nobody_else(engine, failing):
    engine.apply([*START, joined("web"), joined("db")])
    before = content(engine, WEB)
    failing.add("web")
    publication = engine.apply([put("Timeout", "t", connect_timeout(1)), put("CircuitBreaker", "c", "rubbish"), DB_PUT])
    assert content(engine, WEB) == before
    assert [failure.issue for failure in publication.failures] == [*engine.issues_of(key("Dataplane", "web"))]
    assert isinstance(publication.failures[0].error, RuntimeError)
    assert engine.issues_of(key("Dataplane", "web"))[0] == Issue(
        key("Dataplane", "web"), "cannot be built, what it had stays in force: RuntimeError: boom", WEB
    )
    moved = dataplane_put("db", dataplane("10.0.0.9", inbound("db", "tcp")))
    assert engine.apply([moved]).changes[WEB].names == {type_url.ENDPOINT: {"db"}}  # endpoints still reach it


def test_a_change_that_is_taken_back_ends_the_failure_it_caused(engine, failing):
    engine.apply([*START, joined("web")])
    failing.add("web")
    engine.apply([put("Timeout", "t", connect_timeout(1))])
    failing.clear()
    assert engine.apply([ResourceGone(key("Timeout", "t"))]).changes == {}
    assert engine.issues() == ()


@pytest.mark.parametrize(
    "concern",
    [
        dataplane_put("web", dataplane("10.0.0.8", inbound("x"))),
        put("Timeout", "t", connect_timeout(2)),
        dataplane_put("other", dataplane("10.0.0.5", inbound("fact", "http"))),
        joined("web", info=NodeInfo()),
    ],
    ids=["own Dataplane", "policy", "fact", "node"],
)
def test_a_failed_build_is_tried_again_at_the_next_change_that_concerns_it(engine, failing, concern):
    failing.add("web")
    engine.apply([*START, joined("web")])
    assert engine.state(WEB) is None
    failing.clear()
    assert engine.apply([dataplane_put("stranger", dataplane("10.0.0.6", inbound("y")))]).work.proxies_routed == 0
    engine.apply([concern])
    assert engine.state(WEB) is not None
    assert engine.issues() == ()


def test_endpoints_that_cannot_be_built_stay_as_they_were(engine, clients, monkeypatch):
    clients.apply([*START, joined("web")])
    before = engine.state(WEB).get(type_url.ENDPOINT, "db")

    def build_endpoints(name, endpoints):
        raise RuntimeError("boom")

    monkeypatch.setattr(builder, "build_endpoints", build_endpoints)
    publication = clients.apply([dataplane_put("db", dataplane("10.0.0.9", inbound("db", "tcp")))])
    assert publication.changes == {}
    assert engine.state(WEB).get(type_url.ENDPOINT, "db") is before
    assert engine.issues() == engine.issues_of(key("Mesh", "default")) == (publication.failures[0].issue,)
    monkeypatch.undo()
    clients.apply([dataplane_put("db", dataplane("10.0.0.8", inbound("db", "tcp")))])
    assert engine.state(WEB).get(type_url.ENDPOINT, "db") != before
    assert clients.held[WEB] == content(engine, WEB)
    assert engine.issues() == ()


# Questions of other parts


def test_provenance_names_the_objects_that_made_a_resource(engine):
    engine.apply([*START, joined("web"), put("Timeout", "t", connect_timeout(1))])
    assert set(engine.provenance(WEB, type_url.CLUSTER, "db")) == {
        key("Dataplane", "web"),
        key("TrafficRoute", "route-all"),
        key("Timeout", "t"),
    }
    assert engine.provenance(WEB, type_url.LISTENER, "inbound:10.0.0.1:8000") == (key("Dataplane", "web"),)
    assert engine.provenance(WEB, type_url.ENDPOINT, "db") == (key("Dataplane", "db"),)
    assert engine.provenance(WEB, type_url.ENDPOINT, "none") == ()
    assert engine.provenance(WEB, type_url.CLUSTER, "none") == ()
    assert engine.provenance(proxy("db"), type_url.CLUSTER, "db") == ()


def test_reach_tells_which_proxies_an_object_has_a_part_in(engine):
    engine.apply([*START, joined("web"), joined("db"), put("Timeout", "t", connect_timeout(1))])
    engine.apply([put("Timeout", "unused", connect_timeout(1, sources="nobody"))])
    for of, reached in (
        (key("Mesh", "default"), {"web", "db"}),
        (key("Dataplane", "web"), {"web"}),
        (key("Dataplane", "db"), {"web", "db"}),
        (key("TrafficRoute", "route-all"), {"web"}),
        (key("Timeout", "t"), {"web"}),
        (key("Timeout", "unused"), set()),
        (key("Dataplane", "nobody"), set()),
        (key("Mesh", "nowhere"), set()),
    ):
        assert {found.name for found in engine.reach(of)} == reached

"""Where outbounds lead (R §3.6), and what a Proxy knows."""

import pytest

from snapshot.model.dataplane import Inbound, Outbound
from snapshot.model.meta import NANOSECONDS, Resource, ResourceKey
from snapshot.model.policies import CircuitBreakerConf, HttpTimeout, RetryConf, TimeoutConf
from snapshot.model.tags import Tags
from snapshot.model.traffic_route import HttpRule, Split, TrafficRouteConf
from snapshot.topology.outbounds import (
    MeshPolicies,
    concerns_proxy,
    destination_services,
    destinations,
    resolve_wildcards,
    routed_proxy,
    tags_header,
)
from snapshot.topology.proxy import NodeInfo, ServicePolicies
from tests.support.policies import EVERYTHING, SERVICE, dataplane, mesh_policies, policy, proxy, tags

REDIS = Outbound(port=1000, tags=tags("redis"))


@pytest.mark.parametrize(
    ("destination", "outbound", "resolved"),
    [
        pytest.param({SERVICE: "*"}, {SERVICE: "redis"}, {SERVICE: "redis"}, id="wildcard service"),
        pytest.param({SERVICE: "*"}, {SERVICE: "redis", "v": "1"}, {SERVICE: "redis", "v": "1"}, id="tags are added"),
        pytest.param({SERVICE: "x", "v": "2"}, {SERVICE: "redis", "v": "1"}, {SERVICE: "x", "v": "2"}, id="route wins"),
        pytest.param({SERVICE: "x", "v": "*"}, {SERVICE: "redis"}, {SERVICE: "x"}, id="unmatched wildcard is dropped"),
    ],
)
def test_wildcards_are_resolved_everywhere(destination, outbound, resolved):
    split = (Split(weight=1, destination=Tags(destination)),)
    rules = (HttpRule(destination=Tags(destination)), HttpRule(split=split))
    for conf in (
        TrafficRouteConf(destination=Tags(destination), http=rules),
        TrafficRouteConf(split=split, http=rules),
    ):
        made = resolve_wildcards(conf, Tags(outbound))
        found = [s.destination for part in (made, *made.http) for s in destinations(part)]
        assert found == [Tags(resolved)] * 3


def test_weight_0_is_no_destination():
    conf = TrafficRouteConf(split=(Split(weight=0, destination=tags("a")), Split(weight=2, destination=tags("b"))))
    assert [split.destination.service for split in destinations(conf)] == ["b"]


def test_services_of_http_rules_are_destinations_too():
    conf = TrafficRouteConf(destination=tags("b"), http=(HttpRule(destination=tags("a")),))
    assert destination_services(conf) == ("a", "b")


def test_a_proxy_has_the_policies_of_each_outbound_and_destination():
    made = proxy(
        dataplane(REDIS),
        policy("TrafficRoute", "route", conf=TrafficRouteConf(destination=tags("cache"))),
        policy("Timeout", "timeout", conf=TimeoutConf()),
        policy("CircuitBreaker", "breaker", to="cache", conf=CircuitBreakerConf()),
        policy("Retry", "retry", to="cache", conf=RetryConf()),
    )
    (outbound,) = made.outbounds
    assert outbound.route is not None
    assert outbound.timeout == TimeoutConf()
    assert outbound.services == ("cache",)
    assert outbound.origins == (
        ResourceKey("TrafficRoute", "default", "route"),
        ResourceKey("Timeout", "default", "timeout"),
    )
    policies = dict(made.service_policies)
    assert list(policies) == ["cache", "redis"]
    assert policies["cache"].circuit_breaker == CircuitBreakerConf()
    assert policies["cache"].retry == RetryConf()
    assert policies["redis"] == ServicePolicies()


@pytest.mark.parametrize(
    ("conf", "retried"),
    [
        pytest.param(TrafficRouteConf(destination=tags("*")), True, id="led to itself"),
        pytest.param(TrafficRouteConf(destination=tags("other")), False, id="led away"),
        pytest.param(
            TrafficRouteConf(destination=tags("other"), http=(HttpRule(destination=tags("redis")),)),
            False,
            id="only an http rule leads there",
        ),
        pytest.param(
            TrafficRouteConf(
                split=(Split(weight=0, destination=tags("redis")), Split(weight=1, destination=tags("x")))
            ),
            False,
            id="with weight 0",
        ),
        pytest.param(None, True, id="no route"),
    ],
)
def test_an_outbound_is_retried_where_something_leads_to_its_own_service(conf, retried):
    """R §3.6 no. 3: Retry is matched for the destinations of all outbounds, and applied by the outbound's service."""
    policies = [policy("Retry", "retry", conf=RetryConf())]
    if conf is not None:
        policies.append(policy("TrafficRoute", "route", to="redis", conf=conf))
    made = proxy(dataplane(REDIS), *policies)
    assert (dict(made.service_policies)["redis"].retry is not None) is retried
    everything = policy("TrafficRoute", "all", to="cache", conf=TrafficRouteConf(destination=tags("redis")))
    made = proxy(dataplane(REDIS, Outbound(port=1001, tags=tags("cache"))), *policies, everything)
    assert dict(made.service_policies)["redis"].retry is not None


def test_an_outbound_without_a_route_leads_to_its_own_service():
    (outbound,) = proxy(dataplane(REDIS)).outbounds
    assert (outbound.route, outbound.services) == (None, ("redis",))


def test_the_deprecated_service_counts_as_a_tag():
    (outbound,) = proxy(
        dataplane(Outbound(port=1, service="old")), policy("TrafficRoute", "r", conf=EVERYTHING)
    ).outbounds
    assert outbound.services == ("old",)


@pytest.mark.parametrize(
    ("spec", "header"),
    [
        (dataplane(), "&kuma.io/service=web&"),
        (dataplane(gateway=tags("edge", a="1")), "&a=1&&kuma.io/service=edge&"),
        (
            dataplane(inbounds=(Inbound(port=1, tags=tags("b", v="2")), Inbound(port=2, tags=tags("a", v="1")))),
            "&kuma.io/service=a,b&&v=1,2&",
        ),
    ],
)
def test_the_tags_header_merges_all_tag_sets_sorted(spec, header):
    assert tags_header(spec) == header


def request_timeout(seconds, to="web"):
    conf = TimeoutConf(http=HttpTimeout(request_timeout=seconds * NANOSECONDS))
    return policy("Timeout", f"t-{seconds}-{to}", source="anybody", to=to, conf=conf)


@pytest.mark.parametrize(
    ("timeouts", "expected"),
    [
        ([], ()),
        ([request_timeout(15)], ()),
        ([request_timeout(60), request_timeout(30)], (("web", 60 * NANOSECONDS),)),
        ([request_timeout(60, to="*")], (("web", 60 * NANOSECONDS),)),
        ([request_timeout(60, to="other")], ()),
    ],
)
def test_an_inbound_gives_way_to_the_longest_request_that_somebody_may_make(timeouts, expected):
    assert proxy(dataplane(), *timeouts).long_requests == expected


def test_equal_questions_get_the_identical_answer():
    policies = mesh_policies(policy("TrafficRoute", "r", conf=EVERYTHING), policy("Retry", "x", conf=RetryConf()))
    one, other = (
        routed_proxy(("default", name), dataplane(REDIS), "10.0.0.1", NodeInfo(), policies) for name in ("a", "b")
    )
    assert one.outbounds[0] is other.outbounds[0]
    assert one.service_policies[0][1] is other.service_policies[0][1]


def test_unchanged_types_keep_what_they_remember():
    route, retry = policy("TrafficRoute", "r", conf=EVERYTHING), policy("Retry", "x", conf=RetryConf())
    before = MeshPolicies.of({"TrafficRoute": [route], "Retry": [retry]})
    assert MeshPolicies.of({"Retry": [retry], "TrafficRoute": [route]}, before) is before
    after = MeshPolicies.of({"TrafficRoute": [route]}, before)
    assert after.routes is before.routes
    assert after.retries is not before.retries


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        pytest.param(policy("Timeout", "a", to="redis"), True, id="own outbound"),
        pytest.param(policy("CircuitBreaker", "a", to="cache"), True, id="destination of its route"),
        pytest.param(policy("Retry", "a", to="other"), False, id="another service"),
        pytest.param(policy("Retry", "a", source="other"), False, id="another source"),
        pytest.param(policy("Timeout", "a", source="other", to="web"), True, id="timeouts reach the inbound as well"),
        pytest.param(policy("Retry", "a", source="other", to="web"), False, id="retries do not"),
    ],
)
def test_whether_a_policy_can_change_a_proxy(candidate, expected):
    made = proxy(dataplane(REDIS), policy("TrafficRoute", "r", conf=TrafficRouteConf(destination=tags("cache"))))
    assert concerns_proxy(candidate, made) is expected


@pytest.mark.parametrize(
    "stranger",
    [
        ResourceKey("TrafficPermission", "default", "a"),
        ResourceKey("Timeout", "another", "a"),
    ],
)
def test_other_types_and_other_meshes_change_no_proxy(stranger):
    made = proxy(dataplane(REDIS))
    assert not concerns_proxy(Resource(key=stranger, spec=policy("Timeout", "a").spec), made)


def test_remembering_is_bounded(monkeypatch):
    monkeypatch.setattr("snapshot.topology.outbounds.KEPT", 3)
    policies = mesh_policies(policy("TrafficRoute", "r", conf=EVERYTHING))
    for port in range(1, 20):
        spec = dataplane(Outbound(port=port, tags=tags("redis")))
        made = routed_proxy(("default", "a"), spec, "10.0.0.1", NodeInfo(), policies)
        assert [outbound.outbound.port for outbound in made.outbounds] == [port]
    assert len(policies.answers.outbounds) <= 3

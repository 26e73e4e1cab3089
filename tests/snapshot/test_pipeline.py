"""One proxy, built: sharing, issues, provenance, endpoints. What exactly is built: pipeline/*.yaml."""

import gc

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from google.protobuf.json_format import MessageToDict

from snapshot.cache.memo import Memo
from snapshot.cache.type_url import CLUSTER, LISTENER
from snapshot.model.dataplane import Inbound, Outbound, ProbeEndpoint, Probes
from snapshot.model.meta import NANOSECONDS, ResourceKey
from snapshot.model.policies import CircuitBreakerConf, HttpTimeout, RetryConf, TcpRetry, TimeoutConf
from snapshot.model.tags import Tags
from snapshot.model.traffic_route import HttpRule, LoadBalancer, Maglev, Split, TrafficRouteConf
from snapshot.pipeline import build, build_endpoints
from snapshot.topology.proxy import Endpoint, EndpointSelector, NodeInfo, Protocol, Settings
from tests.support.policies import EVERYTHING, SERVICE, StatedFacts, dataplane, policy, proxy, tags

ROUTE = policy("TrafficRoute", "route", conf=EVERYTHING)
REDIS, CACHE = Outbound(port=1000, tags=tags("redis")), Outbound(port=1001, tags=tags("cache"))


def built(spec, *policies, facts=None, memo=None, settings=None, node=None, name="web-1"):
    made = proxy(spec, *policies, node=node, name=name)
    return build(made, facts or StatedFacts(), settings or Settings(), memo or Memo())


def cluster(result, name):
    return Cluster.FromString(result.snapshot.resources[CLUSTER][name].body)


def listener(result, name):
    return Listener.FromString(result.snapshot.resources[LISTENER][name].body)


class TestSharing:
    def test_proxies_with_equal_outbounds_share_the_objects(self):
        memo = Memo()
        one = built(dataplane(REDIS, CACHE), ROUTE, memo=memo, name="a")
        other = built(dataplane(REDIS), ROUTE, memo=memo, name="b")
        for url, name in ((CLUSTER, "redis"), (LISTENER, "outbound:127.0.0.1:1000")):
            assert one.snapshot.resources[url][name] is other.snapshot.resources[url][name]

    def test_nothing_is_built_twice_while_somebody_has_it(self):
        memo = Memo()
        kept = built(dataplane(REDIS, CACHE), ROUTE, memo=memo)
        before = memo.made
        again = built(dataplane(REDIS, CACHE), ROUTE, memo=memo)
        assert memo.made == before
        assert again.parts == kept.parts

    def test_an_unrelated_change_builds_only_what_it_touches(self):
        memo = Memo()
        kept = built(dataplane(REDIS, CACHE), ROUTE, memo=memo)
        before = memo.made
        breaker = policy("CircuitBreaker", "b", to="cache", conf=CircuitBreakerConf())
        after = built(dataplane(REDIS, CACHE), ROUTE, breaker, memo=memo)
        assert memo.made == before + 2, "the cluster, and the outbound around it"
        assert after.parts[:2] == kept.parts[:2]

    def test_equal_content_is_one_object_though_inputs_differ(self):
        memo = Memo()
        kept = built(dataplane(REDIS), ROUTE, memo=memo)
        elsewhere = built(dataplane(Outbound(port=2000, tags=tags("redis"))), ROUTE, memo=memo)
        assert kept.snapshot.resources[CLUSTER]["redis"] is elsewhere.snapshot.resources[CLUSTER]["redis"]

    def test_what_nobody_has_is_forgotten(self):
        memo = Memo()
        result = built(dataplane(REDIS), ROUTE, memo=memo)
        del result
        gc.collect()
        assert (len(memo._made), len(memo._shared)) == (0, 0)

    @pytest.mark.parametrize(
        ("spec", "policies", "facts", "node", "settings"),
        [
            pytest.param(dataplane(REDIS, gateway=tags("edge")), [ROUTE], None, None, None, id="tags"),
            pytest.param(
                dataplane(REDIS), [ROUTE, policy("Timeout", "t", conf=TimeoutConf())], None, None, None, id="timeout"
            ),
            pytest.param(dataplane(REDIS), [], None, None, None, id="no route"),
            pytest.param(
                dataplane(REDIS),
                [ROUTE, policy("Retry", "t", conf=RetryConf(http=None, tcp=TcpRetry(max_connect_attempts=2)))],
                StatedFacts(default=Protocol.TCP),
                None,
                None,
                id="retry",
            ),
            pytest.param(dataplane(REDIS), [ROUTE], StatedFacts(default=Protocol.GRPC), None, None, id="protocol"),
            pytest.param(dataplane(REDIS), [ROUTE], None, NodeInfo(admin_port=1), None, id="admin port"),
        ],
    )
    def test_every_input_counts(self, spec, policies, facts, node, settings):
        """A memo that already knows another build never changes what comes out."""
        memo = Memo()
        kept = built(dataplane(REDIS), ROUTE, memo=memo, facts=StatedFacts(default=Protocol.HTTP))
        facts = facts or StatedFacts(default=Protocol.HTTP)
        warm = built(spec, *policies, memo=memo, facts=facts, node=node, settings=settings)
        cold = built(spec, *policies, facts=facts, node=node, settings=settings)
        assert warm.snapshot == cold.snapshot != kept.snapshot


class TestProtocol:
    @pytest.mark.parametrize(
        ("one", "other", "http"),
        [
            (Protocol.HTTP, Protocol.HTTP, True),
            (Protocol.HTTP, None, True),
            (Protocol.GRPC, Protocol.HTTP2, True),
            (Protocol.HTTP, Protocol.HTTP2, False),
            (Protocol.HTTP, Protocol.UNKNOWN, False),
            (None, None, False),
        ],
    )
    def test_a_split_is_http_where_all_its_destinations_with_endpoints_are(self, one, other, http):
        split = tuple(Split(weight=1, destination=tags(service)) for service in ("one", "other"))
        route = policy("TrafficRoute", "route", conf=TrafficRouteConf(split=split))
        result = built(dataplane(REDIS), route, facts=StatedFacts({"one": one, "other": other}))
        (chain,) = listener(result, "outbound:127.0.0.1:1000").filter_chains
        assert ("http" in chain.filters[-1].name) is http

    def test_each_cluster_has_the_timeouts_of_its_own_protocol(self):
        """The listener of such a split is TCP; X §3.4 gives the cluster of an HTTP service its idle timeout."""
        split = tuple(Split(weight=1, destination=tags(service)) for service in ("web", "db", "none"))
        facts = StatedFacts({"web": Protocol.HTTP, "db": Protocol.TCP, "none": None})
        route = policy("TrafficRoute", "route", conf=TrafficRouteConf(split=split))
        conf = TimeoutConf(http=HttpTimeout(idle_timeout=7 * NANOSECONDS))
        result = built(dataplane(REDIS), route, policy("Timeout", "t", conf=conf), facts=facts)
        (chain,) = listener(result, "outbound:127.0.0.1:1000").filter_chains
        assert chain.filters[-1].name == "envoy.filters.network.tcp_proxy"
        idle = {}
        for service in ("web", "db", "none"):
            (packed,) = cluster(result, service).typed_extension_protocol_options.values()
            options = HttpProtocolOptions.FromString(packed.value)
            idle[service] = options.common_http_protocol_options.idle_timeout.seconds
        assert idle == {"web": 7, "db": 0, "none": 0}

    def test_only_destinations_are_asked_about(self):
        facts = StatedFacts()
        route = policy(
            "TrafficRoute",
            "route",
            conf=TrafficRouteConf(destination=tags("b"), http=(HttpRule(destination=tags("a")),)),
        )
        built(dataplane(REDIS), route, facts=facts)
        assert facts.asked == ["a", "b"]


class TestClusters:
    def test_of_two_roads_to_one_cluster_the_last_decides(self):
        slow = policy(
            "TrafficRoute",
            "cache",
            to="cache",
            conf=TrafficRouteConf(destination=tags("redis"), load_balancer=LoadBalancer(maglev=Maglev())),
        )
        assert cluster(built(dataplane(REDIS, CACHE), ROUTE, slow), "redis").lb_policy == Cluster.MAGLEV
        assert cluster(built(dataplane(CACHE, REDIS), ROUTE, slow), "redis").lb_policy == Cluster.ROUND_ROBIN

    def test_a_cluster_tells_which_endpoints_it_reads(self):
        outbound = Outbound(port=1000, tags=tags("redis", version="1"))
        result = built(dataplane(outbound), ROUTE)
        ((name, selector),) = result.endpoints.items()
        assert selector == EndpointSelector("redis", Tags({"version": "1"}))
        assert result.snapshot.endpoint_names == {name}
        assert result.snapshot.resources[CLUSTER][name].eds_service_name == name

    def test_the_name_of_a_subset_depends_on_its_tags_alone(self):
        outbounds = [Outbound(port=1000 + at, tags=tags("redis", version=str(at))) for at in range(3)]
        everywhere = set(built(dataplane(*outbounds), ROUTE).endpoints)
        alone = {name for outbound in outbounds for name in built(dataplane(outbound), ROUTE).endpoints}
        assert everywhere == alone
        assert all(name.startswith("redis-_") and name.removeprefix("redis-_")[:-1].isdigit() for name in everywhere)

    def test_applications_on_one_port_and_two_addresses_are_two_clusters(self):
        inbounds = (
            Inbound(port=8001, service_port=80, tags=tags("a")),
            Inbound(port=8002, service_port=80, service_address="127.0.0.2", tags=tags("b")),
        )
        result = built(dataplane(inbounds=inbounds))
        assert set(result.snapshot.resources[CLUSTER]) == {"localhost:80", "127.0.0.2:80"}
        (chain,) = listener(result, "inbound:10.0.0.1:8002").filter_chains
        assert b"127.0.0.2:80" in chain.filters[0].typed_config.value


class TestInbound:
    @pytest.mark.parametrize(("seconds", "expected"), [(10, None), (60, 60)])
    def test_a_granted_long_request_is_not_cut_at_the_inbound(self, seconds, expected):
        conf = TimeoutConf(http=HttpTimeout(request_timeout=seconds * NANOSECONDS))
        inbound = Inbound(port=80, tags=tags("web", **{"kuma.io/protocol": "http"}))
        result = built(dataplane(inbounds=(inbound,)), policy("Timeout", "t", source="other", to="web", conf=conf))
        message = MessageToDict(listener(result, "inbound:10.0.0.1:80"))
        route = message["filterChains"][0]["filters"][0]["typedConfig"]["routeConfig"]["virtualHosts"][0]["routes"][0]
        assert route["route"].get("timeout") == (f"{expected}s" if expected else None)


class TestAdmin:
    PAIR = Settings(admin_cert_pem=b"cert", admin_key_pem=b"key")

    @pytest.mark.parametrize(
        ("version", "settings", "chains"),
        [
            ("1.5.1", PAIR, 2),
            ("1.4.0", PAIR, 2),
            ("v2.14.3", PAIR, 2),
            ("dev-a1b2c3", PAIR, 2),
            ("1.4.0-rc1", PAIR, 1),
            ("1.5.0-rc1", PAIR, 2),
            ("1.3.9", PAIR, 1),
            ("0.0.0-preview.1", PAIR, 1),
            ("", PAIR, 1),
            ("unknown", PAIR, 1),
            (f"{'9' * 5000}.0.0", PAIR, 1),
            ("1.5.1", Settings(), 1),
        ],
    )
    def test_the_control_plane_has_a_chain_where_both_sides_have_their_certificates(self, version, settings, chains):
        node = NodeInfo(admin_port=9901, kuma_dp_version=version)
        result = built(dataplane(), node=node, settings=settings)
        assert len(listener(result, "kuma:envoy:admin").filter_chains) == chains

    def test_on_loopback_there_is_only_the_cluster(self):
        made = proxy(dataplane(), node=NodeInfo(admin_port=9901))
        at_home = type(made)(key=made.key, dataplane=made.dataplane, address="127.0.0.1", node=made.node)
        result = build(at_home, StatedFacts(), Settings(), Memo())
        assert "kuma:envoy:admin" in result.snapshot.resources[CLUSTER]
        assert "kuma:envoy:admin" not in result.snapshot.resources[LISTENER]
        assert result.issues == ()

    def test_an_inbound_on_all_addresses_does_not_take_the_port_of_the_admin_interface(self):
        inbound = Inbound(port=9901, address="0.0.0.0", tags=tags("web"))  # noqa: S104 - not bound
        result = built(dataplane(inbounds=(inbound,)), node=NodeInfo(admin_port=9901))
        assert set(result.snapshot.resources[LISTENER]) == {"kuma:envoy:admin"}
        assert [issue.reason for issue in result.issues] == [
            "networking.inbound[0]: 0.0.0.0:9901 is already taken by the admin interface of Envoy; choose another port"
        ]


class TestIssues:
    def test_tags_too_long_for_a_header_are_not_sent_and_are_reported(self):
        many = tuple(Inbound(port=1000 + at, tags=tags(f"service-number-{at:04}")) for at in range(1000))
        result = built(dataplane(REDIS, CACHE, inbounds=many), ROUTE, facts=StatedFacts(default=Protocol.HTTP))
        assert b"x-kuma-tags" not in result.snapshot.resources[LISTENER]["outbound:127.0.0.1:1000"].body
        (issue,) = result.issues
        assert issue.object == ResourceKey("Dataplane", "default", "web-1")
        assert "bytes long, and Envoy takes no header above 16384; peers are not told" in issue.reason

    def test_one_address_has_one_listener_whatever_its_spelling(self):
        spelled = [Outbound(port=1, address=ip, tags=tags("redis")) for ip in ("::1", "0:0:0:0:0:0:0:1")]
        result = built(dataplane(*spelled), ROUTE)
        assert set(result.snapshot.resources[LISTENER]) == {"inbound:10.0.0.1:80", "outbound:[::1]:1"}
        ((key, reason),) = result.issues
        assert key == ResourceKey("Dataplane", "default", "web-1")
        assert (
            reason == "networking.outbound[1]: [::1]:1 is already taken by networking.outbound[0]; choose another port"
        )

    @pytest.mark.parametrize(
        ("broken", "reason"),
        [
            (Outbound(port=70000, tags=tags("redis")), "port: 70000 is not between 1 and 65535"),
            (Outbound(port=1, address="redis.local", tags=tags("redis")), 'address: "redis.local" is no IP address'),
            (Outbound(port=1), 'tags: must have the tag "kuma.io/service"'),
        ],
    )
    def test_a_broken_outbound_stops_nothing_else(self, broken, reason):
        result = built(dataplane(broken, REDIS), ROUTE)
        assert set(result.snapshot.resources[LISTENER]) == {"inbound:10.0.0.1:80", "outbound:127.0.0.1:1000"}
        assert [issue.reason for issue in result.issues] == [f"networking.outbound[0]: {reason}; it is left out"]

    def test_an_inbound_without_a_service_is_reported(self):
        result = built(
            dataplane(inbounds=(Inbound(port=80, tags=Tags({"a": "b"})), Inbound(port=81, tags=tags("web"))))
        )
        assert set(result.snapshot.resources[LISTENER]) == {"inbound:10.0.0.1:81"}
        assert [issue.reason for issue in result.issues] == [
            'networking.inbound[0]: tags: must have the tag "kuma.io/service"; it is left out'
        ]

    def test_weights_that_envoy_cannot_add_up_are_reported(self):
        split = tuple(Split(weight=2**32 - 1, destination=tags(service)) for service in ("a", "b"))
        result = built(dataplane(REDIS), policy("TrafficRoute", "r", conf=TrafficRouteConf(split=split)))
        assert "sum of more than 4294967295" in result.issues[0].reason

    def test_a_policy_is_reported_once_for_all_outbounds(self):
        zero = policy("Timeout", "zero", conf=TimeoutConf(connect_timeout=0))
        result = built(dataplane(REDIS, CACHE), ROUTE, zero)
        assert [issue.object.name for issue in result.issues] == ["zero"]


class TestProvenance:
    def test_each_resource_names_its_objects(self):
        policies = [
            ROUTE,
            policy("Timeout", "t", conf=TimeoutConf()),
            policy("CircuitBreaker", "c", conf=CircuitBreakerConf()),
            policy("Retry", "r", conf=RetryConf()),
        ]
        result = built(dataplane(REDIS), *policies)
        kinds = {name: [key.type for key in objects] for (_, name), objects in result.provenance.items()}
        assert len(result.provenance) == len(kinds)
        assert kinds == {
            "inbound:10.0.0.1:80": ["Dataplane"],
            "localhost:80": ["Dataplane"],
            "outbound:127.0.0.1:1000": ["Dataplane", "TrafficRoute", "Timeout", "Retry"],
            "redis": ["Dataplane", "TrafficRoute", "Timeout", "CircuitBreaker"],
        }
        assert result.provenance.objects() == {p.key for p in policies} | {ResourceKey("Dataplane", "default", "web-1")}


class TestProbes:
    def test_a_probe_leads_to_the_cluster_of_its_application(self):
        probes = Probes(port=9000, endpoints=(ProbeEndpoint(inbound_port=80, inbound_path="/h", path="/80/h"),))
        result = built(dataplane(probes=probes))
        assert b"localhost:80" in result.snapshot.resources[LISTENER]["probe:listener"].body

    def test_a_backslash_in_a_path_refers_to_no_group(self):
        probes = Probes(port=9000, endpoints=(ProbeEndpoint(inbound_port=80, inbound_path=r"/h\1", path="/80/h"),))
        result = built(dataplane(probes=probes))
        assert rb"/h\\1" in result.snapshot.resources[LISTENER]["probe:listener"].body


class TestEndpoints:
    def test_order_never_shows(self):
        endpoints = [
            Endpoint(address=f"10.0.0.{n}", port=n, tags=tags("a", **{"kuma.io/zone": f"z{n % 3}"}))
            for n in range(1, 9)
        ]
        assert build_endpoints("a", endpoints).version == build_endpoints("a", reversed(endpoints)).version

    def test_zones_descend_and_the_one_without_is_last(self):
        endpoints = [
            Endpoint(address="10.0.0.2", port=1, tags=tags("a")),
            Endpoint(address="10.0.0.10", port=1, tags=tags("a", **{"kuma.io/zone": "east"})),
            Endpoint(address="10.0.0.9", port=2, tags=tags("a", **{"kuma.io/zone": "west"})),
            Endpoint(address="10.0.0.9", port=1, tags=tags("a", **{"kuma.io/zone": "west"})),
        ]
        made = ClusterLoadAssignment.FromString(build_endpoints("a", endpoints).body)
        assert [group.locality.zone for group in made.endpoints] == ["west", "east", ""]
        assert not made.endpoints[-1].HasField("locality")
        ports = [member.endpoint.address.socket_address.port_value for member in made.endpoints[0].lb_endpoints]
        assert ports == [1, 2]

    def test_tags_except_the_service_become_metadata(self):
        made = ClusterLoadAssignment.FromString(
            build_endpoints(
                "a", [Endpoint(address="10.0.0.1", port=1, tags=Tags({SERVICE: "a", "v": "1"}), weight=3)]
            ).body
        )
        (member,) = made.endpoints[0].lb_endpoints
        assert MessageToDict(member.metadata)["filterMetadata"] == {
            "envoy.lb": {"v": "1"},
            "envoy.transport_socket_match": {"v": "1"},
        }
        assert member.load_balancing_weight.value == 3

    def test_without_endpoints_it_is_empty(self):
        made = build_endpoints("a", [])
        assert MessageToDict(ClusterLoadAssignment.FromString(made.body)) == {"clusterName": "a"}

"""Names of clusters, and outbounds that lead nowhere."""

import pytest

from snapshot.generators.outbound import cluster_name, outbound_part, weighted_clusters
from snapshot.model.dataplane import Outbound
from snapshot.model.tags import Tags
from snapshot.model.traffic_route import HttpRule, Split, TrafficRouteConf
from snapshot.topology.proxy import Protocol, RoutedOutbound
from tests.support.policies import tags


@pytest.mark.parametrize(
    ("destination", "name"),
    [
        (tags("redis"), "redis"),
        (tags("redis", version="1"), "redis-_274694039240529_"),
        (Tags({"version": "1", "kuma.io/service": "redis"}), "redis-_274694039240529_"),
        (tags("redis", version="2"), "redis-_244580696711152_"),
    ],
)
def test_a_cluster_is_named_by_its_tags_for_ever(destination, name):
    """Another name after an upgrade would make every Envoy replace these clusters and drain their connections."""
    assert cluster_name(destination) == name


def test_keys_and_values_do_not_run_together():
    assert cluster_name(tags("a", k="xy")) != cluster_name(tags("a", kx="y"))


def test_a_destination_without_a_service_is_refused():
    with pytest.raises(ValueError, match=r"a destination must have the tag"):
        cluster_name(Tags({"version": "1"}))


def test_equal_destinations_add_their_weights():
    split = (
        Split(weight=1, destination=tags("a")),
        Split(weight=2, destination=tags("b")),
        Split(weight=3, destination=tags("a")),
    )
    assert weighted_clusters(TrafficRouteConf(split=split)) == [("a", 4), ("b", 2)]


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.HTTP])
def test_a_route_of_weights_0_leads_nowhere_and_breaks_nothing(protocol):
    nothing = (Split(weight=0, destination=tags("a")),)
    route = TrafficRouteConf(split=nothing, http=(HttpRule(split=nothing),))
    routed = RoutedOutbound(outbound=Outbound(port=1, tags=tags("a")), service="a", route=route)
    made = outbound_part(routed, protocol, "", kafka=False)
    assert made.services == {}
    (chain,) = made.listener.finish().filter_chains
    assert len(chain.filters) == (protocol is Protocol.HTTP)

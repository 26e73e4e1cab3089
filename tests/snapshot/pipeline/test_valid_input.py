"""Whatever is valid can be built: nothing raises, nothing is named twice, every reference leads somewhere."""

from ipaddress import ip_address

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapshot.cache.memo import Memo
from snapshot.cache.type_url import CLUSTER, LISTENER
from snapshot.model.meta import ProxyKey
from snapshot.pipeline import build, build_endpoints
from snapshot.topology.mesh_context import MeshContext, Names
from snapshot.topology.outbounds import MeshPolicies, routed_proxy
from snapshot.topology.proxy import KAFKA_BROKER, NodeInfo, Settings
from tests.support import valid_documents

NODES = st.builds(
    NodeInfo,
    admin_port=st.sampled_from((0, 80, 9901)),
    extensions=st.sampled_from((frozenset(), frozenset({KAFKA_BROKER}))),
    kuma_dp_version=st.sampled_from(("", "1.5.1", "dev")),
)
RESOLVED = Names({"name.example": "10.9.9.9"}, {})


def clusters_of(message):
    """The clusters that a listener sends to."""
    for chain in message.filter_chains:
        for one in chain.filters:
            if one.name.endswith("tcp_proxy"):
                proxy = TcpProxy.FromString(one.typed_config.value)
                yield from [c.name for c in proxy.weighted_clusters.clusters] or [proxy.cluster]
            elif one.name.endswith("http_connection_manager"):
                manager = HttpConnectionManager.FromString(one.typed_config.value)
                for route in manager.route_config.virtual_hosts[0].routes:
                    if route.HasField("route"):
                        yield from [c.name for c in route.route.weighted_clusters.clusters] or [route.route.cluster]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(
    valid_documents.dataplane("p"),
    st.lists(valid_documents.dataplane("q"), min_size=1, max_size=1),
    valid_documents.policies(),
    NODES,
)
def test_whatever_is_valid_is_built(own, others, policies, node):
    offer = MeshContext({one.key.name: one.spec for one in (own, *others)}, RESOLVED)
    by_type = {kind: [p for p in policies if p.key.type == kind] for kind in valid_documents.CONFS}
    address = offer.contributions["p"].address
    proxy = routed_proxy(ProxyKey("default", "p"), own.spec, address, node, MeshPolicies.of(by_type))

    built = build(proxy, offer, Settings(admin_cert_pem=b"c", admin_key_pem=b"k"), Memo())

    clusters = {n: Cluster.FromString(r.body) for n, r in built.snapshot.resources[CLUSTER].items()}
    listeners = {n: Listener.FromString(r.body) for n, r in built.snapshot.resources[LISTENER].items()}
    assert all(name == message.name for name, message in (clusters | listeners).items() if name != "kuma:envoy:admin")
    places = [
        (ip_address(m.address.socket_address.address), m.address.socket_address.port_value) for m in listeners.values()
    ]
    assert len(places) == len(set(places))
    assert (ip_address("127.0.0.1"), node.admin_port) not in places
    assert {c for m in listeners.values() for c in clusters_of(m)} <= set(clusters)
    by_eds = {name for name, message in clusters.items() if message.type == Cluster.EDS}
    assert by_eds == set(built.endpoints) == built.snapshot.endpoint_names
    for name, selector in built.endpoints.items():
        assert build_endpoints(name, offer.endpoints(selector)).name == name
    assert len(built.provenance) == len(clusters) + len(listeners)
    left_out = [issue.reason for issue in built.issues if issue.reason.endswith("it is left out")]
    assert all("the weights of a split have a sum of more than" in reason for reason in left_out)

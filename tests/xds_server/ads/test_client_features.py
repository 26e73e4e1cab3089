"""What a client says that it can do changes nothing that is not said in the rules."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from snapshot.cache.resource import XdsResource
from snapshot.cache.type_url import CLUSTER
from snapshot.model.meta import ProxyKey
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, node

WEB = ProxyKey("default", "web")
A = XdsResource.of(CLUSTER, "a", Cluster(name="a"))
BOTH = pytest.mark.parametrize("method", [SOTW_METHOD, DELTA_METHOD], ids=["sotw", "delta"])
GRPC = ["envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw"]


async def answer(harness, method: str, features: list[str]):
    stream = harness.stream(method)
    await stream.send(node=node("default.web", client_features=features), type_url=CLUSTER)
    response = await stream.receive()
    response.nonce = ""
    session = next(iter(harness.server.sessions(WEB)))
    stream.cancel()
    await harness.until(lambda: not harness.server.sessions(WEB))
    return response, session.identity.features


@pytest.mark.rule("XP-18", "XP-153")
@BOTH
@pytest.mark.parametrize(
    "features",
    [GRPC, ["com.example.not-yet-invented", "", "x" * 5000, "✓"], ["same", "same"]],
    ids=["what gRPC sends", "unknown", "twice"],
)
async def test_features_are_read_and_change_no_byte(harness, method, features):
    harness.nodes.publish(WEB, A)
    plain, none = await answer(harness, method, [])
    response, read = await answer(harness, method, features)
    assert none == frozenset()
    assert read == frozenset(features)
    assert response == plain


@pytest.mark.rule("XP-18")
async def test_only_the_first_request_counts(harness):
    harness.nodes.publish(WEB, A)
    stream = harness.stream(SOTW_METHOD)
    await stream.send(node=node("default.web", client_features=GRPC[:1]), type_url=CLUSTER)
    response = await stream.receive()
    await stream.ack(response, node=node("default.web", client_features=["late"]))
    harness.nodes.publish(WEB, XdsResource.of(CLUSTER, "b", Cluster(name="b")))
    assert len((await stream.receive()).resources) == 2
    assert next(iter(harness.server.sessions(WEB))).identity.features == frozenset(GRPC[:1])

"""The policies of a new mesh (R §6.1)."""

from datetime import UTC, datetime

from snapshot.model.codec import decode_resource, encode_resource, encode_spec
from snapshot.model.defaults import default_policies
from snapshot.registry import TYPES

BACK_OFF = {"numRetries": 5, "perTryTimeout": "16s", "backOff": {"baseInterval": "0.025s", "maxInterval": "0.250s"}}
CONF = {
    "TrafficPermission/allow-all-m": None,
    "TrafficRoute/route-all-m": {"loadBalancer": {"roundRobin": {}}, "destination": {"kuma.io/service": "*"}},
    "Timeout/timeout-all-m": {
        "connectTimeout": "5s",
        "tcp": {"idleTimeout": "3600s"},
        "http": {"requestTimeout": "15s", "idleTimeout": "3600s"},
        "grpc": {"streamIdleTimeout": "300s"},
    },
    "CircuitBreaker/circuit-breaker-all-m": {
        "thresholds": {"maxConnections": 1024, "maxPendingRequests": 1024, "maxRetries": 3, "maxRequests": 1024}
    },
    "Retry/retry-all-m": {"http": BACK_OFF, "tcp": {"maxConnectAttempts": 5}, "grpc": BACK_OFF},
}
ALL = [{"match": {"kuma.io/service": "*"}}]


def test_the_table():
    policies = {f"{one.key.type}/{one.key.name}": encode_spec(one.spec) for one in default_policies("m")}
    assert policies == {
        name: {"sources": ALL, "destinations": ALL} | ({"conf": conf} if conf else {}) for name, conf in CONF.items()
    }


def test_they_are_valid_and_read_back():
    now = datetime(2022, 4, 5, 12, tzinfo=UTC)
    for policy in default_policies("m", now):
        assert TYPES[policy.key.type].validate(policy.spec, policy.key.mesh, policy.key.name) == []
        assert encode_resource(policy)["creationTime"] == "2022-04-05T12:00:00Z"
        key, decoded = decode_resource(encode_resource(policy))
        assert (key, decoded.spec, decoded.warnings) == (policy.key, policy.spec, ())

"""What validation lets through, a real Envoy takes: the edges of what a user can write in policies."""

import itertools

import pytest
import yaml

from snapshot.model.codec import decode_spec
from snapshot.model.rules.headers import _OF_LENGTH, MOST_BYTES, PARAMETERS, VARIABLES
from snapshot.registry import TYPES
from tests.support.goldens import load
from tests.support.real_envoy import RealEnvoy

LARGEST = 2**32 - 1
LONGEST = "2562047h47m16.854775807s"
TO = {"kuma.io/service": "backend"}
ANY = {"kuma.io/service": "*"}
EXAMPLES = {
    "REQ": ("x-id", ":path?x", "X?:authority"),
    "RESP": ("x",),
    "TRAILER": ("x",),
    "PER_REQUEST_STATE": ("a.b",),
    "FILTER_STATE": ("a.b", "a:PLAIN", "a:TYPED"),
    "ENVIRONMENT": ("HOME",),
    "START_TIME": ("", "%Y/%m/%dT%H:%M:%S.%3f", "%s"),
}
METADATA = ("a", "a:b:c", "a.b-c_d:e/f", '["a"]', '["a", "b"]')


def variables():
    yield from (f"%{name}%" for name in sorted(VARIABLES))
    for name in PARAMETERS:
        for parameter in EXAMPLES.get(name, METADATA):
            yield f"%{name}({parameter})%"
            if name in _OF_LENGTH:
                yield f"%{name}({parameter}):5%"


def route(**rule):
    return "TrafficRoute", {
        "destination": TO,
        "http": [{"match": {"path": {"prefix": "/a"}}, "destination": TO, **rule}],
    }


def modify(**change):
    return route(modify=change)


def balance(**balancer):
    return "TrafficRoute", {"destination": TO, "loadBalancer": balancer}


def timeout(length):
    return "Timeout", {
        "connectTimeout": length,
        "tcp": {"idleTimeout": length},
        "http": {"requestTimeout": length, "idleTimeout": length},
        "grpc": {"streamIdleTimeout": length, "maxStreamDuration": length},
    }


def retry(length):
    tries = {
        "numRetries": LARGEST,
        "perTryTimeout": length,
        "backOff": dict.fromkeys(["baseInterval", "maxInterval"], length),
    }
    return "Retry", {
        "http": {**tries, "retriableStatusCodes": [0, LARGEST], "retriableMethods": ["GET", "CONNECT", "GET"]},
        "tcp": {"maxConnectAttempts": LARGEST},
        "grpc": {
            **tries,
            "retryOn": ["cancelled", "deadline_exceeded", "internal", "resource_exhausted", "unavailable"],
        },
    }


def breaker(length):
    return "CircuitBreaker", {
        "interval": length,
        "baseEjectionTime": length,
        "maxEjectionPercent": 100,
        "splitExternalAndLocalErrors": True,
        "detectors": {
            "totalErrors": {"consecutive": LARGEST},
            "gatewayErrors": {"consecutive": 0},
            "localErrors": {},
            "standardDeviation": {"requestVolume": LARGEST, "minimumHosts": LARGEST, "factor": 4000000},
            "failure": {"requestVolume": 0, "minimumHosts": LARGEST, "threshold": 100},
        },
        "thresholds": {"maxConnections": LARGEST, "maxPendingRequests": 0, "maxRetries": LARGEST, "maxRequests": 0},
    }


def headers(*added):
    return modify(requestHeaders={"add": [{"name": f"x-{at}", "value": value} for at, value in enumerate(added)]})


POLICIES = {
    "variables of headers": headers(*variables()),
    "long header": headers("v" * MOST_BYTES),
    "many headers": headers(*["v"] * 1000),
    "odd characters": headers("é", "\t", "\x01", "100%%"),
    "headers removed": modify(responseHeaders={"remove": [{"name": f"x{at}"} for at in range(2000)]}),
    "exact paths": route(match={"path": {"exact": ""}, "method": {"exact": ""}}),
    "odd prefixes": route(match={"path": {"prefix": "x?y#z\n"}, "headers": {"a b é": {"exact": "\0"}}}),
    "expressions": route(match={"path": {"regex": r"(?i)/\pL+"}, "headers": {"x": {"regex": "a|b"}}}),
    "rewritten paths": modify(path={"regex": {"pattern": "/(a)", "substitution": r"/\1\\%FOO%"}}),
    "rewritten prefixes": modify(path={"rewritePrefix": "/%FOO% é"}),
    "hosts": modify(host={"value": "%FOO% é"}),
    "hosts of paths": modify(host={"fromPath": {"pattern": "/(a)", "substitution": r"\1"}}),
    "least request": balance(leastRequest={"choiceCount": LARGEST}),
    "one choice": balance(leastRequest={"choiceCount": 1}),
    "large ring": balance(ringHash={"hashFunction": "XX_HASH", "minRingSize": 2**64 - 1}),
    "small ring": balance(ringHash={"hashFunction": "MURMUR_HASH_2", "maxRingSize": 1}),
    "large weights": ("TrafficRoute", {"split": [{"weight": LARGEST, "destination": TO | {"v": v}} for v in "12"]}),
    "many splits": ("TrafficRoute", {"split": [{"weight": 1, "destination": TO | {"v": str(v)}} for v in range(20)]}),
    **{
        f"{make.__name__} {length}": make(length)
        for make, length in itertools.product((timeout, retry, breaker), ("1ns", "1us", "1ms", LONGEST))
    },
}
PROTOCOLS = ("tcp", "http", "http2", "grpc")


def write(folder, policy, protocol, port):
    kind, conf = policy
    inbound = {"port": port, "tags": TO | {"kuma.io/protocol": protocol, "long": "v" * 20000}}
    selectors = {"sources": [{"match": ANY}], "destinations": [{"match": TO}]}
    documents = [
        {"type": "Dataplane", "name": "p", "networking": {
            "address": "192.168.0.1", "inbound": [inbound], "outbound": [{"port": 10000, "tags": TO}],
        }},
        {"type": kind, "name": "x", **selectors, "conf": conf},
    ]  # fmt: skip
    for document in documents:
        document["mesh"] = "default"
    source = folder / "case.in.yaml"
    source.write_text(yaml.safe_dump_all([{"proxy": "p", "defaults": True}, *documents]), encoding="utf-8")
    return source


@pytest.fixture(scope="module")
def envoy(tmp_path_factory):
    with RealEnvoy(tmp_path_factory.mktemp("envoy")) as running:
        yield running


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_at_the_edge_of_what_is_valid(envoy, name, tmp_path):
    for protocol in PROTOCOLS:
        block = list(POLICIES).index(name)
        port = 1000 + len(PROTOCOLS) * block + PROTOCOLS.index(protocol)
        source = write(tmp_path, POLICIES[name], protocol, port)
        assert envoy.offer(load(source), block) == [], protocol
        assert envoy.stat("cluster_manager.warming_clusters") == 0


def test_the_policies_here_are_valid():
    for name, (kind, conf) in POLICIES.items():
        document = {"sources": [{"match": ANY}], "destinations": [{"match": TO}], "conf": conf}
        assert TYPES[kind].validate_spec(decode_spec(kind, document).spec) == [], name

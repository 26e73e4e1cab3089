"""R §2.7: Timeout, CircuitBreaker and Retry, rule by rule."""

import pytest
import yaml

from snapshot.model.codec import decode_spec
from snapshot.registry import TYPES

SELECTORS = {"sources": [{"match": {"kuma.io/service": "*"}}], "destinations": [{"match": {"kuma.io/service": "*"}}]}
SECTION = "at least one timeout in section has to be defined"
GREATER = "has to be greater than 0"
WHEN_DEFINED = "has to be greater than 0 when defined"
RANGE = "has to be in [0.0 - 100.0] range"
DETECTORS = "must have at least one of the detector or threshold configured"

CASES = [
    ("Timeout", "", [("conf", "has to be defined")]),
    ("Timeout", "conf: {}", []),
    ("Timeout", "conf: {connectTimeout: 0s}", []),  # not checked, as in Kuma; the build reports it
    ("Timeout", "conf: {tcp: {idleTimeout: 1s}, http: {idleTimeout: 1s}, grpc: {maxStreamDuration: 1s}}", []),
    (
        "Timeout",
        "conf: {tcp: {}, http: {}, grpc: {}}",
        [("conf.tcp", SECTION), ("conf.http", SECTION), ("conf.grpc", SECTION)],
    ),
    ("Timeout", "conf: {tcp: {idleTimeout: 0s}}", [("conf.tcp.idleTimeout", GREATER)]),
    (
        "Timeout",
        "conf: {http: {requestTimeout: 0s, idleTimeout: -1s}}",
        [("conf.http.requestTimeout", WHEN_DEFINED), ("conf.http.idleTimeout", WHEN_DEFINED)],
    ),
    (
        "Timeout",
        "conf: {grpc: {streamIdleTimeout: 0s, maxStreamDuration: 0s}}",
        [("conf.grpc.streamIdleTimeout", WHEN_DEFINED), ("conf.grpc.maxStreamDuration", WHEN_DEFINED)],
    ),
    ("CircuitBreaker", "", [("conf", DETECTORS)]),
    ("CircuitBreaker", "conf: {maxEjectionPercent: 101}", [("conf", DETECTORS)]),
    (
        "CircuitBreaker",
        "conf: {detectors: {}, thresholds: {}}",
        [("conf.detectors", "can't be empty"), ("conf.thresholds", "can't be empty")],
    ),
    ("CircuitBreaker", "conf: {detectors: {totalErrors: {}}}", []),
    ("CircuitBreaker", "conf: {thresholds: {maxRetries: 0}, maxEjectionPercent: 100}", []),
    (
        "CircuitBreaker",
        "conf: {thresholds: {maxRetries: 0}, maxEjectionPercent: 101}",
        [("conf.maxEjectionPercent", RANGE)],
    ),
    ("CircuitBreaker", "conf: {detectors: {failure: {threshold: 100}}}", []),
    ("CircuitBreaker", "conf: {detectors: {failure: {threshold: 101}}}", [("conf.detectors.failure.threshold", RANGE)]),
    ("Retry", "", [("conf", "has to be defined")]),
    ("Retry", "conf: {}", [("conf", "missing protocol [grpc|http|tcp] configuration")]),
    (
        "Retry",
        "conf: {http: {}, grpc: {}}",
        [("conf.http", "field cannot be empty"), ("conf.grpc", "field cannot be empty")],
    ),
    ("Retry", "conf: {tcp: {}}", [("conf.tcp.maxConnectAttempts", GREATER)]),
    (
        "Retry",
        "conf: {tcp: {maxConnectAttempts: 1}, http: {retriableStatusCodes: [500]}, grpc: {retryOn: [internal]}}",
        [],
    ),
    (
        "Retry",
        "conf: {http: {retriableMethods: [GET, NONE]}}",
        [("conf.http.retriableMethods[1]", "field cannot be empty")],
    ),
    *(
        (
            "Retry",
            f"conf: {{{protocol}: {{{given}}}}}",
            [(f"conf.{protocol}.{field}", message) for field, message in expected],
        )
        for protocol in ("http", "grpc")
        for given, expected in [
            ("numRetries: 1, perTryTimeout: 1ns, backOff: {baseInterval: 1s}", []),
            ("numRetries: 0, perTryTimeout: 0s", [("numRetries", WHEN_DEFINED), ("perTryTimeout", WHEN_DEFINED)]),
            ("perTryTimeout: -1s", [("perTryTimeout", WHEN_DEFINED)]),
            ("backOff: {}", [("backOff.baseInterval", "has to be defined")]),
            ("backOff: {maxInterval: 0s}", [("backOff.baseInterval", "has to be defined")]),
            (
                "backOff: {baseInterval: 0s, maxInterval: 0s}",
                [("backOff.baseInterval", GREATER), ("backOff.maxInterval", WHEN_DEFINED)],
            ),
        ]
    ),
    (
        "Retry",
        "conf: {grpc: {retryOn: [internal, cancelled, internal, cancelled, unavailable, internal]}}",
        [
            ("conf.grpc.retryOn", 'repeated value "internal" at indexes [0, 2, 5]'),
            ("conf.grpc.retryOn", 'repeated value "cancelled" at indexes [1, 3]'),
        ],
    ),
]


@pytest.mark.parametrize(("type_name", "conf", "expected"), CASES)
def test_rules(type_name, conf, expected):
    document = SELECTORS | (yaml.safe_load(conf) or {})
    assert TYPES[type_name].validate_spec(decode_spec(type_name, document).spec) == expected

"""R §0, row by row."""

from datetime import UTC, date, datetime

import pytest
import yaml

from snapshot.model.codec import DecodeError, UnknownType, decode_resource, decode_spec, encode_resource, encode_spec
from snapshot.model.dataplane import Dataplane
from snapshot.model.insight import DataplaneInsight, DiscoveryServiceStats, DiscoveryStatus, DiscoverySubscription
from snapshot.model.meta import Resource, ResourceKey
from snapshot.model.secret import Secret


def read(type_name, text):
    return decode_spec(type_name, yaml.safe_load(text))


def printed(type_name, text):
    decoded = read(type_name, text)
    assert decoded.warnings == ()
    return encode_spec(decoded.spec)


def cannot(kind, go_type):
    return f"json: cannot unmarshal {kind} into Go value of type {go_type}"


def inbound(text):
    return f"networking: {{inbound: [{text}]}}"


@pytest.mark.parametrize(
    ("type_name", "given", "expected"),
    [
        # names: lowerCamelCase or the name in the schema
        ("Timeout", "conf: {connectTimeout: 5s}", {"conf": {"connectTimeout": "5s"}}),
        ("Timeout", "conf: {connect_timeout: 5s}", {"conf": {"connectTimeout": "5s"}}),
        ("Dataplane", "networking: {transparent_proxying: {x: 1}}", {"networking": {"transparentProxying": {}}}),
        (
            "Dataplane",
            inbound("{serviceProbe: {unhealthy_threshold: 1, healthyThreshold: 2}}"),
            {"networking": {"inbound": [{"serviceProbe": {"unhealthyThreshold": 1, "healthyThreshold": 2}}]}},
        ),
        # zero values are not printed, present but empty messages are
        (
            "Dataplane",
            inbound("{port: 0, tags: {}, health: {ready: false}}"),
            {"networking": {"inbound": [{"health": {}}]}},
        ),
        ("Dataplane", "networking: {inbound: [], outbound: [], gateway: {}}", {"networking": {"gateway": {}}}),
        ("Dataplane", "networking: {gateway: {type: DELEGATED}}", {"networking": {"gateway": {}}}),
        ("Dataplane", "{}", {}),
        ("CircuitBreaker", "conf: {splitExternalAndLocalErrors: false}", {"conf": {}}),
        # null is absent
        ("Dataplane", "{networking: null, probes: {port: null}}", {"probes": {}}),
        # integers may be quoted; 64 bits are printed as text
        ("Dataplane", "probes: {port: '9000'}", {"probes": {"port": 9000}}),
        ("Dataplane", "probes: {port: 9000.0}", {"probes": {"port": 9000}}),
        ("Dataplane", "probes: {port: 4294967295}", {"probes": {"port": 4294967295}}),
        (
            "TrafficRoute",
            "conf: {load_balancer: {ring_hash: {hash_function: XX_HASH, min_ring_size: 64, maxRingSize: '128'}}}",
            {
                "conf": {
                    "loadBalancer": {"ringHash": {"hashFunction": "XX_HASH", "minRingSize": "64", "maxRingSize": "128"}}
                }
            },
        ),
        # enums by name or number
        ("Dataplane", "networking: {gateway: {type: BUILTIN}}", {"networking": {"gateway": {"type": "BUILTIN"}}}),
        ("Dataplane", "networking: {gateway: {type: 1}}", {"networking": {"gateway": {"type": "BUILTIN"}}}),
        (
            "Retry",
            "conf: {grpc: {retryOn: [cancelled, 3]}, http: {retriableMethods: [GET, 7]}}",
            {
                "conf": {
                    "http": {"retriableMethods": ["GET", "POST"]},
                    "grpc": {"retryOn": ["cancelled", "resource_exhausted"]},
                }
            },
        ),
        # durations
        (
            "Timeout",
            "conf: {connectTimeout: 1h30m, tcp: {idleTimeout: '0'}}",
            {"conf": {"connectTimeout": "5400s", "tcp": {"idleTimeout": "0s"}}},
        ),
        ("Timeout", "conf: {connectTimeout: 90.5s}", {"conf": {"connectTimeout": "90.500s"}}),
        # wrappers: present zero is printed
        (
            "TrafficRoute",
            "conf: {split: [{weight: 0}, {weight: 90}]}",
            {"conf": {"split": [{"weight": 0}, {"weight": 90}]}},
        ),
        (
            "CircuitBreaker",
            "conf: {detectors: {standardDeviation: {factor: 1.9}}}",
            {"conf": {"detectors": {"standardDeviation": {"factor": 1.9}}}},
        ),
        (
            "CircuitBreaker",
            "conf: {detectors: {standardDeviation: {factor: '2.0'}}}",
            {"conf": {"detectors": {"standardDeviation": {"factor": 2}}}},
        ),
        # a chosen alternative is printed even where it is empty
        ("TrafficRoute", "conf: {loadBalancer: {roundRobin: {}}}", {"conf": {"loadBalancer": {"roundRobin": {}}}}),
        (
            "TrafficRoute",
            "conf: {http: [{match: {path: {prefix: ''}}}]}",
            {"conf": {"http": [{"match": {"path": {"prefix": ""}}}]}},
        ),
        # bytes
        ("Secret", "data: aGVsbG8=", {"data": "aGVsbG8="}),
        ("GlobalSecret", "data: ''", {}),
        # maps are sorted; keys that YAML reads as other scalars are texts; null is the empty value
        (
            "Dataplane",
            inbound("{tags: {version: v1, 3: a, true: b, 1.5: c, 2.0: d, a: null}}"),
            {
                "networking": {
                    "inbound": [{"tags": {"1.5": "c", "2": "d", "3": "a", "a": "", "true": "b", "version": "v1"}}]
                }
            },
        ),
        (
            "TrafficRoute",
            "conf: {http: [{match: {headers: {b: {exact: x}, a: {regex: y}}}}]}",
            {"conf": {"http": [{"match": {"headers": {"a": {"regex": "y"}, "b": {"exact": "x"}}}}]}},
        ),
        # a dangling dash is an empty message
        ("Timeout", "sources:\n-\n", {"sources": [{}]}),
        ("Dataplane", 'networking: {address: "a\\uD800é"}', {"networking": {"address": "a\ufffdé"}}),
        # recognised only to be refused
        ("Mesh", "{mtls: {backends: [1]}, metrics: {}}", {"mtls": {}, "metrics": {}}),
    ],
)
def test_what_is_read_and_printed(type_name, given, expected):
    result = printed(type_name, given)
    assert result == expected
    assert decode_spec(type_name, result) == decode_spec(type_name, yaml.safe_load(given))


def test_fields_are_printed_in_the_order_of_the_schema():
    given = """
        networking:
          admin: {port: 9901}
          outbound: [{tags: {kuma.io/service: a}, port: 1, address: 127.0.0.2}]
          inbound: [{serviceProbe: {}, health: {}, tags: {b: c}, address: 1.1.1.1, serviceAddress: 1.1.1.2,
                     servicePort: 1, port: 2}]
          gateway: {}
          advertisedAddress: b
          address: a
        """
    networking = printed("Dataplane", given)["networking"]
    assert list(networking) == ["address", "advertisedAddress", "gateway", "inbound", "outbound", "admin"]
    assert list(networking["inbound"][0]) == [
        "port", "servicePort", "serviceAddress", "address", "tags", "health", "serviceProbe",
    ]  # fmt: skip
    conf = printed("CircuitBreaker", "conf: {thresholds: {}, detectors: {}, maxEjectionPercent: 1, interval: 1s}")[
        "conf"
    ]
    assert list(conf) == ["interval", "maxEjectionPercent", "detectors", "thresholds"]


@pytest.mark.parametrize(
    ("type_name", "given", "warnings"),
    [
        (
            "Dataplane",
            inbound("{port: 1, service_port: 2, tags: {a: b}}"),
            ['networking.inbound[0].service_port: unknown field, it has no effect. Did you mean "servicePort"?'],
        ),
        ("Dataplane", "{x: {y: 1}}", ["x: unknown field, it has no effect."]),
        (
            "TrafficRoute",
            "conf: {http: [{match: {headers: {h: {exakt: 1}}}}]}",
            ['conf.http[0].match.headers["h"].exakt: unknown field, it has no effect.'],
        ),
        (
            "Timeout",
            "conf: {connectTimeout: 1s, connect_timeout: 2s}",
            ['conf.connect_timeout: unknown field, it has no effect. Did you mean "connectTimeout"?'],
        ),
        (
            "Mesh",
            "routing: {localityAwareLoadBalancing: true}",
            ["routing.localityAwareLoadBalancing: has an effect only between zones, and this version has one zone"],
        ),
        ("Dataplane", "{1: a}", ["1: unknown field, it has no effect."]),
    ],
)
def test_what_is_said_in_vain_is_reported(type_name, given, warnings):
    assert list(read(type_name, given).warnings) == warnings


def test_warnings_are_bounded():
    decoded = decode_spec("Dataplane", {f"x{index}": 1 for index in range(1000)} | {"y" * 10_000: 1})
    assert len(decoded.warnings) == 51
    assert decoded.warnings[-1] == "951 more unknown fields, which have no effect either"


@pytest.mark.parametrize(
    ("type_name", "given", "field", "message"),
    [
        (
            "Dataplane",
            inbound("{tags: {version: 1}}"),
            'networking.inbound[0].tags["version"]',
            cannot("number", "string"),
        ),
        ("Dataplane", "networking: {address: 1}", "networking.address", cannot("number", "string")),
        ("Dataplane", "networking: {address: [a]}", "networking.address", cannot("array", "string")),
        ("Dataplane", "networking: {address: {a: b}}", "networking.address", cannot("object", "string")),
        ("Dataplane", "networking: {address: true}", "networking.address", cannot("bool", "string")),
        ("Dataplane", "networking: 1", "networking", "must be an object, not a number"),
        ("Dataplane", "networking: []", "networking", "must be an object, not an array"),
        ("Dataplane", "networking: {inbound: {}}", "networking.inbound", "must be a list, not an object"),
        ("Dataplane", inbound("1"), "networking.inbound[0]", "must be an object, not a number"),
        ("Dataplane", inbound("{tags: [a]}"), "networking.inbound[0].tags", "must be an object, not an array"),
        ("Dataplane", "probes: {port: -1}", "probes.port", cannot("number -1", "uint32")),
        ("Dataplane", "probes: {port: 4294967296}", "probes.port", cannot("number 4294967296", "uint32")),
        ("Dataplane", "probes: {port: 1.5}", "probes.port", cannot("number 1.5", "uint32")),
        ("Dataplane", "probes: {port: true}", "probes.port", cannot("bool", "uint32")),
        ("Dataplane", "probes: {port: '1x'}", "probes.port", cannot("string", "uint32")),
        ("Dataplane", "probes: {port: .nan}", "probes.port", cannot("number", "uint32")),
        (
            "Dataplane",
            inbound("{health: {ready: 'true'}}"),
            "networking.inbound[0].health.ready",
            cannot("string", "bool"),
        ),
        (
            "Dataplane",
            "networking: {gateway: {type: builtin}}",
            "networking.gateway.type",
            '"builtin" is not one of: DELEGATED, BUILTIN',
        ),
        (
            "Dataplane",
            "networking: {gateway: {type: 2}}",
            "networking.gateway.type",
            "this number is not one of: DELEGATED, BUILTIN",
        ),
        (
            "Dataplane",
            "networking: {gateway: {type: false}}",
            "networking.gateway.type",
            "this bool is not one of: DELEGATED, BUILTIN",
        ),
        ("Timeout", "conf: {connectTimeout: 5}", "conf.connectTimeout", cannot("number", "string")),
        (
            "Timeout",
            "conf: {connectTimeout: '5'}",
            "conf.connectTimeout",
            'bad Duration: time: missing unit in duration "5". Write a number with a unit, such as "10s" or "1h30m"',
        ),
        (
            "CircuitBreaker",
            "conf: {detectors: {standardDeviation: {factor: .inf}}}",
            "conf.detectors.standardDeviation.factor",
            "must be a finite number",
        ),
        (
            "CircuitBreaker",
            "conf: {detectors: {standardDeviation: {factor: NaN}}}",
            "conf.detectors.standardDeviation.factor",
            "must be a finite number",
        ),
        (
            "CircuitBreaker",
            "conf: {detectors: {standardDeviation: {factor: x}}}",
            "conf.detectors.standardDeviation.factor",
            cannot("string", "float64"),
        ),
        (
            "CircuitBreaker",
            "conf: {detectors: {standardDeviation: {factor: [1]}}}",
            "conf.detectors.standardDeviation.factor",
            cannot("array", "float64"),
        ),
        (
            "Retry",
            "conf: {http: {retriableStatusCodes: [500, null]}}",
            "conf.http.retriableStatusCodes[1]",
            cannot("null", "uint32"),
        ),
        (
            "TrafficRoute",
            "conf: {loadBalancer: {maglev: {}, random: {}}}",
            "conf.loadBalancer",
            'only one of "random", "maglev" may be set',
        ),
        (
            "TrafficRoute",
            "conf: {http: [{match: {path: {exact: a, regex: b}}}]}",
            "conf.http[0].match.path",
            'only one of "exact", "regex" may be set',
        ),
        (
            "TrafficRoute",
            "conf: {http: [{modify: {host: {value: a, fromPath: {}}}}]}",
            "conf.http[0].modify.host",
            'only one of "value", "fromPath" may be set',
        ),
        (
            "TrafficRoute",
            "conf: {http: [{match: {headers: {h: x}}}]}",
            'conf.http[0].match.headers["h"]',
            "must be an object, not a string",
        ),
        (
            "DataplaneInsight",
            "subscriptions: [{connectTime: now}]",
            "subscriptions[0].connectTime",
            'bad Timestamp: "now": not a time such as 2006-01-02T15:04:05Z',
        ),
        (
            "DataplaneInsight",
            "subscriptions: [{connectTime: 1}]",
            "subscriptions[0].connectTime",
            cannot("number", "string"),
        ),
        ("Secret", "data: '***'", "data", "must be standard base64"),
        ("Secret", "data: aGVsbG8", "data", "must be standard base64"),
        ("Secret", "data: é", "data", "must be standard base64"),
        ("Secret", "data: 1", "data", cannot("number", "[]uint8")),
        ("Mesh", "mtls: yes", "mtls", "must be an object, not a bool"),
    ],
)
def test_what_cannot_be_read(type_name, given, field, message):
    with pytest.raises(DecodeError) as raised:
        read(type_name, given)
    assert (raised.value.field, raised.value.message) == (field, message)
    assert str(raised.value) == f"{field}: {message}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (10**6000, cannot("a huge number", "uint32")),
        (b"1", cannot("binary value", "uint32")),
        (date(2022, 1, 1), cannot("timestamp", "uint32")),
        ({1}, cannot("set", "uint32")),
        ("9" * 10_000, cannot("string", "uint32")),
    ],
    ids=["huge", "bytes", "date", "set", "digits"],
)
def test_strange_values_are_named_in_bounded_texts(value, message):
    with pytest.raises(DecodeError) as raised:
        decode_spec("Dataplane", {"probes": {"port": value}})
    assert raised.value.message == message


@pytest.mark.parametrize(
    "document",
    [
        {"\ud800": 1},
        {"type": "\ud800"},
        {"networking": {"gateway": {"type": "\ud800"}}},
        {"networking": {"gateway": {"tags": {"\ud800": 1}}}},
        {"networking": {"inbound": [{"serviceProbe": {"interval": "\ud800"}}]}},
    ],
)
def test_texts_can_always_be_sent(document):
    try:
        said = "".join(decode_spec("Dataplane", document).warnings)
    except DecodeError as error:
        said = str(error)
    assert said.encode() or "type" in document


@pytest.mark.parametrize("key", [(1, 2), float("inf"), 10**30, b"a"])
def test_strange_keys_are_refused(key):
    for document in ({key: 1}, {"networking": {"gateway": {"tags": {key: "x"}}}}):
        with pytest.raises(DecodeError, match="keys must be texts"):
            decode_spec("Dataplane", document)


def test_deep_nesting_is_not_followed():
    deep: object = {}
    for _ in range(100_000):
        deep = {"x": deep}
    assert decode_spec("Dataplane", {"y": deep}).warnings
    with pytest.raises(DecodeError):
        decode_spec("Dataplane", {"networking": {"address": deep}})
    while deep:  # taken apart by hand: freeing it at once would recurse
        deep = deep.pop("x")


@pytest.mark.parametrize("document", [None, 1, "x", [], True, [{}]])
def test_a_document_must_be_an_object(document):
    with pytest.raises(DecodeError, match="must be an object"):
        decode_spec("Mesh", document)
    with pytest.raises(DecodeError, match="must be an object"):
        decode_resource(document)


def test_a_whole_document():
    key, decoded = decode_resource(
        yaml.safe_load("""
            type: Dataplane
            mesh: default
            name: redis-1
            creationTime: whatever
            modificationTime: 1
            networking: {address: 192.168.0.1}
        """)
    )
    assert key == ResourceKey("Dataplane", "default", "redis-1")
    assert decoded == decode_spec("Dataplane", {"networking": {"address": "192.168.0.1"}})
    assert decoded.warnings == ()


@pytest.mark.parametrize(
    ("document", "key", "warnings"),
    [
        ({"type": "Dataplane"}, ResourceKey("Dataplane", "", ""), ()),
        ({"type": "Dataplane", "name": None}, ResourceKey("Dataplane", "", ""), ()),
        (
            {"type": "Mesh", "name": "m", "mesh": "n"},
            ResourceKey("Mesh", "", "m"),
            ("mesh: a Mesh belongs to no mesh, this has no effect",),
        ),
    ],
)
def test_documents_without_a_whole_key(document, key, warnings):
    found, decoded = decode_resource(document)
    assert (found, decoded.warnings) == (key, warnings)


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        ({}, "type", 'cannot be empty. Name the type of the resource, such as "type: Dataplane"'),
        ({"type": 1}, "type", cannot("number", "string")),
        ({"type": "Mesh", "name": 1}, "name", cannot("number", "string")),
        ({"type": "Dataplane", "mesh": []}, "mesh", cannot("array", "string")),
    ],
)
def test_documents_that_name_nothing(document, field, message):
    with pytest.raises(DecodeError) as raised:
        decode_resource(document)
    assert (raised.value.field, raised.value.message) == (field, message)


def test_a_document_of_another_type():
    with pytest.raises(UnknownType, match=r"HealthCheck: not supported by this version\. Supported types: Circuit"):
        decode_resource({"type": "HealthCheck", "name": "x", "mesh": "default"})


class TestPrintingResources:
    def test_a_resource_of_a_mesh(self):
        resource = Resource(
            key=ResourceKey("Dataplane", "default", "dp"),
            spec=Dataplane(),
            creation_time=datetime(2022, 4, 5, 12, tzinfo=UTC),
            modification_time=datetime(2022, 4, 5, 12, 0, 0, 250_000, UTC),
        )
        assert list(encode_resource(resource).items()) == [
            ("type", "Dataplane"),
            ("mesh", "default"),
            ("name", "dp"),
            ("creationTime", "2022-04-05T12:00:00Z"),
            ("modificationTime", "2022-04-05T12:00:00.25Z"),
        ]

    def test_a_global_resource_has_no_mesh_and_unset_times_are_zero(self):
        printed = encode_resource(Resource(key=ResourceKey("GlobalSecret", "", "s"), spec=Secret(data=b"hello")))
        assert printed == {
            "type": "GlobalSecret",
            "name": "s",
            "creationTime": "0001-01-01T00:00:00Z",
            "modificationTime": "0001-01-01T00:00:00Z",
            "data": "aGVsbG8=",
        }

    def test_counters_of_insights_are_texts(self):
        status = DiscoveryStatus(
            last_update_time=datetime(2022, 4, 5, 12, tzinfo=UTC),
            total=DiscoveryServiceStats(responses_sent=3),
            cds=DiscoveryServiceStats(),
        )
        insight = DataplaneInsight(subscriptions=(DiscoverySubscription(id="a", status=status, generation=2),))
        assert encode_spec(insight) == {
            "subscriptions": [
                {
                    "id": "a",
                    "status": {
                        "lastUpdateTime": "2022-04-05T12:00:00Z",
                        "total": {"responsesSent": "3"},
                        "cds": {},
                    },
                    "generation": 2,
                }
            ]
        }
        assert decode_spec("DataplaneInsight", encode_spec(insight)).spec == insight

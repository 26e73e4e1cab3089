"""R §2.3, row by row."""

import pytest
import yaml

from snapshot.model.codec import decode_spec
from snapshot.registry import TYPES

PORT = "port must be in the range [1, 65535]"
NO_NAME = "address has to be valid IP address or domain name"
NO_IP = "address has to be valid IP address"
SERVICE = "kuma.io/service: a"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing binds here


def violations(text):
    return TYPES["Dataplane"].validate_spec(decode_spec("Dataplane", yaml.safe_load(text)).spec)


def networking(inbound=f"{{port: 80, tags: {{{SERVICE}}}}}", more="", address="10.0.0.1"):
    return violations(f"networking: {{address: '{address}', inbound: [{inbound}]{more and ', ' + more}}}")


def gateway(tags=f"{{{SERVICE}}}", kind="DELEGATED", more=""):
    return violations(f"{{networking: {{address: 10.0.0.1, gateway: {{tags: {tags}, type: {kind}}}}}, {more}}}")


@pytest.mark.parametrize(
    "text",
    [
        f"networking: {{address: 10.0.0.1, inbound: [{{port: 80, tags: {{{SERVICE}}}}}]}}",
        f"networking: {{address: 'fd00::1', inbound: [{{port: 80, tags: {{{SERVICE}}}}}]}}",
        f"networking: {{address: my_host.local., inbound: [{{port: 65535, tags: {{{SERVICE}}}}}]}}",
        f"networking: {{address: a, gateway: {{tags: {{{SERVICE}, kuma.io/protocol: tcp}}}}}}",
        f"""
        networking:
          address: 10.0.0.1
          advertisedAddress: public.example.com
          admin: {{port: 9901}}
          inbound:
          - port: 80
            servicePort: 8080
            serviceAddress: 127.0.0.1
            address: 10.0.0.2
            tags: {{{SERVICE}, kuma.io/protocol: HTTP2, version: 'v1:a_b.c-d'}}
            health: {{ready: true}}
            serviceProbe: {{interval: 10s, timeout: 2s, unhealthyThreshold: 5, healthyThreshold: 1, tcp: {{}}}}
          outbound:
          - {{port: 3000, tags: {{kuma.io/service: b, version: v1}}}}
          - {{port: 3001, address: 127.0.0.2, service: c}}
        probes:
          port: 9000
          endpoints: [{{inboundPort: 8080, inboundPath: '/healthz?a=%', path: 'http://x/y'}}]
        """,
    ],
)
def test_what_is_valid(text):
    assert violations(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", [("networking", "must be defined")]),
        ("probes: {}", [("networking", "must be defined")]),
        ("metrics: {}", [("networking", "must be defined"), ("metrics", "not supported by this version")]),
        (
            "networking: {}",
            [
                ("networking", "has to contain at least one inbound interface or gateway"),
                ("networking.address", "address can't be empty"),
            ],
        ),
    ],
)
def test_nearly_nothing(text, expected):
    assert violations(text) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", "address can't be empty"),
        ("0.0.0.0", "must not be 0.0.0.0 or ::"),  # noqa: S104 - a text to refuse
        ("::", "must not be 0.0.0.0 or ::"),
        ("0:0::0", "must not be 0.0.0.0 or ::"),
        ("..>_<..", NO_NAME),
        ("a b", NO_NAME),
        ("-a", NO_NAME),
        ("fe80::1%eth0", NO_NAME),
        ("a\n", NO_NAME),
        ("a" * 64, NO_NAME),
        (".".join(["a" * 63] * 5), NO_NAME),
    ],
)
def test_addresses(address, expected):
    text = address.encode("unicode_escape").decode()
    found = violations(f'networking: {{address: "{text}", inbound: [{{port: 80, tags: {{{SERVICE}}}}}]}}')
    assert found == [("networking.address", expected)]
    if address:  # the advertised one is held to the same rule where it is given, unlike in Kuma
        assert networking(more=f'advertisedAddress: "{text}"') == [("networking.advertisedAddress", expected)]


@pytest.mark.parametrize(
    ("inbound", "field", "message"),
    [
        ("port: 0", ".port", PORT),
        ("port: 65536", ".port", PORT),
        ("port: 80, servicePort: 65536", ".servicePort", PORT),
        ("port: 80, serviceAddress: redis", ".serviceAddress", "serviceAddress has to be valid IP address"),
        ("port: 80, address: redis", ".address", NO_IP),
        ("port: 80, address: 010.0.0.1", ".address", NO_IP),
        *(
            (inbound, ".serviceAddress", "serviceAddress and servicePort has to differ from address and port")
            for inbound in (
                "port: 80, serviceAddress: 10.0.0.1",
                "port: 80, serviceAddress: 10.0.0.1, servicePort: 80",
                "port: 80, serviceAddress: 10.0.0.1, address: 10.0.0.2",
                "port: 80, serviceAddress: 10.0.0.2, address: 10.0.0.2",
            )
        ),
        *(
            (f"port: 80, serviceProbe: {{{field}: {value}}}", f".serviceProbe.{field}", "must have a positive value")
            for field, value in [
                ("interval", "0s"),
                ("interval", "-1s"),
                ("timeout", "0s"),
                ("timeout", "-1s"),
                ("unhealthyThreshold", 0),
                ("healthyThreshold", 0),
            ]
        ),
    ],
)
def test_inbounds(inbound, field, message):
    assert networking(f"{{{inbound}, tags: {{{SERVICE}}}}}") == [(f"networking.inbound[0]{field}", message)]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("{}", [('["kuma.io/service"]', "tag has to exist")]),
        (
            "{kuma.io/protocol: foo, '!': b}",
            [
                (
                    '["kuma.io/protocol"]',
                    'tag "kuma.io/protocol" has an invalid value "foo". Allowed values: grpc, http, http2, kafka, tcp',
                ),
                (
                    '["!"]',
                    "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores",
                ),
                ('["kuma.io/service"]', "tag has to exist"),
            ],
        ),
        (
            "{kuma.io/service: '*', a: b/c, d: ''}",
            [
                ('["a"]', "tag value must consist of alphanumeric characters, dots, dashes and underscores"),
                ('["d"]', "tag value must be non-empty"),
                (
                    '["kuma.io/service"]',
                    "tag value must consist of alphanumeric characters, dots, dashes and underscores",
                ),
            ],
        ),
    ],
)
def test_tags_of_inbounds(tags, expected):
    assert networking(f"{{port: 80, tags: {tags}}}") == [
        (f"networking.inbound[0].tags{field}", message) for field, message in expected
    ]


NO_SERVICE = 'mandatory tag "kuma.io/service" is missing'


@pytest.mark.parametrize(
    ("outbound", "expected"),
    [
        (f"{{port: 0, tags: {{{SERVICE}}}}}", [(".port", PORT)]),
        (f"{{port: 65536, tags: {{{SERVICE}}}}}", [(".port", PORT)]),
        (f"{{port: 1, address: b, tags: {{{SERVICE}}}}}", [(".address", NO_IP)]),
        ("{port: 1}", [(".tags", NO_SERVICE)]),
        (
            "{port: 1, service: a, tags: {b: '*'}}",
            [
                (".tags", NO_SERVICE),
                ('.tags["b"]', "tag value must consist of alphanumeric characters, dots, dashes and underscores"),
            ],
        ),
        (
            "{port: 1, service: a b}",
            [(".service", "tag value must consist of alphanumeric characters, dots, dashes and underscores")],
        ),
    ],
)
def test_outbounds(outbound, expected):
    good = f"{{port: 2, tags: {{{SERVICE}}}}}"
    assert networking(more=f"outbound: [{good}, {outbound}]") == [
        (f"networking.outbound[1]{field}", message) for field, message in expected
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (gateway("{}"), [("networking.gateway.tags", NO_SERVICE)]),
        (
            gateway(f"{{{SERVICE}, kuma.io/protocol: TCP}}"),
            [('networking.gateway.tags["kuma.io/protocol"]', "other values than TCP are not allowed")],
        ),
        (
            networking(more=f"gateway: {{tags: {{{SERVICE}}}}}"),
            [("networking.inbound", "inbound cannot be defined for delegated gateways")],
        ),
        (gateway(more="probes: {port: 0}"), [("probes.port", PORT)]),
        (gateway(kind="BUILTIN"), [("networking.gateway.type", "not supported by this version")]),
        (
            violations(
                f"""
                networking:
                  address: a
                  gateway: {{tags: {{{SERVICE}}}, type: BUILTIN}}
                  inbound: [{{port: 1, tags: {{{SERVICE}}}}}]
                  outbound: [{{port: 2, tags: {{{SERVICE}}}}}]
                probes: {{}}
                """
            ),
            [
                ("networking.inbound", "inbound cannot be defined for builtin gateways"),
                ("networking.outbound", "outbound cannot be defined for builtin gateways"),
                ("networking.probes", "probes cannot be defined for builtin gateways"),
                ("networking.gateway.type", "not supported by this version"),
            ],
        ),
    ],
)
def test_gateways(found, expected):
    assert found == expected


@pytest.mark.parametrize(
    ("port", "inbound", "outbound", "expected"),
    [
        (9901, "{port: 9901}", "{port: 2}", []),  # binds on the proxy's own address
        (9901, "{port: 1, servicePort: 9901}", "{port: 2}", ["inbound"]),
        (9901, "{port: 9901, address: 127.0.0.1, servicePort: 1}", "{port: 2}", ["inbound"]),
        (9901, "{port: 9901, address: 0.0.0.0, servicePort: 1}", "{port: 2}", ["inbound"]),
        (9901, "{port: 1, serviceAddress: '::', servicePort: 9901}", "{port: 2}", ["inbound"]),
        (9901, "{port: 1, serviceAddress: 127.0.0.2, servicePort: 9901}", "{port: 2}", []),
        (9901, "{port: 1}", "{port: 9901}", ["outbound"]),
        (9901, "{port: 1}", "{port: 9901, address: 127.0.0.2}", []),
        (9901, "{port: 1, servicePort: 9901}", "{port: 9901}", ["inbound", "outbound"]),
        (0, "{port: 1}", "{port: 2}", []),
    ],
)
def test_the_admin_port_must_be_free(port, inbound, outbound, expected):
    tags = f", tags: {{{SERVICE}}}}}"
    if inbound == "{port: 9901}":
        inbound = "{port: 9901, servicePort: 1}"
    found = networking(
        inbound[:-1] + tags, more=f"outbound: [{outbound[:-1]}{tags}], admin: {{port: {port}}}", address="10.0.0.1"
    )
    assert found == [("networking.admin.port", f"must differ from {what}") for what in expected]


def test_the_admin_port_is_a_port():
    assert networking(more="admin: {port: 65536}") == [("networking.admin.port", PORT)]


def taken(place, by):
    return f"{place} is already taken by {by}; each listener needs a place of its own"


@pytest.mark.parametrize(
    ("places", "outbounds", "expected"),
    [
        ([("", 80), ("", 81), ("10.0.0.2", 80)], [("", 80), ("127.0.0.2", 80)], []),
        (
            [("", 80), ("10.0.0.1", 80)],
            [],
            [("networking.inbound[1].port", taken("10.0.0.1:80", "networking.inbound[0]"))],
        ),
        (
            [("", 80), (EVERYWHERE, 80)],
            [],
            [("networking.inbound[1].port", taken("0.0.0.0:80", "networking.inbound[0]"))],
        ),
        (
            [(EVERYWHERE, 80)],
            [("", 80)],
            [("networking.outbound[0].port", taken("127.0.0.1:80", "networking.inbound[0]"))],
        ),
        (
            [("127.0.0.1", 80)],
            [("", 80)],
            [("networking.outbound[0].port", taken("127.0.0.1:80", "networking.inbound[0]"))],
        ),
        (
            [("", 80)],
            [("", 90), ("", 90)],
            [("networking.outbound[1].port", taken("127.0.0.1:90", "networking.outbound[0]"))],
        ),
        ([("", 49151), ("", 49151)], [], []),  # stands for a workload without a port, gets no listener
    ],
)
def test_no_two_listeners_share_a_place(places, outbounds, expected):
    def render(entries):
        return ", ".join(f"{{address: '{address}', port: {port}, tags: {{{SERVICE}}}}}" for address, port in entries)

    assert networking(render(places), more=f"outbound: [{render(outbounds)}]") == expected


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        ("{}", [("probes.port", PORT)]),
        ("{port: 65536}", [("probes.port", PORT)]),
        (
            "{port: 1, endpoints: [{}]}",
            [
                ("probes.endpoints[0].inboundPort", PORT),
                ("probes.endpoints[0].inboundPath", "should be a valid URL Path"),
                ("probes.endpoints[0].path", "should be a valid URL Path"),
            ],
        ),
        *(
            (
                f'{{port: 1, endpoints: [{{inboundPort: 1, inboundPath: /a, path: "{path}"}}]}}',
                [("probes.endpoints[0].path", "should be a valid URL Path")],
            )
            for path in ("a", "a/b", ":/x", "/%zz", "/%", "/a\\n", "/\\x7f", "1http://a", "http:")
        ),
    ],
)
def test_probes(probes, expected):
    text = f"{{networking: {{address: a, inbound: [{{port: 80, tags: {{{SERVICE}}}}}]}}, probes: {probes}}}"
    assert violations(text) == expected


def test_parts_of_later_versions_are_refused_by_name():
    text = f"""
        networking: {{address: a, inbound: [{{port: 80, tags: {{{SERVICE}}}}}],
                      transparent_proxying: {{redirect_port_inbound: 15006}}}}
        metrics: {{type: prometheus}}
        """
    assert violations(text) == [
        ("networking.transparentProxying", "not supported by this version"),
        ("metrics", "not supported by this version"),
    ]


def test_all_violations_at_once_in_the_order_of_the_sections():
    text = """
        networking:
          advertisedAddress: "-"
          admin: {port: 1}
          inbound: [{port: 0}, {port: 2, servicePort: 1}]
          outbound: [{port: 70000}]
        probes: {}
        """
    assert [field for field, _ in violations(text)] == [
        "networking.admin.port",
        "networking.address",
        "networking.advertisedAddress",
        "networking.inbound[0].port",
        'networking.inbound[0].tags["kuma.io/service"]',
        'networking.inbound[1].tags["kuma.io/service"]',
        "networking.outbound[0].port",
        "networking.outbound[0].tags",
        "probes.port",
    ]


def test_one_long_value_in_many_places_does_not_multiply():
    inbounds = [{"port": 5} for _ in range(1000)]
    tags = {"kuma.io/protocol": "x" * 100_000}
    document = {"networking": {"address": "a" * 100_000, "inbound": [{**one, "tags": tags} for one in inbounds]}}
    found = TYPES["Dataplane"].validate_spec(decode_spec("Dataplane", document).spec)
    assert len(found) == 1 + 2 * len(inbounds) + len(inbounds) - 1
    assert sum(len(message) for _, message in found) < 1_000_000

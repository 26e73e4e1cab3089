"""R §2.2 on every policy's selectors."""

import pytest
import yaml

from snapshot.model.codec import decode_spec
from snapshot.registry import TYPES

NAME = "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores"
VALUE = 'tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be "*"'
NO_SERVICE = 'mandatory tag "kuma.io/service" is missing'
ONE_SERVICE = 'must consist of exactly one tag "kuma.io/service"'
ONE_TAG = "must have at least one tag"
NONE = "must have at least one element"
CONF = {
    "TrafficRoute": "conf: {destination: {kuma.io/service: a}}",
    "Timeout": "conf: {connectTimeout: 1s}",
    "CircuitBreaker": "conf: {thresholds: {maxRetries: 1}}",
    "Retry": "conf: {tcp: {maxConnectAttempts: 1}}",
    "TrafficPermission": "",
}
ONLY_SERVICE = sorted(CONF.keys() - {"TrafficPermission"})
GOOD = '[{match: {kuma.io/service: "*"}}]'


def violations(type_name, sources, destinations):
    text = f"sources: {sources}\ndestinations: {destinations}\n{CONF[type_name]}"
    return TYPES[type_name].validate_spec(decode_spec(type_name, yaml.safe_load(text)).spec)


@pytest.mark.parametrize("type_name", CONF)
class TestEveryPolicy:
    def test_what_is_valid(self, type_name):
        sources = '[{match: {kuma.io/service: a_b.c:d/e, version: "*"}}, {match: {kuma.io/service: "*"}}]'
        assert violations(type_name, sources, '[{match: {kuma.io/service: a}}, {match: {kuma.io/service: "*"}}]') == []

    def test_selectors_are_needed_on_both_sides(self, type_name):
        assert violations(type_name, "[]", "[]") == [("sources", NONE), ("destinations", NONE)]

    @pytest.mark.parametrize(
        ("tags", "field", "message"),
        [
            ("{kuma.io/service: a, '': b}", "sources[0].match", "tag name must be non-empty"),
            ("{kuma.io/service: a, 'b c': d}", 'sources[0].match["b c"]', NAME),
            ("{kuma.io/service: a, 'é': d}", 'sources[0].match["é"]', NAME),
            ('{kuma.io/service: a, "b\\n": d}', 'sources[0].match["b\\n"]', NAME),
            ('{kuma.io/service: a, "\\0\\U000e0001": d}', 'sources[0].match["\\u0000\\U000e0001"]', NAME),
            (f"{{kuma.io/service: a, ? {'$' * 999} : d}}", f'sources[0].match["{"$" * 256}…"]', NAME),
            ("{kuma.io/service: a, b: ''}", 'sources[0].match["b"]', "tag value must be non-empty"),
            ("{kuma.io/service: a, b: 'c d'}", 'sources[0].match["b"]', VALUE),
            ("{kuma.io/service: 'a*'}", 'sources[0].match["kuma.io/service"]', VALUE),
            ("{kuma.io/service: '**'}", 'sources[0].match["kuma.io/service"]', VALUE),
            ('{kuma.io/service: "a\\n"}', 'sources[0].match["kuma.io/service"]', VALUE),
        ],
    )
    def test_entries_of_sources(self, type_name, tags, field, message):
        assert violations(type_name, f"[{{match: {tags}}}]", GOOD) == [(field, message)]

    def test_all_violations_come_in_order_of_the_names(self, type_name):
        sources = "[{match: {kuma.io/service: a}}, {match: {kuma.io/service: '', b: c d, '!': '!'}}]"
        assert violations(type_name, sources, GOOD) == [
            ('sources[1].match["!"]', NAME),
            ('sources[1].match["!"]', VALUE),
            ('sources[1].match["b"]', VALUE),
            ('sources[1].match["kuma.io/service"]', "tag value must be non-empty"),
        ]


@pytest.mark.parametrize("type_name", ONLY_SERVICE)
class TestPoliciesOfServices:
    @pytest.mark.parametrize(
        ("sources", "expected"),
        [
            ("[{}]", [("sources[0].match", ONE_TAG), ("sources[0].match", NO_SERVICE)]),
            ("[{match: {a: b}}]", [("sources[0].match", NO_SERVICE)]),
        ],
    )
    def test_sources_need_a_service(self, type_name, sources, expected):
        assert violations(type_name, sources, GOOD) == expected

    @pytest.mark.parametrize(
        ("match", "expected"),
        [
            ("{}", [("", ONE_TAG), ("", ONE_SERVICE), ("", NO_SERVICE)]),
            ("{a: b}", [('["a"]', 'tag "a" is not allowed'), ("", NO_SERVICE)]),
            ("{kuma.io/service: a, b: c}", [("", ONE_SERVICE), ('["b"]', 'tag "b" is not allowed')]),
        ],
    )
    def test_destinations_are_a_service_alone(self, type_name, match, expected):
        found = violations(type_name, GOOD, f"[{GOOD[1:-1]}, {{match: {match}}}]")
        assert found == [(f"destinations[1].match{field}", message) for field, message in expected]


def test_permissions_take_any_tags():
    assert violations("TrafficPermission", "[{match: {a: b}}]", "[{match: {c: '*', d: e}}]") == []
    assert violations("TrafficPermission", "[{}]", "[{match: {}}]") == [
        ("sources[0].match", ONE_TAG),
        ("destinations[0].match", ONE_TAG),
    ]

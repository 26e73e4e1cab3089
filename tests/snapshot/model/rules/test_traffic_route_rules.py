"""R §2.6, row by row."""

import pytest
import yaml

from snapshot.model.codec import decode_spec
from snapshot.registry import TYPES

EMPTY = "cannot be empty"
ONE_TAG = "must have at least one tag"
NO_SERVICE = 'mandatory tag "kuma.io/service" is missing'
NO_MATCH = 'must be present and contain at least one of the elements: "method", "path" or "headers"'
NO_MATCHER = 'cannot be empty. Available options: "exact", "split" or "regex"'
PREFIX_ONLY = "can only be set when .http.match.path.prefix is not empty"
HEADER = "host header and HTTP/2 pseudo-headers are not allowed to be modified"
LINES = "must not contain line breaks or the character NUL"
SELECTORS = {"sources": [{"match": {"kuma.io/service": "*"}}], "destinations": [{"match": {"kuma.io/service": "*"}}]}
TO_A = "destination: {kuma.io/service: a}"


def violations(conf):
    document = SELECTORS | (yaml.safe_load(conf) or {})
    return TYPES["TrafficRoute"].validate_spec(decode_spec("TrafficRoute", document).spec)


def rule(text):
    """Violations of one HTTP rule, with paths below it."""
    found = violations(f"conf: {{{TO_A}, http: [{{{text}}}]}}")
    assert all(field.startswith("conf.http[0]") for field, _ in found)
    return [(field.removeprefix("conf.http[0]"), message) for field, message in found]


MATCHED = f"match: {{path: {{prefix: /a}}}}, {TO_A}"


@pytest.mark.parametrize(
    "conf",
    [
        f"conf: {{{TO_A}}}",
        f"conf: {{split: [{{weight: 0, {TO_A}}}, {{weight: 1, destination: {{kuma.io/service: a, v: '*'}}}}]}}",
        f"conf: {{{TO_A}, loadBalancer: {{ringHash: {{hashFunction: MURMUR_HASH_2}}}}}}",
        f"conf: {{{TO_A}, loadBalancer: {{leastRequest: {{}}}}}}",
        f"conf: {{{TO_A}, http: [{{{MATCHED}, modify: {{path: {{rewritePrefix: /b}}, host: {{value: b}}}}}}]}}",
        f"conf: {{{TO_A}, http: [{{match: {{method: {{exact: ''}}, headers: {{x: {{regex: y}}}}}}, {TO_A}}}]}}",
        f"""
        conf:
          {TO_A}
          http:
          - {{match: {{headers: {{x: {{prefix: y}}}}}}, split: [{{weight: 1, {TO_A}}}],
             modify: {{path: {{regex: {{pattern: a, substitution: b}}}},
                      host: {{fromPath: {{pattern: a, substitution: b}}}},
                      requestHeaders: {{add: [{{name: a, value: b, append: true}}], remove: [{{name: c}}]}}}}}}
        """,
    ],
)
def test_what_is_valid(conf):
    assert violations(conf) == []


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ("", [("conf", EMPTY)]),
        ("conf: {}", [("conf", 'requires either "destination" or "split"')]),
        ("conf: {split: [], destination: {}}", [("conf", 'requires either "destination" or "split"')]),
        (
            f"conf: {{{TO_A}, split: [{{weight: 1, {TO_A}}}]}}",
            [("conf", '"split" cannot be defined at the same time as "destination"')],
        ),
        (
            f"conf: {{split: [{{weight: 0, {TO_A}}}, {{weight: 0, {TO_A}}}]}}",
            [("conf.split", "there must be at least one split entry with weight above 0")],
        ),
        (f"conf: {{split: [{{weight: 1, {TO_A}}}, {{{TO_A}}}]}}", [("conf.split[1].weight", "needs to be defined")]),
        (
            "conf: {split: [{weight: 1, destination: {}}]}",
            [("conf.split[0].destination", ONE_TAG), ("conf.split[0].destination", NO_SERVICE)],
        ),
        ("conf: {destination: {a: b}}", [("conf.destination", NO_SERVICE)]),
        (
            "conf: {destination: {kuma.io/service: a, b: ''}}",
            [('conf.destination["b"]', "tag value must be non-empty")],
        ),
        *(
            (
                f"conf: {{{TO_A}, loadBalancer: {{ringHash: {{hashFunction: {function}}}}}}}",
                [("conf.loadBalancer.ringHash.hashFunction", "must have a valid hash function")],
            )
            for function in ("''", "xx_hash", "MD5")
        ),
    ],
)
def test_the_default_route(conf, expected):
    assert violations(conf) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("match: {path: {exact: /}}", [("", 'requires either "destination" or "split"')]),
        (TO_A, [(".match", NO_MATCH)]),
        (f"match: {{}}, {TO_A}", [(".match", NO_MATCH)]),
        (f"match: {{headers: {{}}}}, {TO_A}", [(".match", NO_MATCH)]),
        (f"match: {{method: {{}}}}, {TO_A}", [(".match.method", NO_MATCHER)]),
        (f"match: {{path: {{}}}}, {TO_A}", [(".match.path", NO_MATCHER)]),
        (f"match: {{path: {{prefix: ''}}}}, {TO_A}", [(".match.path.prefix", EMPTY)]),
        (f"match: {{method: {{regex: ''}}}}, {TO_A}", [(".match.method.regex", EMPTY)]),
        (f"match: {{headers: {{h: {{}}}}}}, {TO_A}", [('.match.headers["h"]', NO_MATCHER)]),
        (f"match: {{headers: {{h: {{prefix: ''}}}}}}, {TO_A}", [('.match.headers["h"].prefix', EMPTY)]),
        (f"match: {{headers: {{'': {{exact: a}}}}}}, {TO_A}", [('.match.headers[""]', EMPTY)]),
        (f'match: {{headers: {{"a\\n": {{exact: a}}}}}}, {TO_A}', [('.match.headers["a\\n"]', LINES)]),
        (
            f"{MATCHED}, split: [{{{TO_A}}}]",
            [
                ("", '"split" cannot be defined at the same time as "destination"'),
                (".split", "there must be at least one split entry with weight above 0"),
                (".split[0].weight", "needs to be defined"),
            ],
        ),
    ],
)
def test_rules_match_and_lead_somewhere(text, expected):
    assert rule(text) == expected


@pytest.mark.parametrize(
    ("modify", "expected"),
    [
        ("path: {}", [(".path", 'either "rewritePrefix" or "regex" has to be set')]),
        ("path: {rewritePrefix: ''}", [(".path.rewritePrefix", EMPTY)]),
        ("path: {regex: {}}", [(".path.regex.pattern", EMPTY), (".path.regex.substitution", EMPTY)]),
        ('path: {rewritePrefix: "/\\n"}', [(".path.rewritePrefix", LINES)]),
        ('path: {regex: {pattern: a, substitution: "b\\n"}}', [(".path.regex.substitution", LINES)]),
        ("host: {}", [(".host", 'either "value" or "fromPath" has to be set')]),
        ("host: {value: ''}", [(".host.value", EMPTY)]),
        ('host: {value: "a\\r"}', [(".host.value", LINES)]),
        ("host: {fromPath: {pattern: a}}", [(".host.fromPath.substitution", EMPTY)]),
        ("host: {fromPath: {substitution: a}}", [(".host.fromPath.pattern", EMPTY)]),
        *(
            (f"{headers}: {change}", [(f".{headers}.{field}", message) for field, message in expected])
            for headers in ("requestHeaders", "responseHeaders")
            for change, expected in [
                ("{add: [{}]}", [("add[0].name", EMPTY), ("add[0].value", EMPTY)]),
                ("{add: [{name: ':path', value: a}]}", [("add[0].name", HEADER)]),
                (
                    "{add: [{name: host, value: a}, {name: Host, value: a}]}",
                    [("add[0].name", HEADER), ("add[1].name", HEADER)],
                ),
                ("{remove: [{name: a}, {name: HOST}]}", [("remove[1].name", HEADER)]),
                ("{remove: [{}]}", [("remove[0].name", EMPTY)]),
                ('{add: [{name: "a\\n", value: "b\\0"}]}', [("add[0].name", LINES), ("add[0].value", LINES)]),
            ]
        ),
    ],
)
def test_modifications(modify, expected):
    assert rule(f"{MATCHED}, modify: {{{modify}}}") == [(f".modify{field}", message) for field, message in expected]


@pytest.mark.parametrize("match", ["path: {exact: /a}", "path: {regex: /a}", "method: {exact: GET}"])
def test_a_prefix_can_only_be_rewritten_where_one_matched(match):
    text = f"match: {{{match}}}, {TO_A}, modify: {{path: {{rewritePrefix: /b}}}}"
    assert rule(text) == [(".modify.path.rewritePrefix", PREFIX_ONLY)]

"""Regular expressions of a TrafficRoute: what RE2 and Envoy refuse, or accept in vain, is a violation."""

import sys

import pytest
import re2

from snapshot.model.rules import expressions
from snapshot.model.rules.expressions import MOST_INSTRUCTIONS, check_expressions
from snapshot.model.traffic_route import (
    HttpMatch,
    HttpModify,
    HttpRule,
    ModifyHost,
    ModifyPath,
    RegexSubstitution,
    StringMatcher,
    TrafficRouteConf,
)

HERE = "conf.http[0]"


def of(**rule):
    return [tuple(violation) for violation in check_expressions(TrafficRouteConf(http=(HttpRule(**rule),)))]


def rewrite(pattern, substitution):
    return {"modify": HttpModify(path=ModifyPath(regex=RegexSubstitution(pattern=pattern, substitution=substitution)))}


def host(pattern, substitution):
    change = RegexSubstitution(pattern=pattern, substitution=substitution)
    return {"modify": HttpModify(host=ModifyHost(from_path=change))}


def path(pattern):
    return {"match": HttpMatch(path=StringMatcher(regex=pattern))}


@pytest.mark.parametrize(
    "rule",
    [
        path("/a.*"),
        path("(?i)/(?P<name>[a-z]+)/[^/]{1,63}"),
        path(r"\pL+é"),
        path(""),
        {"match": HttpMatch(path=StringMatcher(prefix="a("))},
        rewrite("/(a)/(b)", r"/\2/\1/\0/\\1"),
        rewrite("/a", "/b"),
        host("/(a)", r"\1.mesh"),
        host("", r"\1"),
    ],
)
def test_what_re2_understands_is_valid(rule):
    assert of(**rule) == []


@pytest.mark.parametrize(
    ("rule", "field", "message"),
    [
        (path("a("), "match.path.regex", '"a(" is no valid RE2 expression: missing ): a('),
        (path("(?=a)"), "match.path.regex", '"(?=a)" is no valid RE2 expression: invalid perl operator: (?='),
        (
            path("a{1001}"),
            "match.path.regex",
            '"a{1001}" is no valid RE2 expression: invalid repetition size: {1001}',
        ),
        (
            path(r"\pL{1000}"),
            "match.path.regex",
            r'"\\pL{1000}" is no valid RE2 expression: pattern too large - compile failed',
        ),
        (
            {"match": HttpMatch(method=StringMatcher(regex="*"))},
            "match.method.regex",
            '"*" is no valid RE2 expression: no argument for repetition operator: *',
        ),
        (
            {"match": HttpMatch(headers=(("x", StringMatcher(regex="[")),))},
            'match.headers["x"].regex',
            '"[" is no valid RE2 expression: missing ]: [',
        ),
        (
            rewrite(r"(a)\1", "b"),
            "modify.path.regex.pattern",
            r'"(a)\\1" is no valid RE2 expression: invalid escape sequence: \1',
        ),
        (
            rewrite("(a)", r"\2"),
            "modify.path.regex.substitution",
            r'"\\2" refers to group 2, but the pattern has only 1',
        ),
        (
            rewrite("a", "b\\"),
            "modify.path.regex.substitution",
            r'"b\\" has a backslash that is not followed by the number of a group; write two for one',
        ),
        (
            host("a", r"\x"),
            "modify.host.fromPath.substitution",
            r'"\\x" has a backslash that is not followed by the number of a group; write two for one',
        ),
        (host(")", "b"), "modify.host.fromPath.pattern", '")" is no valid RE2 expression: unexpected ): )'),
    ],
)
def test_what_envoy_refuses_or_ignores_is_a_violation(rule, field, message):
    (violation,) = of(**rule)
    assert violation == (f"{HERE}.{field}", message)


def test_the_work_of_checking_is_bounded():
    """Each of these costs RE2 tens of milliseconds before it gives up; a document could hold thousands."""
    rules = tuple(HttpRule(**path(rf"\pL{{1000}}{at}")) for at in range(1000))
    violations = check_expressions(TrafficRouteConf(http=rules))
    assert len(violations) < 10
    last = f"the regular expressions of this resource are larger than {MOST_INSTRUCTIONS} instructions together"
    assert violations[-1] == ("conf.http", last)


def test_no_expression_is_kept():
    assert of(**path("/kept")) == []
    assert re2._Regexp._make.cache_info().currsize == 0


def test_a_thousand_ordinary_expressions_are_within_the_bound():
    rules = tuple(HttpRule(**path(f"/v{at}/[a-z]{{1,63}}/.*")) for at in range(1000))
    assert check_expressions(TrafficRouteConf(http=rules)) == []


def test_re2_is_loaded_when_an_expression_is_checked_and_not_before(monkeypatch):
    monkeypatch.setitem(sys.modules, "re2", None)
    assert not hasattr(expressions, "re2")
    assert of(match=HttpMatch(path=StringMatcher(prefix="/a"))) == []
    with pytest.raises(ImportError):
        of(**path("a"))

"""Headers to add and remove: Envoy's bounds. That Envoy takes what is valid here: tests/conformance."""

import pytest

from snapshot.model.rules.headers import MOST_ADDED, MOST_BYTES, check_headers
from snapshot.model.traffic_route import HeaderAdd, HeaderRemove, ModifyHeaders


def added(name="x", value="y"):
    return [tuple(one) for one in check_headers("h", ModifyHeaders(add=(HeaderAdd(name=name, value=value),)))]


def removed(name):
    return [tuple(one) for one in check_headers("h", ModifyHeaders(remove=(HeaderRemove(name=name),)))]


@pytest.mark.parametrize("name", ["x", "X-Request-Id", "a_b.c~1", "x" * MOST_BYTES])
def test_names_of_http(name):
    assert added(name) == removed(name) == []


@pytest.mark.parametrize("name", ["a b", "é", "A:b", '"', "a\tb", "a/b", "a@b"])
def test_other_characters_than_those_of_http(name):
    (violation,), (other,) = added(name), removed(name)
    assert violation[0] == "h.add[0].name"
    assert other[0] == "h.remove[0].name"
    assert "is no name of a header: it has other characters than HTTP allows" in violation[1] == other[1]


def test_long_names_and_values():
    long = "x" * (MOST_BYTES + 1)
    text = "must not be longer than 16384 bytes"
    assert added(long, long) == [("h.add[0].name", text), ("h.add[0].value", text)]
    assert removed(long) == [("h.remove[0].name", text)]
    assert added("x", "é" * MOST_BYTES) == [("h.add[0].value", text)]


@pytest.mark.parametrize(("count", "refused"), [(MOST_ADDED, False), (MOST_ADDED + 1, True)])
def test_the_number_of_added_headers(count, refused):
    found = check_headers("h", ModifyHeaders(add=tuple(HeaderAdd(name=f"x{at}", value="y") for at in range(count))))
    assert found == ([("h.add", "must not have more than 1000 elements")] if refused else [])


@pytest.mark.parametrize(
    "value",
    ["a", "é", "100%%", "%%%%", "%REQ(x-id)%", "%REQ(:path?x):5% and %PROTOCOL%", "%START_TIME(%Y/%m)%", "%HOSTNAME%"],
)
def test_values_with_variables(value):
    assert added(value=value) == []


@pytest.mark.parametrize(
    ("value", "wrong", "position"),
    [
        ("100%", "%", 3),
        ("50% off", "%", 2),
        ("%%%", "%", 2),
        ("%FOO%", "%FOO%", 0),
        ("a %REQ%", "%REQ%", 2),
        ("%REQ()%", "%REQ()%", 0),
        ("%REQ(a b)%", "%REQ(a b)%", 0),
        ("%REQ(a):x%", "%", 0),
        ("%PROTOCOL(x)%", "%PROTOCOL(x)%", 0),
        ("%PROTOCOL:3%", "%PROTOCOL:3%", 0),
        ("%req(a)%", "%", 0),
    ],
)
def test_a_percent_sign_that_begins_nothing(value, wrong, position):
    reason = f'"{wrong}" at position {position} is no variable that a header can have; for a percent sign write "%%"'
    assert added(value=value) == [("h.add[0].value", f'"{value}": {reason}')]

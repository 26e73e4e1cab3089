"""Everything that cannot be read in a document is told at once, each fault with its path (R §0)."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from snapshot.model.codec import DecodeError, decode_resource, decode_spec


def cannot(kind, go_type):
    return f"json: cannot unmarshal {kind} into Go value of type {go_type}"


@pytest.mark.parametrize(
    ("type_name", "text", "violations"),
    [
        (
            "Dataplane",
            "networking: {address: 0.0.0.0, inbound: [{port: x, tags: {v: 1, w: a, x: []}}, {port: 1}, {port: y}]}",
            [
                ("networking.inbound[0].port", cannot("string", "uint32")),
                ('networking.inbound[0].tags["v"]', cannot("number", "string")),
                ('networking.inbound[0].tags["x"]', cannot("array", "string")),
                ("networking.inbound[2].port", cannot("string", "uint32")),
            ],
        ),
        (
            "TrafficRoute",
            """
            conf:
              loadBalancer: {maglev: {}, random: {}}
              http: [{match: {path: {exact: a, regex: b}}}, 7, {modify: {host: {value: a, fromPath: {}}}}]
            """,
            [
                ("conf.loadBalancer", 'only one of "random", "maglev" may be set'),
                ("conf.http[0].match.path", 'only one of "exact", "regex" may be set'),
                ("conf.http[1]", "must be an object, not a number"),
                ("conf.http[2].modify.host", 'only one of "value", "fromPath" may be set'),
            ],
        ),
        # an alternative that cannot be read is given all the same
        (
            "TrafficRoute",
            "conf: {http: [{match: {path: {exact: 1, regex: b}}}]}",
            [
                ("conf.http[0].match.path.exact", cannot("number", "string")),
                ("conf.http[0].match.path", 'only one of "exact", "regex" may be set'),
            ],
        ),
        # maps of messages, and keys that are no texts
        (
            "TrafficRoute",
            "conf: {http: [{match: {headers: {a: 1, .inf: {}, b: {exact: 2}, c: {exact: x}}}}]}",
            [
                ('conf.http[0].match.headers["a"]', "must be an object, not a number"),
                ("conf.http[0].match.headers", "keys must be texts, not a number"),
                ('conf.http[0].match.headers["b"].exact', cannot("number", "string")),
            ],
        ),
        (
            "Dataplane",
            "{.inf: 1, networking: {gateway: {tags: {.inf: a, b: 1}}}, probes: []}",
            [
                ("", "keys must be texts, not a number"),
                ("networking.gateway.tags", "keys must be texts, not a number"),
                ('networking.gateway.tags["b"]', cannot("number", "string")),
                ("probes", "must be an object, not an array"),
            ],
        ),
    ],
)
def test_everything_that_cannot_be_read_is_told_at_once(type_name, text, violations):
    with pytest.raises(DecodeError) as raised:
        decode_spec(type_name, yaml.safe_load(text))
    assert list(raised.value.violations) == violations
    assert (raised.value.field, raised.value.message) == violations[0]
    assert str(raised.value) == "; ".join(f"{field}: {message}" if field else message for field, message in violations)


@pytest.mark.parametrize(
    ("count", "told", "last"),
    [
        (100, 100, ("networking.inbound[99].port", cannot("string", "uint32"))),
        (101, 101, ("", "and 1 more")),
        (2000, 101, ("", "and 1900 more")),
        (9999, 101, ("", "and 9899 more")),
        (10_000, 101, ("", "and at least 9900 more")),
        (50_000, 101, ("", "and at least 9900 more")),
    ],
)
def test_a_hundred_faults_are_named_and_the_others_counted(count, told, last):
    with pytest.raises(DecodeError) as raised:
        decode_spec("Dataplane", {"networking": {"inbound": [{"port": "x"}] * count}})
    assert len(raised.value.violations) == told
    assert raised.value.violations[-1] == last
    assert str(raised.value).endswith(f"; {last[1]}" if not last[0] else f"; {last[0]}: {last[1]}")


def test_faults_of_several_lists_share_the_hundred():
    inbound = [{"tags": {f"t{number}": 1 for number in range(60)}}, {"port": "x"}, {"tags": dict.fromkeys("abc", 1)}]
    with pytest.raises(DecodeError) as raised:
        decode_spec("Dataplane", {"networking": {"inbound": inbound * 2, "outbound": 1}})
    found = raised.value.violations
    assert found[63].field == 'networking.inbound[2].tags["c"]'
    assert found[99].field == 'networking.inbound[3].tags["t35"]'
    assert found[100:] == (("", f"and {2 * 64 + 1 - 100} more"),)


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({"type": 1, "mesh": 2, "name": 3}, ["type", "mesh", "name"]),
        ({"mesh": 2}, ["type", "mesh"]),
        ({"type": "Dataplane", "probes": 1, "name": 2, "networking": 3}, ["name", "probes", "networking"]),
        ({"type": "Dataplane", "mesh": 1, "name": 2}, ["mesh", "name"]),
    ],
)
def test_faults_around_the_spec_come_first(document, fields):
    with pytest.raises(DecodeError) as raised:
        decode_resource(document)
    assert [field for field, _ in raised.value.violations] == fields


FAULTY_TAGS = st.dictionaries(st.text(max_size=3), st.sampled_from(["", "a", 1, 1.5, True, [], {}]), max_size=6)
PORTS = st.sampled_from([None, 0, 80, "80", 2.0, -1, 2**32, 1.5, "x", True, [], {}])
FAULTY_DATAPLANES = st.fixed_dictionaries(
    {},
    optional={
        "address": st.sampled_from(["a", 1, []]),
        "inbound": st.lists(
            st.none() | st.just(7) | st.fixed_dictionaries({}, optional={"port": PORTS, "tags": FAULTY_TAGS}),
            max_size=40,
        ),
        "outbound": st.just({}) | st.lists(st.fixed_dictionaries({}, optional={"port": PORTS}), max_size=10),
    },
)


def faults_of_port(port):
    return int(port is not None and port not in (0, 80, "80", 2.0))


def faulty_fields(networking):
    """The paths of what cannot be read in a document of `FAULTY_DATAPLANES`, found without the codec."""
    fields = []
    for key, value in networking.items():
        if key == "address":
            fields += ["networking.address"] if value != "a" else []
        elif not isinstance(value, list):
            fields.append(f"networking.{key}")
        else:
            for number, entry in enumerate(value):
                at = f"networking.{key}[{number}]"
                fields += [at] if entry == 7 else faults_of_entry(at, entry or {})
    return fields


def faults_of_entry(at, entry):
    fields = []
    for key, value in entry.items():
        if key == "port":
            fields += [f"{at}.port"] * faults_of_port(value)
        else:
            fields += [f'{at}.tags["{name}"]' for name, tag in value.items() if not isinstance(tag, str)]
    return fields


@given(FAULTY_DATAPLANES)
def test_each_fault_is_told_once_in_the_order_of_the_document(networking):
    expected = faulty_fields(networking)
    try:
        decode_spec("Dataplane", {"networking": networking})
        found = []
    except DecodeError as error:
        found = [field for field, _ in error.violations]
    more = len(expected) - 100
    assert found == (expected if more <= 0 else [*expected[:100], ""])

"""R §2.4 and the membership of R §1.3."""

import pytest
import yaml

from snapshot.model.codec import decode_spec
from snapshot.model.rules.mesh import membership_refusal
from snapshot.registry import TYPES


def spec(type_name, text):
    return decode_spec(type_name, yaml.safe_load(text)).spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", []),
        ("{routing: {localityAwareLoadBalancing: true}, constraints: {dataplaneProxy: {}}}", []),
        ("constraints: {dataplane_proxy: {requirements: [{tags: {a: '*'}}], restrictions: [{tags: {b: c/d}}]}}", []),
        (
            "{networking: {}, metrics: {}, logging: {}, tracing: {}, mtls: {}}",
            [
                (part, "not supported by this version")
                for part in ("mtls", "logging", "tracing", "metrics", "networking")
            ],
        ),
        (
            "constraints: {dataplaneProxy: {requirements: [{tags: {a: b}}, {}], restrictions: [{tags: {c: ''}}]}}",
            [
                ("constraints.dataplaneProxy.requirements[1].tags", "must have at least one tag"),
                ('constraints.dataplaneProxy.restrictions[0].tags["c"]', "tag value must be non-empty"),
            ],
        ),
    ],
)
def test_rules(text, expected):
    assert TYPES["Mesh"].validate_spec(spec("Mesh", text)) == expected


REFUSED = 'dataplane cannot be a member of mesh "demo" because its tags "kuma.io/service=web team=a"'


@pytest.mark.parametrize(
    ("constraints", "expected"),
    [
        ("{}", None),
        ("{requirements: [{tags: {team: a}}]}", None),
        ("{requirements: [{tags: {team: '*'}}]}", None),
        ("{requirements: [{tags: {team: b}}, {tags: {team: a}}]}", None),
        ("{requirements: [{tags: {team: b}}]}", f"{REFUSED} does not fulfill any requirements defined on the Mesh"),
        (
            "{requirements: [{tags: {team: a, zone: '*'}}]}",
            f"{REFUSED} does not fulfill any requirements defined on the Mesh",
        ),
        ("{restrictions: [{tags: {team: b}}]}", None),
        (
            "{restrictions: [{tags: {team: b}}, {tags: {team: '*', kuma.io/service: web}}]}",
            f'{REFUSED} matches restricted tags "kuma.io/service=web team=*" defined on the Mesh',
        ),
        (
            "{requirements: [{tags: {team: b}}], restrictions: [{tags: {team: a}}]}",
            f"{REFUSED} does not fulfill any requirements defined on the Mesh",
        ),
    ],
)
def test_membership(constraints, expected):
    mesh = spec("Mesh", f"constraints: {{dataplaneProxy: {constraints}}}")
    dataplane = spec("Dataplane", "networking: {inbound: [{tags: {team: a, kuma.io/service: web}}]}")
    assert membership_refusal("demo", mesh, dataplane) == expected


@pytest.mark.parametrize(
    "networking",
    [
        "inbound: [{tags: {team: a}}, {tags: {team: b}}]",
        "gateway: {tags: {team: b}}",
    ],
)
def test_every_tag_set_is_judged_for_itself(networking):
    mesh = spec("Mesh", "constraints: {dataplaneProxy: {requirements: [{tags: {team: a}}]}}")
    refusal = membership_refusal("demo", mesh, spec("Dataplane", f"networking: {{{networking}}}"))
    assert refusal is not None
    assert '"team=b"' in refusal


def test_a_mesh_without_constraints_takes_everybody():
    assert membership_refusal("demo", spec("Mesh", "{}"), spec("Dataplane", "networking: {gateway: {}}")) is None
    assert membership_refusal("demo", spec("Mesh", "constraints: {}"), spec("Dataplane", "{}")) is None

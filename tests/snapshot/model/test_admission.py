"""What the control plane writes into a Dataplane (R §1.2)."""

import pytest
import yaml

from snapshot.model.admission import with_initial_health, with_zone
from snapshot.model.codec import decode_spec, encode_spec


def dataplane(text):
    return decode_spec("Dataplane", yaml.safe_load(text)).spec


@pytest.mark.parametrize(
    ("given", "zone", "expected"),
    [
        ("{}", "east", "{}"),
        (
            "networking: {inbound: [{tags: {a: b}}, {tags: {kuma.io/zone: mine}}], outbound: [{tags: {c: d}}]}",
            "east",
            """
            networking:
              inbound: [{tags: {a: b, kuma.io/zone: east}}, {tags: {kuma.io/zone: east}}]
              outbound: [{tags: {c: d}}]
            """,
        ),
        ("networking: {gateway: {tags: {a: b}}}", "east", "networking: {gateway: {tags: {a: b, kuma.io/zone: east}}}"),
        (
            "networking: {inbound: [{tags: {kuma.io/zone: mine}}]}",
            "",
            "networking: {inbound: [{tags: {kuma.io/zone: mine}}]}",
        ),
    ],
)
def test_a_configured_zone_is_written_over_every_tag_set(given, zone, expected):
    assert encode_spec(with_zone(dataplane(given), zone)) == yaml.safe_load(expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{}", "{}"),
        ("networking: {inbound: [{port: 1}]}", "networking: {inbound: [{port: 1}]}"),
        (
            "networking: {inbound: [{port: 1, serviceProbe: {}}, {port: 2}]}",
            "networking: {inbound: [{port: 1, health: {}, serviceProbe: {}}, {port: 2}]}",
        ),
        (
            "networking: {inbound: [{serviceProbe: {}, health: {ready: true}}]}",
            "networking: {inbound: [{serviceProbe: {}, health: {ready: true}}]}",
        ),
    ],
)
def test_a_probed_inbound_is_not_ready_at_first(given, expected):
    assert encode_spec(with_initial_health(dataplane(given))) == yaml.safe_load(expected)

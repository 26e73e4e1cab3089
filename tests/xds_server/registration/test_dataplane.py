"""What is added to a Dataplane that registers, and what is kept of the one before (R §1.2)."""

import pytest

from snapshot.model.codec import decode_spec, encode_spec
from xds_server.registration import prepared


def dataplane(*inbounds, gateway=None, **networking):
    spec = {"networking": {"address": "10.0.0.1", "inbound": list(inbounds), **networking}}
    if gateway:
        spec["networking"]["gateway"] = {"tags": gateway}
    return decode_spec("Dataplane", spec).spec


def inbound(port=80, probe=False, ready=None, **tags):
    made = {"port": port, "tags": {"kuma.io/service": "web", **tags}}
    if probe:
        made["serviceProbe"] = {"tcp": {}}
    if ready is not None:
        made["health"] = {"ready": ready}
    return made


def healths(spec):
    return [inbound.health and inbound.health.ready for inbound in spec.networking.inbound]


@pytest.mark.parametrize(
    ("stored", "sent", "expected"),
    [
        (None, [inbound()], [None]),
        (None, [inbound(probe=True)], [False]),
        (None, [inbound(probe=True, ready=True)], [True]),
        ([inbound(probe=True, ready=True)], [inbound(probe=True)], [True]),
        ([inbound(probe=True, ready=False)], [inbound(probe=True)], [False]),
        ([inbound(probe=True, ready=True)], [inbound(probe=True, version="2")], [False]),
        ([inbound(ready=False)], [inbound()], [None]),
        ([inbound(80, probe=True, ready=True)], [inbound(81, probe=True), inbound(80, probe=True)], [False, True]),
    ],
)
def test_reported_health_outlives_a_registration_of_the_same_inbound(stored, sent, expected):
    before = dataplane(*stored) if stored else None
    assert healths(prepared(dataplane(*sent), "", before)) == expected


def test_the_zone_is_written_over_every_tag_set():
    made = prepared(dataplane(inbound(**{"kuma.io/zone": "mine"})), "east", None)
    assert made.networking.inbound[0].tags["kuma.io/zone"] == "east"
    made = prepared(dataplane(gateway={"kuma.io/service": "gw"}), "east", None)
    assert made.networking.gateway.tags["kuma.io/zone"] == "east"
    assert (
        prepared(dataplane(inbound(**{"kuma.io/zone": "mine"})), "", None).networking.inbound[0].tags["kuma.io/zone"]
        == "mine"
    )


def test_registering_the_same_again_changes_nothing():
    once = prepared(dataplane(inbound(probe=True), inbound(81)), "east", None)
    assert prepared(dataplane(inbound(probe=True), inbound(81)), "east", once) == once
    assert encode_spec(once)["networking"]["inbound"][0]["health"] == {}

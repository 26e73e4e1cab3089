"""What the frozen values of the model say about themselves."""

import http

import pytest

from snapshot.model.codec import decode_spec, encode_spec
from snapshot.model.dataplane import Dataplane, Gateway, Health, Inbound, Networking, Outbound
from snapshot.model.meta import Spec
from snapshot.model.schema import message
from snapshot.model.secret import Secret
from snapshot.model.tags import NO_TAGS, Tags
from snapshot.model.validation import ValidationError, Violation


class TestTags:
    def test_equal_sets_look_equal(self):
        tags, same = Tags({"b": "1", "a": "2"}), Tags([("a", "2"), ("b", "1")])
        assert tags == same
        assert hash(tags) == hash(same)
        assert list(tags) == ["a", "b"]
        assert repr(tags) == "Tags({'a': '2', 'b': '1'})"
        assert tags != {"a": "2", "b": "1"}
        assert tags["a"] == "2"

    @pytest.mark.parametrize(
        ("selector", "selected"),
        [
            ({}, True),
            ({"a": "1"}, True),
            ({"a": "*", "b": "2"}, True),
            ({"a": "2"}, False),
            ({"c": "*"}, False),
        ],
    )
    def test_a_selector_needs_every_key(self, selector, selected):
        assert Tags({"a": "1", "b": "2"}).matches(selector) is selected

    def test_changes_make_new_sets(self):
        tags = Tags({"a": "1", "kuma.io/service": "web"})
        assert tags.without("a", "z") == Tags({"kuma.io/service": "web"})
        assert tags.with_({"a": "2"}) == Tags({"a": "2", "kuma.io/service": "web"})
        assert (tags.service, NO_TAGS.service) == ("web", "")


class TestDataplane:
    def test_an_inbound_leads_to_the_application(self):
        plain = Inbound(port=80)
        assert (plain.workload_address, plain.workload_port, plain.ready) == ("127.0.0.1", 80, True)
        moved = Inbound(port=80, service_port=8080, service_address="10.0.0.9", health=Health())
        assert (moved.workload_address, moved.workload_port, moved.ready) == ("10.0.0.9", 8080, False)

    def test_an_outbound_leads_to_its_tags_or_to_the_deprecated_service(self):
        assert Outbound(service="a").destination == Tags({"kuma.io/service": "a"})
        assert Outbound(service="a", tags=Tags({"kuma.io/service": "b"})).destination == Tags({"kuma.io/service": "b"})
        assert (Outbound().bind_address, Outbound(address="127.0.0.2").bind_address) == ("127.0.0.1", "127.0.0.2")

    @pytest.mark.parametrize(
        ("networking", "service"),
        [
            (None, "unknown"),
            (Networking(inbound=(Inbound(),)), "unknown"),
            (Networking(inbound=tuple(Inbound(tags=Tags({"kuma.io/service": name})) for name in ("b", "a"))), "a"),
            (Networking(gateway=Gateway(tags=Tags({"kuma.io/service": "edge"}))), "edge"),
        ],
    )
    def test_the_identifying_service_is_the_first_by_name(self, networking, service):
        assert Dataplane(networking=networking).identifying_service == service


def test_a_secret_does_not_show_itself():
    assert repr(Secret(data=b"hunter2")) == "Secret(data=<7 bytes>)"


def test_a_validation_error_lists_all():
    error = ValidationError([Violation("a", "b"), Violation("c", "d")])
    assert str(error) == "a: b; c: d"
    assert error.violations == (("a", "b"), ("c", "d"))


def test_numbers_of_other_classes_are_numbers():
    assert encode_spec(decode_spec("Dataplane", {"probes": {"port": http.HTTPStatus.OK}}).spec) == {
        "probes": {"port": 200}
    }


def test_a_field_without_an_encoding_is_a_mistake_of_ours():
    class Strange(Spec, frozen=True, kw_only=True):
        field: complex = 0j

    with pytest.raises(TypeError, match="a spec cannot hold <class 'complex'>: add its encoding here"):
        message(Strange)

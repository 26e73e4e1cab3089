import pytest

from snapshot.model.mesh import Mesh
from snapshot.model.meta import Unsupported
from snapshot.model.rules.meta import validate_meta
from snapshot.model.secret import Secret
from snapshot.registry import TYPES, Scope, UnknownType, by_argument, by_path, descriptor

TABLE = {  # R §1.1: scope, path, kumactl arguments
    "Mesh": (Scope.GLOBAL, "meshes", "mesh", "meshes"),
    "Dataplane": (Scope.MESH, "dataplanes", "dataplane", "dataplanes"),
    "DataplaneInsight": (Scope.MESH, "dataplane-insights", "", ""),
    "CircuitBreaker": (Scope.MESH, "circuit-breakers", "circuit-breaker", "circuit-breakers"),
    "Retry": (Scope.MESH, "retries", "retry", "retries"),
    "Timeout": (Scope.MESH, "timeouts", "timeout", "timeouts"),
    "TrafficPermission": (Scope.MESH, "traffic-permissions", "traffic-permission", "traffic-permissions"),
    "TrafficRoute": (Scope.MESH, "traffic-routes", "traffic-route", "traffic-routes"),
    "Secret": (Scope.MESH, "secrets", "secret", "secrets"),
    "GlobalSecret": (Scope.GLOBAL, "global-secrets", "global-secret", "global-secrets"),
}
POLICIES = {"CircuitBreaker", "Retry", "Timeout", "TrafficPermission", "TrafficRoute"}


def test_the_table_is_that_of_kuma():
    assert {t.name: (t.scope, t.path, t.cli_one, t.cli_many) for t in TYPES.values()} == TABLE


@pytest.mark.parametrize(
    ("flag", "types"),
    [
        ("read_only", {"DataplaneInsight"}),
        ("admin_only", {"Secret", "GlobalSecret"}),
        ("owned_by_mesh", POLICIES),
        ("inspectable", POLICIES),
    ],
)
def test_flags(flag, types):
    assert {name for name, one in TYPES.items() if getattr(one, flag)} == types


@pytest.mark.parametrize("name", TABLE)
def test_lookup_by_every_word(name):
    one = descriptor(name)
    assert one is TYPES[name]
    assert by_path(one.path) is one
    for word in filter(None, (one.cli_one, one.cli_many)):
        assert by_argument(word) is one


def test_unknown_words_lead_nowhere():
    assert by_path("health-checks") is None
    assert by_argument("healthcheck") is None
    assert by_argument("") is None


SUPPORTED = (
    "Supported types: CircuitBreaker, Dataplane, DataplaneInsight, GlobalSecret, Mesh, Retry, Secret, Timeout, "
    "TrafficPermission, TrafficRoute"
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HealthCheck", f"HealthCheck: not supported by this version. {SUPPORTED}"),
        ("ExternalService", f"ExternalService: not supported by this version. {SUPPORTED}"),
        ("dataplane", f"dataplane: no such type. {SUPPORTED}"),
        ("x" * 5000, f"{'x' * 100}…: no such type. {SUPPORTED}"),
    ],
)
def test_other_types_are_refused_with_what_exists(name, text):
    with pytest.raises(UnknownType) as raised:
        descriptor(name)
    assert str(raised.value) == text
    assert raised.value.field == "type"


CHARACTERS = "invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_' symbols."


@pytest.mark.parametrize(
    ("type_name", "mesh", "name", "expected"),
    [
        ("Dataplane", "default", "dp-1_a", []),
        ("Mesh", "", "default", []),
        ("Mesh", "IGNORED", "default", []),
        ("Dataplane", "", "", [("name", "cannot be empty"), ("mesh", "cannot be empty")]),
        ("Dataplane", "A", "dp.1", [("name", CHARACTERS), ("mesh", CHARACTERS)]),
        ("Dataplane", "default", "dp\n", [("name", CHARACTERS)]),
        ("Dataplane", "default", "٣", [("name", CHARACTERS)]),
        ("Dataplane", "default", "a" * 254, [("name", "must not be longer than 253 characters")]),
    ],
)
def test_rules_of_names(type_name, mesh, name, expected):
    assert validate_meta(type_name, mesh, name) == expected


def test_a_descriptor_reports_the_key_and_the_spec_at_once():
    violations = descriptor("Mesh").validate(Mesh(mtls=Unsupported()), "", "A")
    assert [v.field for v in violations] == ["name", "mtls"]
    assert descriptor("Secret").validate(Secret(data=b""), "m", "s") == []

"""A real Envoy accepts every golden as it is, and warns about nothing (X §0)."""

import pytest

from snapshot.cache.type_url import LISTENER
from tests.support.goldens import inputs, load
from tests.support.real_envoy import RealEnvoy

CONTRIB_ONLY = {"kafka-contrib"}
"""Generated only for an Envoy that advertises an extension which the published builds leave out."""

CASES = [case for case in map(load, inputs()) if case.name not in CONTRIB_ONLY]


@pytest.fixture(scope="module")
def envoy(tmp_path_factory):
    with RealEnvoy(tmp_path_factory.mktemp("envoy")) as running:
        yield running


@pytest.mark.parametrize(("block", "case"), list(enumerate(CASES)), ids=[case.name for case in CASES])
def test_a_golden_is_accepted_without_a_warning(envoy, block, case):
    assert envoy.offer(case, block) == []
    assert envoy.stat("listener_manager.total_listeners_active") == len(case.resources[LISTENER])
    assert envoy.stat("cluster_manager.warming_clusters") == 0
    assert envoy.stat("runtime.deprecated_feature_use") == 0
    assert "deprecated" not in envoy.log.lower()


def test_kafkas_filter_is_why_extensions_are_asked_for(envoy):
    (kafka,) = (load(source) for source in inputs() if source.name.startswith("kafka-contrib"))
    assert any("kafka_broker" in complaint for complaint in envoy.offer(kafka, len(CASES)))

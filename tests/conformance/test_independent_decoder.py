"""What our bytes mean, read by a library that did not write them, and that they are the same on every start (L6)."""

import os
import subprocess
import sys
import warnings

import pytest

from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER
from tests.support.goldens import inputs, load

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the generated classes use a form of pydantic's validators that is deprecated
    from envoy_data_plane.envoy.config.cluster.v3 import Cluster
    from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
    from envoy_data_plane.envoy.config.listener.v3 import Listener

DECODERS = {CLUSTER: Cluster, ENDPOINT: ClusterLoadAssignment, LISTENER: Listener}
PRINT_VERSIONS = """
from tests.support.goldens import inputs, load
print([(r.name, r.version) for source in inputs() for rs in load(source).resources.values() for r in rs])
"""


@pytest.mark.parametrize("source", inputs(), ids=lambda source: source.name)
def test_another_decoder_reads_the_same_names_and_addresses(source):
    case = load(source)
    for type_url, resources in case.resources.items():
        for resource in resources:
            message = DECODERS[type_url]().parse(resource.body)
            assert getattr(message, "cluster_name" if type_url == ENDPOINT else "name") == resource.name
            assert bytes(DECODERS[type_url]().parse(bytes(message))) == bytes(message)


def test_versions_do_not_depend_on_the_process():
    said = [
        subprocess.run(
            [sys.executable, "-c", PRINT_VERSIONS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] != ""

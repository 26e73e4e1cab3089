"""TrafficRoute: the load balancer of the clusters (X §3.9). Its routes are made by `generators.outbound`."""

from __future__ import annotations

from typing import Any, Final

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from google.protobuf.wrappers_pb2 import UInt32Value, UInt64Value

from snapshot.envoy.clusters import ClusterDraft
from snapshot.model.traffic_route import LeastRequest, LoadBalancer, RingHash

_HASH_FUNCTIONS: Final = {
    "XX_HASH": Cluster.RingHashLbConfig.XX_HASH,
    "MURMUR_HASH_2": Cluster.RingHashLbConfig.MURMUR_HASH_2,
}
_FIELD: Final = "conf.loadBalancer.ringHash"
_LEAST_CHOICES: Final = 2
_DEFAULT_SMALLEST_RING: Final = 1024
_LARGEST_RING: Final = 8 * 1024 * 1024


def apply_load_balancer(draft: ClusterDraft, conf: LoadBalancer | None) -> list[str]:
    """Choose how endpoints are picked. A kind with impossible settings is left out: then it is round robin."""
    if conf is None:
        return []
    if conf.least_request is not None:
        return _least_request(draft.cluster, conf.least_request)
    if conf.ring_hash is not None:
        return _ring_hash(draft.cluster, conf.ring_hash)
    if conf.random is not None:
        draft.cluster.lb_policy = Cluster.RANDOM
    elif conf.maglev is not None:
        draft.cluster.lb_policy = Cluster.MAGLEV
    return []


def _least_request(cluster: Any, conf: LeastRequest) -> list[str]:
    cluster.lb_policy = Cluster.LEAST_REQUEST
    if 0 < conf.choice_count < _LEAST_CHOICES:
        field = "conf.loadBalancer.leastRequest.choiceCount"
        return [f"{field}: {conf.choice_count} is less than {_LEAST_CHOICES}; {_LEAST_CHOICES} is used"]
    if conf.choice_count:
        cluster.least_request_lb_config.choice_count.CopyFrom(UInt32Value(value=conf.choice_count))
    return []


def _ring_hash(cluster: Any, conf: RingHash) -> list[str]:
    if (function := _HASH_FUNCTIONS.get(conf.hash_function)) is None:
        known = ", ".join(_HASH_FUNCTIONS)
        return [f'{_FIELD}.hashFunction: "{conf.hash_function}" is none of {known}; round robin is used']
    largest = conf.max_ring_size or _LARGEST_RING
    smallest = conf.min_ring_size or min(_DEFAULT_SMALLEST_RING, largest)
    if max(smallest, largest) > _LARGEST_RING or smallest > largest:
        wrong = f"{smallest} to {largest} is no range of sizes up to {_LARGEST_RING}"
        return [f"{_FIELD}: {wrong}; round robin is used"]
    cluster.lb_policy = Cluster.RING_HASH
    cluster.ring_hash_lb_config.hash_function = function
    if conf.min_ring_size or smallest < _DEFAULT_SMALLEST_RING:
        cluster.ring_hash_lb_config.minimum_ring_size.CopyFrom(UInt64Value(value=smallest))
    if conf.max_ring_size:
        cluster.ring_hash_lb_config.maximum_ring_size.CopyFrom(UInt64Value(value=conf.max_ring_size))
    return []

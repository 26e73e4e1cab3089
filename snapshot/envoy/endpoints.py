"""ClusterLoadAssignments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import Locality, Metadata
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.wrappers_pb2 import UInt32Value

from snapshot.envoy.values import socket_address

_METADATA_FILTERS: Final = ("envoy.lb", "envoy.transport_socket_match")


def lb_endpoint(ip: str, port: int, weight: int, labels: Mapping[str, str]) -> Any:
    """One endpoint. `weight` 0 is left out; `labels` become the metadata that subsets and TLS are chosen by."""
    endpoint = LbEndpoint(endpoint=Endpoint(address=socket_address(ip, port)))
    if weight:
        endpoint.load_balancing_weight.CopyFrom(UInt32Value(value=weight))
    if labels:
        fields = Struct(fields={key: Value(string_value=value) for key, value in labels.items()})
        endpoint.metadata.CopyFrom(Metadata(filter_metadata=dict.fromkeys(_METADATA_FILTERS, fields)))
    return endpoint


def locality_endpoints(zone: str, endpoints: Sequence[Any]) -> Any:
    """A group of endpoints in one zone; "" is the group without locality."""
    group = LocalityLbEndpoints(lb_endpoints=endpoints)
    if zone:
        group.locality.CopyFrom(Locality(zone=zone))
    return group


def cluster_load_assignment(name: str, groups: Iterable[Any]) -> Any:
    """The endpoints of the cluster `name`; without groups it says that there are none."""
    return ClusterLoadAssignment(cluster_name=name, endpoints=groups)

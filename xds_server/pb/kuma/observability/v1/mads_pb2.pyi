from envoy.service.discovery.v3 import discovery_pb2 as _discovery_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MonitoringAssignment(_message.Message):
    __slots__ = ("mesh", "service", "targets", "labels")
    class Target(_message.Message):
        __slots__ = ("name", "scheme", "address", "metrics_path", "labels")
        class LabelsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        NAME_FIELD_NUMBER: _ClassVar[int]
        SCHEME_FIELD_NUMBER: _ClassVar[int]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        METRICS_PATH_FIELD_NUMBER: _ClassVar[int]
        LABELS_FIELD_NUMBER: _ClassVar[int]
        name: str
        scheme: str
        address: str
        metrics_path: str
        labels: _containers.ScalarMap[str, str]
        def __init__(self, name: _Optional[str] = ..., scheme: _Optional[str] = ..., address: _Optional[str] = ..., metrics_path: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MESH_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    mesh: str
    service: str
    targets: _containers.RepeatedCompositeFieldContainer[MonitoringAssignment.Target]
    labels: _containers.ScalarMap[str, str]
    def __init__(self, mesh: _Optional[str] = ..., service: _Optional[str] = ..., targets: _Optional[_Iterable[_Union[MonitoringAssignment.Target, _Mapping]]] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

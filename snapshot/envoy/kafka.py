"""The Kafka filter of Envoy's contrib build, whose message the published packages leave out."""

from __future__ import annotations

from typing import Any, Final

from envoy.config.listener.v3.listener_components_pb2 import Filter
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from snapshot.envoy.names import KAFKA_BROKER
from snapshot.envoy.values import packed

_PACKAGE: Final = "envoy.extensions.filters.network.kafka_broker.v3"
_FILE: Final = "contrib/envoy/extensions/filters/network/kafka_broker/v3/kafka_broker.proto"


def _message_class() -> Any:
    """The class of `KafkaBroker`, declared here with the one field that is used (number 1, a string)."""
    pool = descriptor_pool.Default()
    try:
        found = pool.FindMessageTypeByName(f"{_PACKAGE}.KafkaBroker")
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=_PACKAGE, syntax="proto3")
        field = file.message_type.add(name="KafkaBroker").field.add(name="stat_prefix", number=1)
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        pool.AddSerializedFile(file.SerializeToString())
        found = pool.FindMessageTypeByName(f"{_PACKAGE}.KafkaBroker")
    return message_factory.GetMessageClass(found)


_KafkaBroker: Final = _message_class()


def kafka_broker(stat_prefix: str) -> Any:
    """Counts Kafka's requests and responses that pass. Only an Envoy that advertises the extension accepts it."""
    return Filter(name=KAFKA_BROKER, typed_config=packed(_KafkaBroker(stat_prefix=stat_prefix)))

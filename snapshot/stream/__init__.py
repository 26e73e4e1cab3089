"""The xDS protocol of one stream: requests and publications in, responses and effects out.

In here: what a subscription means, when and what is sent, in which order, what an answer does; both variants. Never in
here: sockets, tasks, clocks, queues of responses, or how a resource is made. A stream holds marks and what its client
has; a response is built from the newest state at the moment it can be written (XP-118).
"""

from snapshot.stream.bodies import BodyCache
from snapshot.stream.effects import Acked, Close, Effect, Nacked, Response, StatusCode, UnknownType, Withheld
from snapshot.stream.limits import GRPC_CLIENT_BYTES, Limits
from snapshot.stream.requests import DeltaRequest, Nack, SotwRequest, decode_delta, decode_sotw
from snapshot.stream.status import NackRecord, SyncState, TypeStatus
from snapshot.stream.stream import Stream, Variant

__all__ = [
    "GRPC_CLIENT_BYTES",
    "Acked",
    "BodyCache",
    "Close",
    "DeltaRequest",
    "Effect",
    "Limits",
    "Nack",
    "NackRecord",
    "Nacked",
    "Response",
    "SotwRequest",
    "StatusCode",
    "Stream",
    "SyncState",
    "TypeStatus",
    "UnknownType",
    "Variant",
    "Withheld",
    "decode_delta",
    "decode_sotw",
]

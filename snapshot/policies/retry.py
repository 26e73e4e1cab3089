"""Retry: what is tried again, and how often (X §3.7)."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.wrappers_pb2 import UInt32Value

from snapshot.envoy.listeners import ListenerDraft
from snapshot.envoy.routes import method_is, retry_policy
from snapshot.envoy.values import duration
from snapshot.model.policies import BackOff, GrpcRetry, HttpRetry, RetryConf
from snapshot.policies.bounds import Reader
from snapshot.topology.proxy import Protocol

_HTTP_ON: Final = ("gateway-error", "connect-failure", "refused-stream")
_HTTP_ON_STATUS: Final = ("connect-failure", "refused-stream", "retriable-status-codes")
_GRPC_ON: Final = (
    "cancelled",
    "connect-failure",
    "gateway-error",
    "refused-stream",
    "reset",
    "resource-exhausted",
    "unavailable",
)


def apply_retry(listener: ListenerDraft, protocol: Protocol, conf: RetryConf | None) -> list[str]:
    """Set the retries of an outbound's listener: connects of TCP, requests of HTTP, calls of gRPC.

    http2 has none, as in Kuma 1.5: with the default policy every http2 service would be retried that never was.
    """
    if conf is None:
        return []
    reader = Reader()
    for chain in listener.chains:
        if chain.tcp is not None:
            if conf.tcp is not None and conf.tcp.max_connect_attempts:
                chain.tcp.max_connect_attempts.CopyFrom(UInt32Value(value=conf.tcp.max_connect_attempts))
        elif (policy := _requests(protocol, conf, reader)) is not None:
            for host in chain.http.route_config.virtual_hosts:
                host.retry_policy.CopyFrom(policy)
    return reader.reasons


def _requests(protocol: Protocol, conf: RetryConf, reader: Reader) -> Any:
    if protocol is Protocol.GRPC and conf.grpc is not None:
        return _grpc(conf.grpc, reader)
    if protocol is Protocol.HTTP and conf.http is not None:
        return _http(conf.http, reader)
    return None


def _http(conf: HttpRetry, reader: Reader) -> Any:
    policy = _policy("conf.http", conf, _HTTP_ON_STATUS if conf.retriable_status_codes else _HTTP_ON, reader)
    policy.retriable_status_codes.extend(conf.retriable_status_codes)
    policy.retriable_request_headers.extend(method_is(name) for name in conf.retriable_methods if name != "NONE")
    return policy


def _grpc(conf: GrpcRetry, reader: Reader) -> Any:
    conditions = tuple(name.replace("_", "-") for name in conf.retry_on)
    return _policy("conf.grpc", conf, conditions or _GRPC_ON, reader)


def _policy(field: str, conf: HttpRetry | GrpcRetry, retry_on: tuple[str, ...], reader: Reader) -> Any:
    per_try = reader.not_negative(f"{field}.perTryTimeout", conf.per_try_timeout, "there is none")
    policy = retry_policy(retry_on, num_retries=conf.num_retries, per_try_timeout_ns=per_try)
    if conf.back_off is not None:
        _back_off(policy, f"{field}.backOff", conf.back_off, reader)
    return policy


def _back_off(policy: Any, field: str, conf: BackOff, reader: Reader) -> None:
    base = reader.positive(f"{field}.baseInterval", conf.base_interval, "Envoy's default of 25ms is used")
    if base is None:
        return
    policy.retry_back_off.base_interval.CopyFrom(duration(base))
    longest = reader.positive(f"{field}.maxInterval", conf.max_interval, "ten times baseInterval is used")
    if longest is not None and longest < base:
        reader.reasons.append(f"{field}.maxInterval: is less than baseInterval; ten times baseInterval is used")
    elif longest is not None:
        policy.retry_back_off.max_interval.CopyFrom(duration(longest))

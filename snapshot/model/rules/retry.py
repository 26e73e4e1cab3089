"""Retry (R §2.7)."""

from __future__ import annotations

from snapshot.model.policies import BackOff, GrpcRetry, HttpRetry, Retry, RetryConf, TcpRetry
from snapshot.model.rules.durations import GREATER_THAN_0, is_empty, positive
from snapshot.model.rules.tags import ONLY_SERVICE, WITH_SERVICE, check_connection
from snapshot.model.validation import Violation

_EMPTY = "field cannot be empty"
_MOST_INDEXES = 100


def validate(spec: Retry) -> list[Violation]:
    """All violations, in order."""
    return check_connection(spec, WITH_SERVICE, ONLY_SERVICE) + _check_conf(spec.conf)


def _check_conf(conf: RetryConf | None) -> list[Violation]:
    if conf is None:
        return [Violation("conf", "has to be defined")]
    if is_empty(conf):
        return [Violation("conf", "missing protocol [grpc|http|tcp] configuration")]
    return [*_check_http(conf.http), *_check_tcp(conf.tcp), *_check_grpc(conf.grpc)]


def _check_http(http: HttpRetry | None) -> list[Violation]:
    if http is None:
        return []
    if is_empty(http):
        return [Violation("conf.http", _EMPTY)]
    methods = [
        Violation(f"conf.http.retriableMethods[{index}]", _EMPTY)
        for index, method in enumerate(http.retriable_methods)
        if method == "NONE"
    ]
    return _check_tries("conf.http", http) + methods


def _check_tcp(tcp: TcpRetry | None) -> list[Violation]:
    if tcp is None or tcp.max_connect_attempts > 0:
        return []
    return [Violation("conf.tcp.maxConnectAttempts", GREATER_THAN_0)]


def _check_grpc(grpc: GrpcRetry | None) -> list[Violation]:
    if grpc is None:
        return []
    if is_empty(grpc):
        return [Violation("conf.grpc", _EMPTY)]
    return _check_tries("conf.grpc", grpc) + _check_repetition(grpc.retry_on)


def _check_repetition(values: tuple[str, ...]) -> list[Violation]:
    places: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        places.setdefault(value, []).append(index)
    return [
        Violation("conf.grpc.retryOn", f'repeated value "{value}" at indexes {indexes[:_MOST_INDEXES]}')
        for value, indexes in places.items()
        if len(indexes) > 1
    ]


def _check_tries(path: str, retry: HttpRetry | GrpcRetry) -> list[Violation]:
    return [
        *positive(f"{path}.numRetries", retry.num_retries),
        *positive(f"{path}.perTryTimeout", retry.per_try_timeout),
        *_check_back_off(f"{path}.backOff", retry.back_off),
    ]


def _check_back_off(path: str, back_off: BackOff | None) -> list[Violation]:
    if back_off is None:
        return []
    if back_off.base_interval is None:
        return [Violation(f"{path}.baseInterval", "has to be defined")]
    return [
        *positive(f"{path}.baseInterval", back_off.base_interval, GREATER_THAN_0),
        *positive(f"{path}.maxInterval", back_off.max_interval),
    ]

"""Timeout (R §2.7). `conf.connectTimeout` is not checked, as in Kuma: the build reports a value it cannot use."""

from __future__ import annotations

from snapshot.model.policies import GrpcTimeout, HttpTimeout, TcpTimeout, Timeout, TimeoutConf
from snapshot.model.rules.durations import GREATER_THAN_0, is_empty, positive
from snapshot.model.rules.tags import ONLY_SERVICE, WITH_SERVICE, check_connection
from snapshot.model.validation import Violation

_EMPTY_SECTION = "at least one timeout in section has to be defined"


def validate(spec: Timeout) -> list[Violation]:
    """All violations, in order."""
    return check_connection(spec, WITH_SERVICE, ONLY_SERVICE) + _check_conf(spec.conf)


def _check_conf(conf: TimeoutConf | None) -> list[Violation]:
    if conf is None:
        return [Violation("conf", "has to be defined")]
    violations = []
    for section, check in (("tcp", _check_tcp), ("http", _check_http), ("grpc", _check_grpc)):
        part = getattr(conf, section)
        if part is not None:
            violations += [Violation(f"conf.{section}", _EMPTY_SECTION)] if is_empty(part) else check(part)
    return violations


def _check_tcp(tcp: TcpTimeout) -> list[Violation]:
    return positive("conf.tcp.idleTimeout", tcp.idle_timeout, GREATER_THAN_0)


def _check_http(http: HttpTimeout) -> list[Violation]:
    return [
        *positive("conf.http.requestTimeout", http.request_timeout),
        *positive("conf.http.idleTimeout", http.idle_timeout),
    ]


def _check_grpc(grpc: GrpcTimeout) -> list[Violation]:
    return [
        *positive("conf.grpc.streamIdleTimeout", grpc.stream_idle_timeout),
        *positive("conf.grpc.maxStreamDuration", grpc.max_stream_duration),
    ]

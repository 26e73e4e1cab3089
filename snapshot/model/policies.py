"""The specs of the other connection policies: TrafficPermission, Timeout, CircuitBreaker, Retry (R §1.8)."""

from __future__ import annotations

from typing import Annotated

from snapshot.model.meta import Duration, EnumNames, Spec
from snapshot.model.selector import ConnectionPolicy

HttpMethod = Annotated[
    str, EnumNames(("NONE", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
]
GrpcRetryOn = Annotated[
    str, EnumNames(("cancelled", "deadline_exceeded", "internal", "resource_exhausted", "unavailable"))
]


class TrafficPermission(ConnectionPolicy, frozen=True, kw_only=True):
    """Being selected allows the connection. Enforced only where the mesh has mTLS."""


class TcpTimeout(Spec, frozen=True, kw_only=True):
    """Timeouts of TCP connections."""

    idle_timeout: Duration | None = None


class HttpTimeout(Spec, frozen=True, kw_only=True):
    """Timeouts of HTTP requests and connections."""

    request_timeout: Duration | None = None
    idle_timeout: Duration | None = None


class GrpcTimeout(Spec, frozen=True, kw_only=True):
    """Timeouts of gRPC streams."""

    stream_idle_timeout: Duration | None = None
    max_stream_duration: Duration | None = None


class TimeoutConf(Spec, frozen=True, kw_only=True):
    """`connect_timeout` is 10 s where it is unset."""

    connect_timeout: Duration | None = None
    tcp: TcpTimeout | None = None
    http: HttpTimeout | None = None
    grpc: GrpcTimeout | None = None


class Timeout(ConnectionPolicy, frozen=True, kw_only=True):
    """The spec of a Timeout resource."""

    conf: TimeoutConf | None = None


class ConsecutiveErrors(Spec, frozen=True, kw_only=True):
    """Eject after this many errors in a row."""

    consecutive: int | None = None


class StandardDeviation(Spec, frozen=True, kw_only=True):
    """Eject by deviation of the success rate."""

    request_volume: int | None = None
    minimum_hosts: int | None = None
    factor: float | None = None


class FailurePercentage(Spec, frozen=True, kw_only=True):
    """Eject by share of failures, 0–100."""

    request_volume: int | None = None
    minimum_hosts: int | None = None
    threshold: int | None = None


class Detectors(Spec, frozen=True, kw_only=True):
    """What counts as failing; an absent detector is switched off."""

    total_errors: ConsecutiveErrors | None = None
    gateway_errors: ConsecutiveErrors | None = None
    local_errors: ConsecutiveErrors | None = None
    standard_deviation: StandardDeviation | None = None
    failure: FailurePercentage | None = None


class Thresholds(Spec, frozen=True, kw_only=True):
    """Upper bounds on what one client has under way."""

    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_retries: int | None = None
    max_requests: int | None = None


class CircuitBreakerConf(Spec, frozen=True, kw_only=True):
    """Ejection of failing endpoints and bounds on load."""

    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: int | None = None
    split_external_and_local_errors: bool = False
    detectors: Detectors | None = None
    thresholds: Thresholds | None = None


class CircuitBreaker(ConnectionPolicy, frozen=True, kw_only=True):
    """The spec of a CircuitBreaker resource."""

    conf: CircuitBreakerConf | None = None


class BackOff(Spec, frozen=True, kw_only=True):
    """Exponential pause between tries."""

    base_interval: Duration | None = None
    max_interval: Duration | None = None


class HttpRetry(Spec, frozen=True, kw_only=True):
    """Retries of HTTP requests. `retriable_methods` are names such as GET; NONE is skipped."""

    num_retries: int | None = None
    per_try_timeout: Duration | None = None
    back_off: BackOff | None = None
    retriable_status_codes: tuple[int, ...] = ()
    retriable_methods: tuple[HttpMethod, ...] = ()


class TcpRetry(Spec, frozen=True, kw_only=True):
    """Retries of TCP connects."""

    max_connect_attempts: int = 0


class GrpcRetry(Spec, frozen=True, kw_only=True):
    """Retries of gRPC calls. `retry_on` are names such as resource_exhausted."""

    retry_on: tuple[GrpcRetryOn, ...] = ()
    num_retries: int | None = None
    per_try_timeout: Duration | None = None
    back_off: BackOff | None = None


class RetryConf(Spec, frozen=True, kw_only=True):
    """Retries for each protocol."""

    http: HttpRetry | None = None
    tcp: TcpRetry | None = None
    grpc: GrpcRetry | None = None


class Retry(ConnectionPolicy, frozen=True, kw_only=True):
    """The spec of a Retry resource."""

    conf: RetryConf | None = None

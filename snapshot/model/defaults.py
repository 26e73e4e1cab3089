"""The policies that every new mesh starts with (R §6.1)."""

from __future__ import annotations

from datetime import datetime

from snapshot.model.meta import NANOSECONDS, NO_TIME, Duration, Resource, ResourceKey
from snapshot.model.policies import (
    BackOff,
    CircuitBreaker,
    CircuitBreakerConf,
    GrpcRetry,
    GrpcTimeout,
    HttpRetry,
    HttpTimeout,
    Retry,
    RetryConf,
    TcpRetry,
    TcpTimeout,
    Thresholds,
    Timeout,
    TimeoutConf,
    TrafficPermission,
)
from snapshot.model.selector import ConnectionPolicy, Selector
from snapshot.model.tags import ANY, SERVICE, Tags
from snapshot.model.traffic_route import LoadBalancer, RoundRobin, TrafficRoute, TrafficRouteConf

_ANY_SERVICE = Tags({SERVICE: ANY})
_ALL = (Selector(match=_ANY_SERVICE),)


def _seconds(count: float) -> Duration:
    return Duration(round(count * NANOSECONDS))


_ROUTE = TrafficRoute(
    sources=_ALL,
    destinations=_ALL,
    conf=TrafficRouteConf(load_balancer=LoadBalancer(round_robin=RoundRobin()), destination=_ANY_SERVICE),
)
_TIMEOUT = Timeout(
    sources=_ALL,
    destinations=_ALL,
    conf=TimeoutConf(
        connect_timeout=_seconds(5),
        tcp=TcpTimeout(idle_timeout=_seconds(3600)),
        http=HttpTimeout(idle_timeout=_seconds(3600), request_timeout=_seconds(15)),
        grpc=GrpcTimeout(stream_idle_timeout=_seconds(300)),
    ),
)
_CIRCUIT_BREAKER = CircuitBreaker(
    sources=_ALL,
    destinations=_ALL,
    conf=CircuitBreakerConf(
        thresholds=Thresholds(max_connections=1024, max_pending_requests=1024, max_retries=3, max_requests=1024)
    ),
)
_BACK_OFF = BackOff(base_interval=_seconds(0.025), max_interval=_seconds(0.25))
_RETRY = Retry(
    sources=_ALL,
    destinations=_ALL,
    conf=RetryConf(
        http=HttpRetry(num_retries=5, per_try_timeout=_seconds(16), back_off=_BACK_OFF),
        tcp=TcpRetry(max_connect_attempts=5),
        grpc=GrpcRetry(num_retries=5, per_try_timeout=_seconds(16), back_off=_BACK_OFF),
    ),
)

_DEFAULTS: tuple[tuple[str, str, ConnectionPolicy], ...] = (
    ("TrafficPermission", "allow-all", TrafficPermission(sources=_ALL, destinations=_ALL)),
    ("TrafficRoute", "route-all", _ROUTE),
    ("Timeout", "timeout-all", _TIMEOUT),
    ("CircuitBreaker", "circuit-breaker-all", _CIRCUIT_BREAKER),
    ("Retry", "retry-all", _RETRY),
)


def default_policies(mesh: str, now: datetime = NO_TIME) -> tuple[Resource, ...]:
    """The default policies of a new mesh, named `<policy>-<mesh>`; a store that stamps its writes needs no `now`."""
    return tuple(
        Resource(
            key=ResourceKey(type_name, mesh, f"{name}-{mesh}"), spec=spec, creation_time=now, modification_time=now
        )
        for type_name, name, spec in _DEFAULTS
    )

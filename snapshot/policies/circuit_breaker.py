"""CircuitBreaker: bounds on what is under way, and ejection of failing endpoints (X §3.9)."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.outlier_detection_pb2 import OutlierDetection
from google.protobuf.wrappers_pb2 import UInt32Value

from snapshot.envoy.clusters import ClusterDraft
from snapshot.envoy.values import duration
from snapshot.model.policies import CircuitBreakerConf, Detectors, Thresholds
from snapshot.policies.bounds import Reader

_STDEV_SCALE: Final = 1000
_FACTOR: Final = "conf.detectors.standardDeviation.factor"
_LARGEST_FACTOR: Final = 4_000_000
_ON: Final = 100
_OFF: Final = 0


def apply_circuit_breaker(draft: ClusterDraft, conf: CircuitBreakerConf | None) -> list[str]:
    """Set thresholds and outlier detection. Any CircuitBreaker decides about every detector: absent ones are off."""
    if conf is None:
        return []
    reader = Reader()
    if conf.thresholds is not None:
        draft.cluster.circuit_breakers.CopyFrom(_thresholds(conf.thresholds))
    detectors = conf.detectors or Detectors()
    if not _possible(detectors):
        reader.reasons.append(
            f"{_FACTOR}: {_factor(detectors)} is no number from 0 to {_LARGEST_FACTOR}; it is switched off"
        )
        detectors = msgspec.structs.replace(detectors, standard_deviation=None)
    outliers = OutlierDetection(
        max_ejection_percent=_wrapped(conf.max_ejection_percent),
        split_external_local_origin_errors=conf.split_external_and_local_errors,
        **_detectors(detectors),
    )
    if (interval := reader.positive("conf.interval", conf.interval, "Envoy's default of 10s is used")) is not None:
        outliers.interval.CopyFrom(duration(interval))
    ejection = reader.positive("conf.baseEjectionTime", conf.base_ejection_time, "Envoy's default of 30s is used")
    if ejection is not None:
        outliers.base_ejection_time.CopyFrom(duration(ejection))
    draft.cluster.outlier_detection.CopyFrom(outliers)
    return reader.reasons


def _factor(conf: Detectors) -> float:
    return (conf.standard_deviation and conf.standard_deviation.factor) or 0.0


def _possible(conf: Detectors) -> bool:
    return 0 <= _factor(conf) <= _LARGEST_FACTOR


def _wrapped(value: int | None) -> Any:
    return None if value is None else UInt32Value(value=value)


def _thresholds(conf: Thresholds) -> Any:
    bounds = CircuitBreakers.Thresholds(
        max_connections=_wrapped(conf.max_connections),
        max_pending_requests=_wrapped(conf.max_pending_requests),
        max_requests=_wrapped(conf.max_requests),
        max_retries=_wrapped(conf.max_retries),
    )
    return CircuitBreakers(thresholds=[bounds])


def _detectors(conf: Detectors) -> dict[str, Any]:
    fields: dict[str, int | None] = {}
    for detector, counted, enforcing in (
        (conf.total_errors, "consecutive_5xx", "enforcing_consecutive_5xx"),
        (conf.gateway_errors, "consecutive_gateway_failure", "enforcing_consecutive_gateway_failure"),
        (conf.local_errors, "consecutive_local_origin_failure", "enforcing_consecutive_local_origin_failure"),
    ):
        fields[enforcing] = _OFF if detector is None else _ON
        fields[counted] = None if detector is None else detector.consecutive
    if (deviation := conf.standard_deviation) is None:
        fields["enforcing_success_rate"] = _OFF
    else:
        fields |= {
            "success_rate_request_volume": deviation.request_volume,
            "success_rate_minimum_hosts": deviation.minimum_hosts,
            "success_rate_stdev_factor": None if deviation.factor is None else int(deviation.factor * _STDEV_SCALE),
            "enforcing_success_rate": _ON,
            "enforcing_local_origin_success_rate": _ON,
        }
    if (failure := conf.failure) is None:
        fields["enforcing_failure_percentage"] = _OFF
    else:
        fields |= {
            "failure_percentage_request_volume": failure.request_volume,
            "failure_percentage_minimum_hosts": failure.minimum_hosts,
            "failure_percentage_threshold": failure.threshold,
            "enforcing_failure_percentage": _ON,
            "enforcing_failure_percentage_local_origin": _ON,
        }
    return {name: _wrapped(value) for name, value in fields.items()}

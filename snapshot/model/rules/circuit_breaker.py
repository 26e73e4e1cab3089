"""CircuitBreaker (R §2.7)."""

from __future__ import annotations

from snapshot.model.policies import CircuitBreaker, CircuitBreakerConf
from snapshot.model.rules.durations import is_empty
from snapshot.model.rules.tags import ONLY_SERVICE, WITH_SERVICE, check_connection
from snapshot.model.validation import Violation

_ALL_PERCENT = 100


def validate(spec: CircuitBreaker) -> list[Violation]:
    """All violations, in order."""
    return check_connection(spec, WITH_SERVICE, ONLY_SERVICE) + _check_conf(spec.conf)


def _check_conf(conf: CircuitBreakerConf | None) -> list[Violation]:
    if conf is None or (conf.detectors is None and conf.thresholds is None):
        return [Violation("conf", "must have at least one of the detector or threshold configured")]
    violations = [
        Violation(f"conf.{name}", "can't be empty")
        for name, part in (("detectors", conf.detectors), ("thresholds", conf.thresholds))
        if part is not None and is_empty(part)
    ]
    violations += _check_percent("conf.maxEjectionPercent", conf.max_ejection_percent)
    failure = conf.detectors.failure if conf.detectors else None
    return violations + _check_percent("conf.detectors.failure.threshold", failure.threshold if failure else None)


def _check_percent(path: str, percent: int | None) -> list[Violation]:
    if percent is None or percent <= _ALL_PERCENT:
        return []
    return [Violation(path, "has to be in [0.0 - 100.0] range")]

"""Metrics of what happens at every push: plain numbers, put into Prometheus' form only when they are asked for.

The library's own counters take a lock each and look their labels up; that cost a tenth of a push (docs/performance.md).
Counted in the loop only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = dict[str, str]


class Tally(Collector):
    """Counters of one name, one for each combination of values of `labels`; the zone comes on top.

    Shown without the suffix `_total`, by the name that Kuma's dashboards ask for.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str], zone: str, registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels, self._zone = name, text, labels, zone
        self.counts: Final[dict[tuple[str, ...], int]] = {}
        registry.register(self)

    def add(self, *key: str) -> None:
        """One more, with these values of the labels in their order."""
        counts = self.counts
        counts[key] = counts.get(key, 0) + 1

    def collect(self) -> list[Metric]:
        """The metric now."""
        family = Metric(self._name, self._text, "unknown")
        for key, count in self.counts.items():
            labels = dict(zip(self._labels, key, strict=True))
            family.add_sample(self._name, {**labels, "zone": self._zone}, float(count))
        return [family]


class Spread(Collector):
    """A histogram, with at most one label beside the zone; `label` "" is none."""

    def __init__(
        self, name: str, text: str, label: str, bounds: Sequence[float], zone: str, registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._label, self._zone = name, text, label, zone
        self._bounds: Final = tuple(map(float, bounds))
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        if not label:
            self._new("")
        registry.register(self)

    def observe(self, value: float, key: str = "") -> None:
        """One more, of this size; `key` is the value of the label."""
        counts = self._counts.get(key) or self._new(key)
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[key] += value

    def _new(self, key: str) -> list[int]:
        counts = self._counts[key] = [0] * (len(self._bounds) + 1)
        self._sums[key] = 0.0
        return counts

    def collect(self) -> list[Metric]:
        """The metric now: cumulative buckets, count and sum."""
        family = Metric(self._name, self._text, "histogram")
        for key, counts in self._counts.items():
            labels: Labels = ({self._label: key} if self._label else {}) | {"zone": self._zone}
            total = 0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                total += count
                edge = {"le": str(floatToGoString(bound))}  # type: ignore[no-untyped-call]  # typed only in part
                family.add_sample(f"{self._name}_bucket", edge | labels, float(total))
            family.add_sample(f"{self._name}_count", labels, float(total))
            family.add_sample(f"{self._name}_sum", labels, self._sums[key])
        return [family]

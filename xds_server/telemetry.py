"""Logs (structlog) and every Prometheus metric, Kuma's names first (R §9.6). One `Telemetry` is passed in.

Never here: what a component thinks about what it measures.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TextIO

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from xds_server.tallies import Spread, Tally

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_log = structlog.get_logger(__name__)
_LOOP_LAG_PERIOD_S: Final = 0.5
"""Short enough that a second of held loop cannot hide between two looks (XP-186)."""
_LOOP_HELD_S: Final = 0.5
"""A lag from here on is logged."""
_LOOP_LAGS_KEPT: Final = 120
"""A minute of lags: the metric shows the worst, so that scrapes every half minute miss none."""
_BUILD_BUCKETS_S: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
_SIZE_BUCKETS: Final = (100, 1_000, 10_000, 100_000, 1_000_000)
_REMEMBERED: Final = 1024
_QUANTILES: Final = (0.5, 0.9, 0.99)
_OFF: Final = logging.CRITICAL + 10
_LEVELS: Final = {"off": _OFF, "error": 40, "warning": 30, "info": 20, "debug": 10}


def set_up_logging(level: str = "info", form: str = "console", stream: TextIO | None = None) -> None:
    """Configure structlog, and the standard library's logs (uvicorn, alembic) through it.

    `level` is off, error, warning, info or debug; `form` console or json.
    """
    out = stream or sys.stderr
    shared: Sequence[structlog.typing.Processor] = (
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    )
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if form == "json"
        else [_escaped, structlog.dev.ConsoleRenderer(colors=out.isatty())]
    )
    structlog.configure(
        processors=[_dropped] if level == "off" else [*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(min(_LEVELS[level], logging.CRITICAL)),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # one line for each malformed request would let anybody fill the log
    logging.getLogger("uvicorn.error").setLevel(max(_LEVELS[level], logging.ERROR))
    root.setLevel(max(_LEVELS[level], logging.WARNING if level == "info" else 0))


def _dropped(_logger: object, _method: str, _event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    raise structlog.DropEvent


def _escaped(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Texts that clients chose must not steer the operator's terminal, nor look like lines of their own."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable() and key not in {"exception", "stack"}:
            event[key] = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return event


class _Generation(Collector):
    """A summary in milliseconds with the quantiles that Kuma shows, over the last `_REMEMBERED` generations."""

    def __init__(self, name: str, registry: CollectorRegistry, zone: str) -> None:
        self._name, self._zone = name, zone
        self._count, self._sum_ms = 0, 0.0
        self._last_ms: deque[float] = deque(maxlen=_REMEMBERED)
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """One generation took `seconds`."""
        self._count += 1
        self._sum_ms += seconds * 1000
        self._last_ms.append(seconds * 1000)

    def collect(self) -> list[Metric]:
        """The metric now."""
        family = Metric(self._name, "time to generate, in milliseconds", "summary")
        labels = {"zone": self._zone}
        ordered = sorted(self._last_ms)
        for quantile in _QUANTILES if ordered else ():
            value = ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]
            family.add_sample(self._name, {**labels, "quantile": str(quantile)}, value)
        family.add_sample(f"{self._name}_count", labels, self._count)
        family.add_sample(f"{self._name}_sum", labels, self._sum_ms)
        return [family]


class DiscoveryMetrics:
    """Streams and messages of one protocol: `xds` or `hds`. Type URLs must come from our own table, not from a peer."""

    def __init__(self, prefix: str, registry: CollectorRegistry, zone: str) -> None:
        self._streams = Gauge(f"{prefix}_streams_active", "open streams", ["zone"], registry=registry).labels(zone)
        self._sent = Tally(f"{prefix}_responses_sent", "responses sent", ["type_url"], zone, registry)
        self._received = Tally(
            f"{prefix}_requests_received", "ACKs and NACKs", ["type_url", "confirmation"], zone, registry
        )
        sizes = f"koguma_{prefix}_response_size_bytes"
        self._sizes = Spread(sizes, "size of responses", "type_url", _SIZE_BUCKETS, zone, registry)
        self._generation = _Generation(f"{prefix}_generation", registry, zone)
        self._errors = _counter(f"{prefix}_generation_errors", "failed generations", ["zone"], registry).labels(zone)

    def opened(self) -> None:
        """A stream began."""
        self._streams.inc()

    def closed(self) -> None:
        """A stream ended."""
        self._streams.dec()

    def sent(self, type_url: str, size: int) -> None:
        """A response of `size` bytes was written (XP-134)."""
        self._sent.add(type_url)
        self._sizes.observe(size, type_url)

    def received(self, type_url: str, *, ack: bool) -> None:
        """A response was confirmed or rejected."""
        self._received.add(type_url, "ACK" if ack else "NACK")

    def generated(self, seconds: float) -> None:
        """What a stream is to get was generated."""
        self._generation.observe(seconds)

    def generation_failed(self) -> None:
        """It could not be."""
        self._errors.inc()


class HttpMetrics:
    """Requests of one HTTP server: prefix `api_server`, `dp_server`."""

    def __init__(self, prefix: str, registry: CollectorRegistry, zone: str) -> None:
        self._service, self._zone = prefix.replace("_", "-"), zone
        labels = ["service", "handler", "method", "code", "zone"]
        self._duration = Histogram(
            f"{prefix}_http_request_duration_seconds", "duration of requests", labels, registry=registry
        )
        self._size = Histogram(
            f"{prefix}_http_response_size_bytes", "size of answers", labels, buckets=_SIZE_BUCKETS, registry=registry
        )
        self._inflight = Gauge(
            f"{prefix}_http_requests_inflight",
            "requests under way",
            ["service", "handler", "zone"],
            registry=registry,
        )

    def began(self, handler: str) -> None:
        """A request was taken; `handler` is a route, never a path with names in it."""
        self._inflight.labels(self._service, handler, self._zone).inc()

    def ended(self, handler: str, method: str, code: int, seconds: float, size: int) -> None:
        """It was answered."""
        self._inflight.labels(self._service, handler, self._zone).dec()
        labels = (self._service, handler, method, str(code), self._zone)
        self._duration.labels(*labels).observe(seconds)
        self._size.labels(*labels).observe(size)


class Telemetry:
    """All metrics of one control plane. `zone` is the configured zone name, else `Standalone`."""

    def __init__(self, zone: str = "") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library types it only in part
        self.registry = CollectorRegistry()
        self.zone = zone or "Standalone"
        registry, name = self.registry, self.zone
        self.xds = DiscoveryMetrics("xds", registry, name)
        self.hds = DiscoveryMetrics("hds", registry, name)
        self.api = HttpMetrics("api_server", registry, name)
        self.dp = HttpMetrics("dp_server", registry, name)
        self._store = Histogram("store", "store operations", ["operation", "resource_type", "zone"], registry=registry)
        self._store_of: dict[tuple[str, str], Histogram] = {}
        self._resources = Gauge("resources_count", "stored resources", ["resource_type", "zone"], registry=registry)
        self._info_labels = ("instance_id", "cluster_id", "product", "version", "build_date", "git_commit", "git_tag")
        self._info = Gauge("cp_info", "the control plane", [*self._info_labels, "zone"], registry=registry)
        self._leader = Gauge("leader", "whether this instance leads", ["zone"], registry=registry).labels(name)
        self._build = Histogram(
            "koguma_build_seconds",
            "from a batch of changes to published",
            ["zone"],
            buckets=_BUILD_BUCKETS_S,
            registry=registry,
        ).labels(name)
        self._push = Spread(
            "koguma_push_latency_seconds", "from stored to written to a stream", "", _BUILD_BUCKETS_S, name, registry
        )
        self._answer = Spread(
            "koguma_answer_seconds", "from a response to its ACK", "", _BUILD_BUCKETS_S, name, registry
        )
        self._stream_events = _counter(
            "koguma_stream_events",
            "streams and requests out of the ordinary, by what happened",
            ["event", "zone"],
            registry,
        )
        self._issues = Gauge("koguma_issues", "objects without full effect", ["zone"], registry=registry).labels(name)
        self._depth = Gauge("koguma_queue_depth", "waiting items", ["queue", "zone"], registry=registry)
        self._lag = Gauge(
            "koguma_event_loop_lag_seconds", "worst delay of the loop within a minute", ["zone"], registry=registry
        ).labels(name)
        self._plaintext = _counter("koguma_plaintext_on_tls", "plain text on a TLS port", ["port", "zone"], registry)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def store_operation(self, operation: str, resource_type: str, seconds: float) -> None:
        """The observer of a store (`store.contract.Observer`)."""
        found = self._store_of.get((operation, resource_type))
        if found is None:  # finding the labels takes longer than observing
            found = self._store_of[operation, resource_type] = self._store.labels(operation, resource_type, self.zone)
        found.observe(seconds)

    def resources(self, resource_type: str, count: int) -> None:
        """How many of a type are stored."""
        self._resources.labels(resource_type, self.zone).set(count)

    def info(self, instance_id: str, cluster_id: str, version: str) -> None:
        """Who this is."""
        self._info.labels(instance_id, cluster_id, "koguma", version, "", "", "", self.zone).set(1)

    def leader(self, *, leads: bool) -> None:
        """Whether this instance does the singleton work."""
        self._leader.set(leads)

    def built(self, seconds: float) -> None:
        """A batch of changes was built and published."""
        self._build.observe(seconds)

    def pushed(self, seconds: float) -> None:
        """A change reached a stream."""
        self._push.observe(seconds)

    def answered(self, seconds: float) -> None:
        """A response was taken by its client."""
        self._answer.observe(seconds)

    def stream_event(self, event: str, amount: int = 1) -> None:
        """One of `ads.ports.COUNTED` happened."""
        self._stream_events.labels(event, self.zone).inc(amount)

    def issues(self, count: int) -> None:
        """How many reasons there are why something stored has no effect."""
        self._issues.set(count)

    def watch_queue(self, queue: str, depth: Callable[[], int]) -> None:
        """Ask `depth` at each scrape how much waits in `queue`."""
        self._depth.labels(queue, self.zone).set_function(depth)

    def plaintext_on_tls(self, port: int) -> None:
        """Somebody spoke plain text to the TLS port `port`."""
        self._plaintext.labels(str(port), self.zone).inc()

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)

    async def watch_loop(self) -> None:
        """Measure how late the event loop runs, until cancelled. The one timer of an idle process, every 0.5 s."""
        lags_s: deque[float] = deque(maxlen=_LOOP_LAGS_KEPT)
        self._lag.set_function(lambda: max(lags_s, default=0.0))
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(_LOOP_LAG_PERIOD_S)
            lag_s = max(0.0, time.monotonic() - before_s - _LOOP_LAG_PERIOD_S)
            lags_s.append(lag_s)
            if lag_s >= _LOOP_HELD_S:
                _log.warning("the event loop was held up: everything waited meanwhile", seconds=round(lag_s, 2))


class _PlainCounter(Counter):
    """A counter shown without the suffix `_total`, by the name that Kuma's dashboards ask for."""

    def collect(self) -> list[Metric]:
        families = list(super().collect())
        for family in families:
            family.samples = [
                sample._replace(name=sample.name.removesuffix("_total"))
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            family.type = "unknown"
        return families


def _counter(name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> Counter:
    return _PlainCounter(name, text, labels, registry=registry)

"""What the streams tell: counters of the DataplaneInsight, metrics and the log, from one call each."""

from __future__ import annotations

from typing import Any, Final

import structlog

from snapshot.cache.type_url import PUSH_ORDER
from xds_server.ads.ports import Identity
from xds_server.insights import Insights, Subscription
from xds_server.telemetry import Telemetry

OTHER: Final = "other"
"""Stands in metrics for every type URL that is not ours: what a peer sends must not become a label."""


class StreamObserver:
    """Implements `ads.ports.Observer`."""

    def __init__(self, telemetry: Telemetry, insights: Insights) -> None:
        self._telemetry = telemetry
        self._insights = insights
        self._log: Any = structlog.get_logger("xds")

    def opened(self, identity: Identity) -> Record:
        """A stream was admitted."""
        self._telemetry.xds.opened()
        return Record(self._telemetry, self._insights.opened(identity.proxy, identity.version))

    def count(self, what: str, amount: int = 1) -> None:
        """One of `ads.ports.COUNTED` happened."""
        self._telemetry.stream_event(what, amount)

    def log(self, level: str, event: str, **fields: object) -> None:
        """Write a line."""
        getattr(self._log, level)(event, **fields)


class Record:
    """Implements `ads.ports.StreamRecord` for one stream."""

    __slots__ = ("_subscription", "_telemetry")

    def __init__(self, telemetry: Telemetry, subscription: Subscription) -> None:
        self._telemetry = telemetry
        self._subscription = subscription

    def sent(self, type_url: str, size: int) -> None:
        """A response of `size` bytes was written."""
        self._subscription.sent(type_url)
        self._telemetry.xds.sent(_label(type_url), size)

    def pushed(self, waited_s: float) -> None:
        """News were written, `waited_s` after the change behind them became known."""
        self._telemetry.pushed(waited_s)

    def received(self, type_url: str) -> None:
        """A request that answers nothing; Kuma counts only answers (R §9.2)."""

    def acked(self, type_url: str, waited_s: float) -> None:
        """A response was taken, `waited_s` after it was sent."""
        self._subscription.acknowledged(type_url)
        self._telemetry.xds.received(_label(type_url), ack=True)
        self._telemetry.answered(waited_s)

    def nacked(self, type_url: str, detail: str) -> None:
        """A response was refused."""
        del detail
        self._subscription.rejected(type_url)
        self._telemetry.xds.received(_label(type_url), ack=False)

    def closed(self) -> None:
        """The stream is gone."""
        self._subscription.closed()
        self._telemetry.xds.closed()


def _label(type_url: str) -> str:
    return type_url if type_url in PUSH_ORDER else OTHER

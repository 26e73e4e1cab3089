"""Durations of settings: Go's syntax in (the model's parser), Go's own print out."""

from __future__ import annotations

from snapshot.model.meta import NANOSECONDS
from snapshot.model.times import parse_duration


def parse_duration_s(text: str) -> float:
    """Seconds of `1h30m`, `-1.5s`, `0`. Raises ValueError with Go's text."""
    return parse_duration(text) / NANOSECONDS


def format_duration(seconds: float) -> str:
    """As Go prints a duration: `72h0m0s`, `1.5s`, `100ms`, `0s`."""
    nanoseconds = round(abs(seconds) * 1e9)
    sign = "-" if seconds < 0 else ""
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if 0 < nanoseconds < size * 1000:
            return f"{sign}{_decimal(nanoseconds, size)}{unit}"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 1_000_000_000)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return sign + (f"{hours}h{text}" if hours else text)


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = f"{fraction:0{len(str(unit)) - 1}d}".rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)

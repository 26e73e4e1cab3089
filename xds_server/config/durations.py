"""Durations in Go's syntax, as Kuma's settings and tokens write them."""

from __future__ import annotations

import re
from typing import Final

_UNIT_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_MAX_S: Final = (2**63 - 1) / 1e9


def parse_duration_s(text: str) -> float:
    """Seconds of `1h30m`, `-1.5s`, `0`. Raises ValueError with Go's text."""
    sign, body = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if body == "0":
        return 0.0
    total, at = 0.0, 0
    while (part := _PART.match(body, at)) is not None:
        total += float(part[1]) * _UNIT_S[part[2]]
        at = part.end()
    if at == len(body) and body and total <= _MAX_S:
        return sign * total
    raise ValueError(f"time: {_complaint(body, at, total)} {_quoted(text)}")


def _complaint(body: str, at: int, total: float) -> str:
    rest = body[at:]
    number = re.match(r"\d+\.?\d*|\.\d+", rest)
    if not body or number is None or total > _MAX_S:
        return "invalid duration"
    unit = re.match(r"[^\d.]+", rest[number.end() :])
    return "missing unit in duration" if unit is None else f"unknown unit {_quoted(unit[0])} in duration"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


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

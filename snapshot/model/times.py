"""Lengths and points of time as text: Go's durations in, seconds out, RFC 3339 both ways (R §0)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from snapshot.model.meta import NANOSECONDS, Duration

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # the micro sign
    "\u03bcs": 1_000,  # the Greek letter: Go knows both
    "ms": 1_000_000,
    "s": NANOSECONDS,
    "m": 60 * NANOSECONDS,
    "h": 3600 * NANOSECONDS,
}
_LARGEST = 2**63 - 1
_LONGEST_TEXT = 128
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([^0-9.]*)")
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def parse_duration(text: str) -> Duration:
    """The duration that Go's syntax writes as `text`, such as `1h30m` or `-1.5s`; every number but 0 needs a unit.

    Raises ValueError with a text that names the fault as Go does.
    """
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"time: a duration of {len(text)} characters is too long")
    negative = text.startswith("-")
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return Duration(0)
    total, position = 0, 0
    while (part := _PART.match(rest, position)) is not None:
        number, unit = part.groups()
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if (scale := _UNITS.get(unit)) is None:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        whole, _, fraction = number.partition(".")
        total += int(whole or "0") * scale + int(fraction or "0") * scale // 10 ** len(fraction)
        position = part.end()
    if position == 0 or position != len(rest) or total > _LARGEST + negative:
        raise ValueError(f'time: invalid duration "{text}"')
    return Duration(-total if negative else total)


def format_duration(duration: int) -> str:
    """Seconds with 0, 3, 6 or 9 fractional digits: `90.500s`. `duration` is in nanoseconds."""
    seconds, fraction = divmod(abs(duration), NANOSECONDS)
    return f"{'-' if duration < 0 else ''}{seconds}{_in_groups_of_three(f'{fraction:09d}')}s"


def parse_timestamp(text: str) -> datetime:
    """The UTC time that RFC 3339 writes as `text`; digits beyond microseconds are dropped. Raises ValueError."""
    if _RFC3339.fullmatch(text) is None:
        raise ValueError("not a time such as 2006-01-02T15:04:05Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("out of the range of years 1 to 9999") from error


def format_timestamp(time: datetime) -> str:
    """A timestamp of a spec: RFC 3339 in UTC with 0, 3 or 6 fractional digits."""
    return f"{_to_the_second(time)}{_in_groups_of_three(f'{time.microsecond:06d}')}Z"


def format_meta_time(time: datetime) -> str:
    """A time around a spec: RFC 3339 in UTC with as few fractional digits as needed."""
    fraction = f".{time.microsecond:06d}".rstrip("0") if time.microsecond else ""
    return f"{_to_the_second(time)}{fraction}Z"


def _to_the_second(time: datetime) -> str:
    return time.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()


def _in_groups_of_three(digits: str) -> str:
    while digits.endswith("000"):
        digits = digits[:-3]
    return f".{digits}" if digits else ""

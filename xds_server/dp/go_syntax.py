"""Two notations that users of Kuma type, both from Go: durations and `key=value` flags. Pure; shared with `kumactl`."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def duration_s(text: str) -> float:
    """Seconds of a duration such as `1h30m` or `100ms` (R §0: a unit is mandatory except for `0`).

    Raises ValueError naming the text.
    """
    unsigned = text.removeprefix("+")
    if unsigned == "0":
        return 0.0
    parts = _PART.findall(unsigned)
    if not parts or "".join(number + unit for number, unit in parts) != unsigned:
        raise ValueError(f'{text!r} is not a duration; write it as "90s", "100ms" or "1h30m"')
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def variables(flags: Iterable[str]) -> dict[str, str]:
    """The values of a repeatable `key=value` flag, as Kuma reads it.

    One `=`: all behind it is the value, commas included. Several: comma-separated pairs, quoted as in CSV.
    Raises ValueError for a text without `=`.
    """
    found: dict[str, str] = {}
    for flag in flags:
        pairs = [flag.strip('"')] if flag.count("=") == 1 else next(csv.reader([flag]), [])
        for pair in pairs or [flag]:
            key, separator, value = pair.partition("=")
            if not separator or not key:
                raise ValueError(f"{pair!r} must be formatted as key=value")
            found[key] = value
    return found

"""Bounds that Envoy sets and Kuma's validation does not: a value beyond them would make Envoy refuse the resource."""

from __future__ import annotations

from typing import Final

from snapshot.model.meta import NANOSECONDS, Duration

LONGEST: Final = Duration(9_223_372_036 * NANOSECONDS - 1)
"""The largest length of time that Envoy accepts, a little more than 292 years; Kuma's durations end 0.9 s later."""


class Reader:
    """Reads durations of one policy, and collects in `reasons` why some cannot be used."""

    __slots__ = ("reasons",)

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def positive(self, field: str, value: Duration | None, instead: str) -> Duration | None:
        """`value` where Envoy demands more than 0, or None; `instead` says what happens then."""
        return self._within(field, value, 1, "is not greater than 0s", instead)

    def not_negative(self, field: str, value: Duration | None, instead: str) -> Duration | None:
        """`value` where Envoy demands 0 or more, or None; `instead` says what happens then."""
        return self._within(field, value, 0, "is less than 0s", instead)

    def _within(self, field: str, value: Duration | None, least: int, fault: str, instead: str) -> Duration | None:
        if value is None or least <= value <= LONGEST:
            return value
        problem = fault if value < least else "is more than 292 years"
        self.reasons.append(f"{field}: {value / NANOSECONDS:g}s {problem}; {instead}")
        return None

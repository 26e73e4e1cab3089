from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshot.model.times import format_duration, format_meta_time, format_timestamp, parse_duration, parse_timestamp

S = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "nanoseconds", "printed"),
    [
        ("0", 0, "0s"),
        ("+0", 0, "0s"),
        ("0s", 0, "0s"),
        ("1h30m", 5400 * S, "5400s"),
        ("90s", 90 * S, "90s"),
        ("100ms", S // 10, "0.100s"),
        ("1.5s", 1_500_000_000, "1.500s"),
        ("90.500s", 90_500_000_000, "90.500s"),
        (".5s", S // 2, "0.500s"),
        ("1.s", S, "1s"),
        ("-1.5s", -1_500_000_000, "-1.500s"),
        ("+3m", 180 * S, "180s"),
        ("1us", 1000, "0.000001s"),
        ("1\u00b5s", 1000, "0.000001s"),
        ("1\u03bcs", 1000, "0.000001s"),
        ("1ns", 1, "0.000000001s"),
        ("1.0000000019s", S + 1, "1.000000001s"),
        ("1s1s1ms", 2 * S + S // 1000, "2.001s"),
        ("9223372036854775807ns", 2**63 - 1, "9223372036.854775807s"),
        ("-9223372036854775808ns", -(2**63), "-9223372036.854775808s"),
    ],
)
def test_durations(text, nanoseconds, printed):
    assert parse_duration(text) == nanoseconds
    assert format_duration(nanoseconds) == printed


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("1h5", 'time: missing unit in duration "1h5"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1 s", 'time: unknown unit " s" in duration "1 s"'),
        ("1S", 'time: unknown unit "S" in duration "1S"'),
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("s", 'time: invalid duration "s"'),
        (" 1s", 'time: invalid duration " 1s"'),
        ("1.2.3s", 'time: missing unit in duration "1.2.3s"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("9999999999999999999999h", 'time: invalid duration "9999999999999999999999h"'),
        ("1" * 5000 + "s", "time: a duration of 5001 characters is too long"),
        ("٣s", 'time: invalid duration "٣s"'),
    ],
)
def test_what_is_no_duration(text, fault):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole text is compared
        parse_duration(text)
    assert str(raised.value) == fault


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_printed_duration_reads_the_same(nanoseconds):
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("text", "time", "printed"),
    [
        ("2022-04-05T12:00:00Z", datetime(2022, 4, 5, 12, tzinfo=UTC), "2022-04-05T12:00:00Z"),
        ("2022-04-05t12:00:00z", datetime(2022, 4, 5, 12, tzinfo=UTC), "2022-04-05T12:00:00Z"),
        ("2022-04-05T12:00:00.5Z", datetime(2022, 4, 5, 12, 0, 0, 500_000, UTC), "2022-04-05T12:00:00.500Z"),
        ("2022-04-05T12:00:00.123456789Z", datetime(2022, 4, 5, 12, 0, 0, 123_456, UTC), "2022-04-05T12:00:00.123456Z"),
        ("2022-04-05T14:00:00+02:00", datetime(2022, 4, 5, 12, tzinfo=UTC), "2022-04-05T12:00:00Z"),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
    ],
)
def test_timestamps(text, time, printed):
    assert parse_timestamp(text) == time
    assert format_timestamp(time) == printed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2022",
        "20220405",
        "2022-04-05",
        "2022-04-05T12:00:00",
        "2022-13-05T12:00:00Z",
        "2022-04-05T12:00:60Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "2022-04-05T12:00:00Z\n",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_what_is_no_timestamp(text):
    with pytest.raises(ValueError, match=r"."):
        parse_timestamp(text)


def test_meta_times_have_as_few_digits_as_needed():
    assert format_meta_time(datetime(2022, 4, 5, 12, 0, 0, 120_000, UTC)) == "2022-04-05T12:00:00.12Z"
    assert format_meta_time(datetime(2022, 4, 5, 12, tzinfo=timezone(timedelta(hours=2)))) == "2022-04-05T10:00:00Z"

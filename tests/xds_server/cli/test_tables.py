"""Kuma's tables, cell by cell (R §8.3)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from xds_server.cli.tables import age, as_yaml, resource_table, table, tags

NOW = datetime(2022, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        ("2022-03-01T11:59:30Z", "30s"),
        ("2022-03-01T11:59:30.123456789Z", "30s"),
        ("2022-03-01T11:01:00Z", "59m"),
        ("2022-03-01T11:00:00Z", "1h"),
        ("2022-02-27T12:00:00Z", "2d"),
        ("2020-01-01T00:00:00Z", "2y"),
        ("2022-03-01T12:00:05Z", "0s"),
        ("0001-01-01T00:00:00Z", "never"),
        ("", "never"),
    ],
)
def test_age(time: str, text: str) -> None:
    assert age(time, NOW) == text


def test_columns_are_three_spaces_apart() -> None:
    assert table(("A", "LONG"), [("xyz", "1"), ("", "")]) == "A     LONG\nxyz   1\n"


def test_tags_of_all_inbounds_are_joined_and_sorted() -> None:
    inbound = [{"tags": {"b": "2", "a": "1"}}, {"tags": {"b": "1"}}]
    assert tags({"networking": {"inbound": inbound, "gateway": {"tags": {"c": "3"}}}}) == "a=1 b=1,2 c=3"


def test_a_global_type_has_no_mesh_column() -> None:
    assert resource_table("GlobalSecret", [{"name": "s"}], NOW, global_scope=True) == "NAME   AGE\ns      never"


def test_logging_shows_every_backend_and_metrics_the_enabled_one() -> None:
    backends = [{"name": "x", "type": "file"}, {"name": "y", "type": "tcp"}]
    mesh = {"name": "m", "logging": {"backends": backends}, "metrics": {"enabledBackend": "y", "backends": backends}}
    mesh |= {"routing": {"localityAwareLoadBalancing": True}, "modificationTime": "2022-03-01T12:00:00Z"}
    row = resource_table("Mesh", [mesh], NOW, global_scope=True).splitlines()[1].split("   ")
    assert [cell.strip() for cell in row if cell.strip()] == ["m", "off", "tcp/y", "file/x, tcp/y", "off", "on", "0s"]


def test_yaml_keeps_the_order_of_the_spec() -> None:
    text = as_yaml({"type": "T", "name": "n", "zeta": {"type": "x", "b": 1}, "alpha": 2})
    assert text == "name: n\ntype: T\nzeta:\n  type: x\n  b: 1\nalpha: 2"

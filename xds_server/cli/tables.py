"""How `kumactl` prints: Kuma's tables (R §8.3), YAML and JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

Row = Mapping[str, Any]
GAP = "   "
META = ("creationTime", "mesh", "modificationTime", "name", "type")
_UNITS = (
    (timedelta(minutes=1), timedelta(seconds=1), "s"),
    (timedelta(hours=1), timedelta(minutes=1), "m"),
    (timedelta(days=1), timedelta(hours=1), "h"),
    (timedelta(days=365), timedelta(days=1), "d"),
    (timedelta.max, timedelta(days=365), "y"),
)


def as_json(value: Any) -> str:
    """JSON, indented by two spaces, in the order of REST."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def as_yaml(value: Any) -> str:
    """YAML; of a resource, the meta fields first."""
    return yaml.safe_dump(_meta_first(value), sort_keys=False, allow_unicode=True, width=10_000).rstrip("\n")


def _meta_first(value: Any) -> Any:
    if isinstance(value, dict) and "items" in value and "total" in value:
        return {
            "items": [_meta_first(item) for item in value["items"]],
            "next": value.get("next"),
            "total": value["total"],
        }
    if isinstance(value, dict) and "type" in value:
        return {key: value[key] for key in META if key in value} | value
    return value


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to the widest cell, three spaces apart, nothing behind the last."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return "\n".join(
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (header, *rows)
    )


def age(time: str, now: datetime) -> str:
    """`Ns`, `Nm`, `Nh`, `Nd`, `Ny` since an RFC 3339 time, `never` for the zero time."""
    if not time or time.startswith("0001-01-01"):
        return "never"
    whole = time.rstrip("Z").partition(".")[0]
    since = max(now - datetime.fromisoformat(whole).replace(tzinfo=UTC), timedelta(0))
    unit, letter = next((unit, letter) for limit, unit, letter in _UNITS if since < limit)
    return f"{since // unit}{letter}"


def tags(resource: Row) -> str:
    """All tags of a Dataplane or ExternalService, `k=v1,v2 k2=v`, sorted."""
    networking = resource.get("networking") or {}
    holders = [*(networking.get("inbound") or ()), networking.get("gateway") or {}, resource]
    found: dict[str, set[str]] = {}
    for holder in holders:
        for key, value in (holder.get("tags") or {}).items():
            found.setdefault(key, set()).add(value)
    return " ".join(f"{key}={','.join(sorted(found[key]))}" for key in sorted(found))


def _address(resource: Row) -> str:
    return str((resource.get("networking") or {}).get("address", ""))


def _enabled(section: str) -> Callable[[Row], str]:
    def cell(mesh: Row) -> str:
        found = mesh.get(section) or {}
        name = found.get("enabledBackend")
        kinds = [
            f"{one.get('type')}/{one.get('name')}" for one in found.get("backends") or () if one.get("name") == name
        ]
        return kinds[0] if kinds else "off"

    return cell


def _all_backends(section: str) -> Callable[[Row], str]:
    def cell(mesh: Row) -> str:
        backends = (mesh.get(section) or {}).get("backends") or ()
        return ", ".join(f"{one.get('type')}/{one.get('name')}" for one in backends) or "off"

    return cell


def _locality(mesh: Row) -> str:
    return "on" if (mesh.get("routing") or {}).get("localityAwareLoadBalancing") else "off"


def _text(key: str) -> Callable[[Row], str]:
    return lambda resource: str(resource.get(key, ""))


_PROXY = (("MESH", _text("mesh")), ("NAME", _text("name")), ("TAGS", tags), ("ADDRESS", _address))
_COLUMNS: Mapping[str, Sequence[tuple[str, Callable[[Row], str]]]] = {
    "Dataplane": _PROXY,
    "ExternalService": _PROXY,
    "Mesh": (
        ("NAME", _text("name")),
        ("mTLS", _enabled("mtls")),
        ("METRICS", _enabled("metrics")),
        ("LOGGING", _all_backends("logging")),
        ("TRACING", _all_backends("tracing")),
        ("LOCALITY", _locality),
    ),
}


def resource_table(type_name: str, resources: Sequence[Row], now: datetime, *, global_scope: bool) -> str:
    """The table of `kumactl get` for one type."""
    plain = (("NAME", _text("name")),) if global_scope else _PROXY[:2]
    columns = _COLUMNS.get(type_name, plain)
    rows = [
        [*(cell(resource) for _, cell in columns), age(resource.get("modificationTime", ""), now)]
        for resource in resources
    ]
    return table([*(title for title, _ in columns), "AGE"], rows)

"""Which Dataplane this proxy is: rendered from a template, or named because the control plane stores it (R §8.1)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xds_server.dp.documents import DocumentError, name_violations, parse, render, unset_variables
from xds_server.dp.errors import StartError
from xds_server.dp.options import Options

ZERO_TIME = "0001-01-01T00:00:00Z"
BOTH = (
    "--name and --mesh cannot be specified when a dataplane definition is provided, "
    "mesh and name will be read from the dataplane definition"
)


@dataclass(frozen=True)
class Definition:
    """Identity of the proxy, and its Dataplane where the user gave one (with its meta fields, otherwise empty).

    `notices` are to be said once.
    """

    mesh: str
    name: str
    document: Mapping[str, Any]
    notices: tuple[str, ...] = ()

    def resource_json(self) -> str:
        """The Dataplane as the control plane takes it: JSON text with zero times, or "" if it is stored there."""
        if not self.document:
            return ""
        meta = {"type": "Dataplane", "mesh": self.mesh, "name": self.name}
        times = {"creationTime": ZERO_TIME, "modificationTime": ZERO_TIME}
        return json.dumps(meta | times | {k: v for k, v in self.document.items() if k not in meta | times})

    def admin_port(self) -> int:
        """`networking.admin.port`, or 0."""
        port = _mapping(_mapping(self.document.get("networking")).get("admin")).get("port", 0)
        return int(port) if str(port).isdecimal() else 0

    def address(self) -> str:
        """`networking.address`, or ""."""
        return str(_mapping(self.document.get("networking")).get("address", ""))

    def listening_ports(self) -> frozenset[int]:
        """Ports that Envoy will listen on, or that the services behind it may use."""
        networking = _mapping(self.document.get("networking"))
        rows = [row for side in ("inbound", "outbound") for row in networking.get(side) or () if isinstance(row, dict)]
        ports = [row.get(key) for row in rows for key in ("port", "servicePort", "service_port")]
        return frozenset(int(str(port)) for port in ports if str(port).isdecimal())


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def definition(options: Options) -> Definition:
    """The proxy that the options name. Reads the file or stdin. Raises StartError with Kuma's texts."""
    source, template = _template(options)
    if not template:
        for field, value in (("Name", options.name), ("Mesh", options.mesh)):
            if not value:
                raise StartError(f".{field} must be non-empty; give --dataplane-file, or both --name and --mesh")
        if wrong := list(name_violations({"name": options.name, "mesh": options.mesh}, mesh_scoped=True)):
            raise StartError("; ".join(f"--{violation}" for violation in wrong))
        return Definition(options.mesh, options.name, {})
    if options.name or options.mesh:
        raise StartError(BOTH)
    try:
        unset = unset_variables(template, options.variables)
        text = render(template, options.variables)
    except DocumentError as error:
        raise StartError(f"{source}: {error}") from error
    missing = f"{source}: {_missing(unset)}" if unset else ""
    try:
        document = _dataplane(text)
    except DocumentError as error:
        raise StartError(f"{missing} (as it is: {error})" if missing else f"{source}: {error}") from error
    return Definition(document["mesh"], document["name"], document, (f"WARNING: {missing}",) if missing else ())


def _dataplane(text: str) -> Mapping[str, Any]:
    documents = parse(text)
    if len(documents) != 1:
        raise DocumentError(f"holds {len(documents)} documents; a proxy is exactly one Dataplane")
    document = documents[0]
    kind = document.get("type")
    if kind != "Dataplane":
        raise DocumentError(f'invalid proxy resource type "{kind or ""}", expected Dataplane')
    if wrong := list(name_violations(document, mesh_scoped=True)):
        raise DocumentError("; ".join(wrong))
    return document


def _missing(unset: Sequence[str]) -> str:
    names = ", ".join(f"{{{{ {name} }}}}" for name in unset)
    ways = " ".join(f"--dataplane-var {name}=VALUE" for name in unset)
    return f"no value was given for {names}, which becomes empty; give {ways}"


def _template(options: Options) -> tuple[str, str]:
    path = options.dataplane_file
    if not path:
        return "--dataplane", options.dataplane
    source = "--dataplane-file -" if path == "-" else f"--dataplane-file {path}"
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StartError(f"{source} cannot be read: {reason}") from error
    if not text.strip():
        raise StartError(f"{source} is empty; it must hold one Dataplane")
    return source, text

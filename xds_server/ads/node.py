"""Reads who a client says it is from `node`, once for each stream; every wrong byte is an INVALID_ARGUMENT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.json_format import Error as JsonError
from google.protobuf.json_format import MessageToDict

from snapshot.model.codec import DecodeError, decode_spec
from snapshot.model.dataplane import Dataplane
from snapshot.model.meta import ProxyKey, ResourceKey
from snapshot.topology.proxy import KNOWN_EXTENSIONS, NodeInfo
from xds_server.ads.ports import Carried, Identity, Refused

META_FIELDS: Final = ("type", "mesh", "name", "creationTime", "modificationTime")
MAX_PORT: Final = 65_535
MAX_ID_BYTES: Final = 1024


def invalid(text: str) -> Refused:
    """The client broke a rule; the text names it."""
    return Refused("INVALID_ARGUMENT", text)


def parse_node_id(node_id: str) -> ProxyKey:
    """Split `<mesh>.<name>` at the first dot (X §9.3). Raises Refused."""
    if not node_id:
        raise _bad_id("Envoy ID must not be nil")
    if len(node_id) > MAX_ID_BYTES:
        raise _bad_id(f"the id has {len(node_id)} characters, at most {MAX_ID_BYTES} are allowed")
    mesh, dot, name = node_id.partition(".")
    if not dot:
        raise _bad_id("the name should be provided after the dot")
    if not name:
        raise _bad_id("name must not be empty")
    return ProxyKey(mesh, name)


def read_identity(message: Any) -> Identity:
    """Identity of the client that sent this first request (any message with `node`). Raises Refused."""
    if not message.HasField("node"):
        raise _bad_id("the first request of a stream must carry `node`")
    node = message.node
    proxy = parse_node_id(node.id)
    metadata = node.metadata.fields
    kind = _string(metadata, "dataplane.proxyType") or "dataplane"
    if kind != "dataplane":
        raise invalid(f'unsupported proxy type "{kind}"')
    if not proxy.mesh:
        raise _bad_id("mesh must not be empty")
    version = _struct(metadata, "version")
    return Identity(
        proxy=proxy,
        node=NodeInfo(
            admin_port=_port(metadata, "dataplane.admin.port"),
            extensions=frozenset(extension.name for extension in node.extensions).intersection(KNOWN_EXTENSIONS),
            kuma_dp_version=_kuma_dp_version(version),
        ),
        carried=_carried(_string(metadata, "dataplane.resource")),
        run_id=_string(metadata, "koguma.runId"),
        version=version,
        dynamic={key: str(value) for key, value in (_struct(metadata, "dynamicMetadata") or {}).items()},
        user_agent=node.user_agent_name,
        features=frozenset(node.client_features),
    )


def _bad_id(reason: str) -> Refused:
    return invalid(f"request must have a valid Proxy ID: {reason}")


def _string(metadata: Mapping[str, Any], key: str) -> str:
    if key not in metadata:
        return ""
    value = metadata[key]
    if value.WhichOneof("kind") != "string_value":
        raise invalid(f"node metadata {key}: must be a string")
    return str(value.string_value)


def _struct(metadata: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    if key not in metadata:
        return None
    value = metadata[key]
    if value.WhichOneof("kind") != "struct_value":
        raise invalid(f"node metadata {key}: must be an object")
    try:
        return dict(MessageToDict(value.struct_value))
    except (ValueError, JsonError) as error:  # NaN and Infinity
        raise invalid(f"node metadata {key}: {error}") from error


def _port(metadata: Mapping[str, Any], key: str) -> int:
    """A port as a decimal string (Kuma) or a number; 0 where there is none."""
    if key not in metadata:
        return 0
    value = metadata[key]
    kind = value.WhichOneof("kind")
    text = value.string_value if kind == "string_value" else repr(value.number_value).removesuffix(".0")
    if kind not in {"string_value", "number_value"} or not (text.isascii() and text.isdigit()):
        raise invalid(f'node metadata {key}: must be a decimal number, such as "9901"')
    if len(text) > len(str(MAX_PORT)) or int(text) > MAX_PORT:
        raise invalid(f"node metadata {key}: must be at most {MAX_PORT}")
    return int(text)


def _kuma_dp_version(version: Mapping[str, Any] | None) -> str:
    kuma_dp = (version or {}).get("kumaDp")
    return str(kuma_dp.get("version", "")) if isinstance(kuma_dp, dict) else ""


def _carried(text: str) -> Carried | None:
    """The Dataplane inside `dataplane.resource`: JSON in the form of the REST API."""
    if not text:
        return None
    where = "node metadata dataplane.resource"
    try:
        document = json.loads(text)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()  # half of a surrogate pair is no text anybody could store
    except (ValueError, RecursionError) as error:
        raise invalid(f"{where}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"{where}: must be a JSON object with the fields type, mesh, name and networking")
    meta = {field: document.pop(field, "") for field in META_FIELDS}
    for field in ("type", "mesh", "name"):
        if not isinstance(meta[field], str) or not meta[field]:
            raise invalid(f"{where}: {field}: must be a string that is not empty")
    if meta["type"] != "Dataplane":
        raise invalid(f"{where}: type: must be Dataplane, got {meta['type'][:100]!r}")
    try:
        decoded = decode_spec("Dataplane", document)
    except DecodeError as error:
        raise invalid(f"{where}: {error}") from error
    spec = decoded.spec
    if not isinstance(spec, Dataplane) or spec.networking is None:
        raise invalid(f"{where}: networking: has to be defined")
    key = ResourceKey("Dataplane", meta["mesh"], meta["name"])
    return Carried(key, spec, tuple(str(warning) for warning in decoded.warnings))

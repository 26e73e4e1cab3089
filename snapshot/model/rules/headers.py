"""Headers to add and to remove, as Envoy takes them: one that it refuses would take its listener with it.

Kuma 1.5 passes them on: names with whatever characters, values as format strings of Envoy.
"""

from __future__ import annotations

import re
from typing import Final

from snapshot.model.rules.paths import brief, quoted
from snapshot.model.traffic_route import ModifyHeaders
from snapshot.model.validation import Violation

MOST_ADDED: Final = 1000
MOST_BYTES: Final = 16384

_EMPTY: Final = "cannot be empty"
_PROTECTED: Final = "host header and HTTP/2 pseudo-headers are not allowed to be modified"
_LINE_BREAK: Final = "must not contain line breaks or the character NUL"
_TOO_LONG: Final = f"must not be longer than {MOST_BYTES} bytes"
_TOO_MANY: Final = f"must not have more than {MOST_ADDED} elements"
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE: Final = re.compile(r"%(?P<name>[A-Z0-9_]+)(\((?P<parameter>[^)]*)\))?(?P<length>:[0-9]{1,9})?%")
_HEADERS: Final = re.compile(r":?[A-Za-z0-9!#$&'*+.^_|~-]+(\?:?[A-Za-z0-9!#$&'*+.^_|~-]+)?")
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]+")
_ANYTHING: Final = re.compile(r"[A-Za-z0-9_.%:/, -]*")
_METADATA: Final = re.compile(r'[A-Za-z0-9_./-]+(:[A-Za-z0-9_./-]+)*|\["[A-Za-z0-9_./-]+"(, ?"[A-Za-z0-9_./-]+")*\]')
"""A path of keys, in the form of today or as the list in JSON of before."""

VARIABLES: Final = frozenset(
    f"{prefix}{name}"
    for prefix, names in {
        "": "BYTES_RECEIVED BYTES_SENT CONNECTION_ID CONNECTION_TERMINATION_DETAILS DURATION FILTER_CHAIN_NAME"
        " GRPC_STATUS HOSTNAME PROTOCOL REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_TX_DURATION RESPONSE_CODE"
        " RESPONSE_CODE_DETAILS RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_TX_DURATION ROUTE_NAME"
        " START_TIME STREAM_ID VIRTUAL_CLUSTER_NAME",
        "DOWNSTREAM_": "DIRECT_REMOTE_ADDRESS DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DIRECT_REMOTE_PORT"
        " HEADER_BYTES_RECEIVED HEADER_BYTES_SENT LOCAL_ADDRESS LOCAL_ADDRESS_WITHOUT_PORT LOCAL_PORT LOCAL_SUBJECT"
        " LOCAL_URI_SAN PEER_CERT PEER_CERT_V_END PEER_CERT_V_START"
        " PEER_FINGERPRINT_1 PEER_FINGERPRINT_256 PEER_ISSUER PEER_SERIAL"
        " PEER_SUBJECT PEER_URI_SAN REMOTE_ADDRESS REMOTE_ADDRESS_WITHOUT_PORT REMOTE_PORT TLS_CIPHER TLS_SESSION_ID"
        " TLS_VERSION WIRE_BYTES_RECEIVED WIRE_BYTES_SENT",
        "UPSTREAM_": "CLUSTER HEADER_BYTES_RECEIVED HEADER_BYTES_SENT HOST LOCAL_ADDRESS LOCAL_ADDRESS_WITHOUT_PORT"
        " LOCAL_PORT PROTOCOL REMOTE_ADDRESS REMOTE_ADDRESS_WITHOUT_PORT REMOTE_PORT REQUEST_ATTEMPT_COUNT"
        " TRANSPORT_FAILURE_REASON WIRE_BYTES_RECEIVED WIRE_BYTES_SENT",
    }.items()
    for name in names.split()
)
"""The variables that stand alone in every Envoy from 1.30 on."""

PARAMETERS: Final = {
    "REQ": _HEADERS,
    "RESP": _HEADERS,
    "TRAILER": _HEADERS,
    "DYNAMIC_METADATA": _METADATA,
    "UPSTREAM_METADATA": _METADATA,
    "CLUSTER_METADATA": _METADATA,
    "PER_REQUEST_STATE": _WORD,
    "FILTER_STATE": re.compile(r"[A-Za-z0-9_.-]+(:(PLAIN|TYPED))?"),
    "ENVIRONMENT": _WORD,
    "START_TIME": _ANYTHING,
}
"""The variables that take a parameter, and what it may be."""

_OF_LENGTH: Final = frozenset({"REQ", "RESP", "TRAILER", "DYNAMIC_METADATA", "FILTER_STATE", "ENVIRONMENT"})


def check_headers(path: str, modify: ModifyHeaders | None) -> list[Violation]:
    """Violations of the headers that are added or removed in one direction."""
    if modify is None:
        return []
    violations = [Violation(f"{path}.add", _TOO_MANY)] if len(modify.add) > MOST_ADDED else []
    for index, header in enumerate(modify.add):
        violations += _check_name(f"{path}.add[{index}].name", header.name)
        violations += _check_value(f"{path}.add[{index}].value", header.value)
    for index, removed in enumerate(modify.remove):
        violations += _check_name(f"{path}.remove[{index}].name", removed.name)
    return violations


def check_line_breaks(path: str, value: str) -> list[Violation]:
    """What ends up in a header must stay within its line."""
    return [Violation(path, _LINE_BREAK)] if any(c in value for c in "\0\r\n") else []


def _check_name(path: str, name: str) -> list[Violation]:
    if not name:
        return [Violation(path, _EMPTY)]
    if name.startswith(":") or name.lower() == "host":
        return [Violation(path, _PROTECTED)]
    if breaks := check_line_breaks(path, name):
        return breaks
    if _NAME.fullmatch(name) is None:
        return [Violation(path, f"{quoted(name)} is no name of a header: it has other characters than HTTP allows")]
    return _check_length(path, name)


def _check_value(path: str, value: str) -> list[Violation]:
    if not value:
        return [Violation(path, _EMPTY)]
    return check_line_breaks(path, value) or _check_length(path, value) or _check_variables(path, value)


def _check_length(path: str, text: str) -> list[Violation]:
    return [Violation(path, _TOO_LONG)] if len(text.encode()) > MOST_BYTES else []


def _check_variables(path: str, value: str) -> list[Violation]:
    """Each `%` of a value begins a variable, such as `%REQ(x-id)%`, or is written twice."""
    at = value.find("%")
    while at >= 0:
        if value.startswith("%%", at):
            end = at + 2
        elif (found := _VARIABLE.match(value, at)) is not None and _is_known(found):
            end = found.end()
        else:
            wrong = found[0] if found else value[at : at + 1]
            reason = f'"{brief(wrong)}" at position {at} is no variable that a header can have'
            return [Violation(path, f'{quoted(value)}: {reason}; for a percent sign write "%%"')]
        at = value.find("%", end)
    return []


def _is_known(found: re.Match[str]) -> bool:
    name, parameter = found["name"], found["parameter"]
    if found["length"] and name not in _OF_LENGTH:
        return False
    if parameter is None:
        return name in VARIABLES
    return name in PARAMETERS and PARAMETERS[name].fullmatch(parameter) is not None

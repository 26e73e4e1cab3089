"""The admin listener: readiness for anybody, Envoy's admin interface for the control plane (X §8.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from snapshot.envoy.chains import http_chain
from snapshot.envoy.clusters import static_cluster
from snapshot.envoy.listeners import INBOUND, ChainDraft, listener
from snapshot.envoy.names import stat_name
from snapshot.envoy.routes import prefix, route, route_configuration
from snapshot.envoy.tls import server_tls
from snapshot.generators.draft import PartDraft

ADMIN: Final = "kuma:envoy:admin"
ADMIN_ADDRESS: Final = "127.0.0.1"
CLIENT_VALIDATION: Final = "cp_validation_ctx"
"""The secret in the bootstrap by which Envoy recognises its control plane."""

_OPEN_PATHS: Final = ("/ready",)
_CONTROL_PLANE_PATHS: Final = ("/", "/config_dump")
_FIRST_WITH_TLS: Final = (1, 4, 0)
_SEMVER: Final = re.compile(r"v?([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})(-[^+]+)?(\+.*)?")


def has_client_validation(kuma_dp_version: str) -> bool:
    """Whether the bootstrap of this kuma-dp holds the secret `cp_validation_ctx`.

    That is 1.4.0 and later in the order of semantic versions (so 1.4.0-rc1 is not) and development builds, `dev…`.
    """
    if kuma_dp_version.startswith("dev"):
        return True
    if (parsed := _SEMVER.fullmatch(kuma_dp_version)) is None:
        return False
    numbers = tuple(int(part) for part in parsed.groups()[:3])
    return numbers > _FIRST_WITH_TLS or (numbers == _FIRST_WITH_TLS and parsed[4] is None)


def admin_part(address: str, port: int, kuma_dp_version: str, cert_pem: bytes, key_pem: bytes) -> PartDraft:
    """Cluster of Envoy's admin interface at `port`, and its listener on the proxy's IP `address`.

    The PEM pair is what it presents to the control plane; without one, that chain is left out. On 127.0.0.1 the
    interface itself already has that address, so there is no listener.
    """
    made = PartDraft(address, port, clusters=[static_cluster(ADMIN, ADMIN_ADDRESS, port)])
    if address == ADMIN_ADDRESS:
        return made
    made.listener = listener(ADMIN, address, port, INBOUND, _paths(_OPEN_PATHS))
    made.listener.inspect_tls()
    if cert_pem and key_pem and has_client_validation(kuma_dp_version):
        control_plane = _paths(_CONTROL_PLANE_PATHS)
        control_plane.transport_protocol = "tls"
        control_plane.transport_socket = server_tls(cert_pem, key_pem, clients_validated_by=CLIENT_VALIDATION)
        made.listener.chains.append(control_plane)
    return made


def _paths(paths: Sequence[str]) -> ChainDraft:
    return http_chain(stat_name(ADMIN), route_configuration("", ADMIN, [_same_path(path) for path in paths]))


def _same_path(path: str) -> Any:
    made = route(prefix(path), [(ADMIN, 1)])
    made.route.prefix_rewrite = path
    return made

"""Virtual probes: a port for health checks of the applications behind this proxy (X §8.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from snapshot.envoy.chains import http_chain
from snapshot.envoy.listeners import INBOUND, listener
from snapshot.envoy.routes import exact_path, method_is, redirect, route, route_configuration
from snapshot.generators.draft import PartDraft
from snapshot.generators.routes import substitute
from snapshot.model.dataplane import ProbeEndpoint, Probes
from snapshot.model.traffic_route import RegexSubstitution

LISTENER: Final = "probe:listener"


def probes_part(probes: Probes, address: str, local_clusters: Mapping[int, str]) -> PartDraft:
    """The probe listener on the proxy's IP `address`. `local_clusters` maps workload ports to their clusters.

    A probe of a port that no inbound has is redirected there.
    """
    routes = [_endpoint(endpoint, local_clusters.get(endpoint.inbound_port)) for endpoint in probes.endpoints]
    chain = http_chain("probe_listener", route_configuration("", "probe", routes))
    return PartDraft(address, probes.port, listener(LISTENER, address, probes.port, INBOUND, chain))


def _endpoint(endpoint: ProbeEndpoint, cluster: str | None) -> Any:
    match = exact_path(endpoint.path)
    match.headers.append(method_is("GET"))
    if cluster is None:
        return redirect(match, endpoint.inbound_port, endpoint.inbound_path)
    made = route(match, [(cluster, 1)])
    literally = endpoint.inbound_path.replace("\\", "\\\\")
    substitute(made.route.regex_rewrite, RegexSubstitution(pattern=".*", substitution=literally))
    return made

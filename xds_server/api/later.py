"""Paths of Kuma for types that this version does not have: an answer that says so, instead of an unknown path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from snapshot.model.kinds import UnknownType
from xds_server.api.errors import ApiError
from xds_server.api.resources import PROCESS
from xds_server.api.routing import Call, Handler

MESH_SCOPED: Final[Mapping[str, str]] = {
    "external-services": "ExternalService",
    "fault-injections": "FaultInjection",
    "health-checks": "HealthCheck",
    "proxytemplates": "ProxyTemplate",
    "rate-limits": "RateLimit",
    "traffic-logs": "TrafficLog",
    "traffic-traces": "TrafficTrace",
    "virtual-outbounds": "VirtualOutbound",
    "meshgateways": "MeshGateway",
    "meshgatewayroutes": "MeshGatewayRoute",
    "service-insights": "ServiceInsight",
}
GLOBAL: Final[Mapping[str, str]] = {
    "mesh-insights": "MeshInsight",
    "zone-ingresses": "ZoneIngress",
    "zone-ingress-insights": "ZoneIngressInsight",
    "zoneegresses": "ZoneEgress",
    "zoneegressinsights": "ZoneEgressInsight",
    "zones": "Zone",
    "zone-insights": "ZoneInsight",
}
"""REST path → type (R §1.1)."""


def refusals(type_name: str) -> dict[str, Handler]:
    """Handlers that name the type and list those that exist."""

    def refusing(status: int) -> Handler:
        async def answer(call: Call) -> Response:
            del call
            error = UnknownType(type_name)
            raise ApiError(status, f"{type_name} is not supported by this version", [(error.field, error.message)])

        return Handler(PROCESS, answer)

    return {"GET": refusing(404), "PUT": refusing(400), "DELETE": refusing(404)}

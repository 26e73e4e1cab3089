"""`/`, `/versions`, `/config`: who answers, and how it is set (R §4.4)."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from xds_server.api.parts import ApiParts
from xds_server.api.responses import compact_json, json_response
from xds_server.api.routing import Call, Handler
from xds_server.config import to_rest

KUMA_VERSION: Final = "1.5.1"
"""What clients of Kuma compare with their own version."""

_ENVOY_OF: Final = {
    **dict.fromkeys(("1.0.0", "1.0.1"), "1.16.0"),
    **dict.fromkeys(("1.0.2", "1.0.3", "1.0.4"), "1.16.1"),
    **dict.fromkeys(("1.0.5", "1.0.6", "1.0.7", "1.0.8"), "1.16.2"),
    "~1.1.0": "~1.17.0",
    "~1.2.0": "~1.18.0",
    "~1.3.0": "~1.18.4",
    "~1.4.0": "~1.18.4",
    "~1.5.0": ">= 1.21.1, < 1.41.0",
    "~1.5.1-anyprerelease": ">= 1.21.1, < 1.41.0",
}


class ServerInfo:
    """The handlers."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._config = to_rest(parts.config)
        self.index = Handler("Could not process a resource", self._index)
        self.versions = Handler("Could not process a resource", self._versions)
        self.config = Handler("Could not process a resource", self._shown)

    async def _index(self, call: Call) -> Response:
        del call
        identity = self._parts.identity
        return json_response(
            {
                "hostname": identity.hostname,
                "tagline": "Kuma",
                "version": KUMA_VERSION,
                "instanceId": identity.instance_id,
                "clusterId": identity.cluster_id,
                "product": "koguma",
                "productVersion": identity.build,
            }
        )

    async def _versions(self, call: Call) -> Response:
        del call
        return json_response({"kumaDp": {kuma_dp: {"envoy": envoy} for kuma_dp, envoy in _ENVOY_OF.items()}})

    async def _shown(self, call: Call) -> Response:
        del call
        return compact_json(self._config)

"""`GET /issues`: what is stored and has no effect, or only in part, with the reason. Ours; Kuma has no such route."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from snapshot.engine.world import Issue
from xds_server.api.parts import ApiParts
from xds_server.api.responses import json_response
from xds_server.api.routing import Call, Handler

FILTERS: Final = ("type", "mesh", "name")


class Issues:
    """The handler."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self.list = Handler("Could not list resources", self._list)

    async def _list(self, call: Call) -> Response:
        wanted = {key: value for key in FILTERS if (value := call.request.query_params.get(key)) is not None}
        items = [item for issue in self._parts.issues() if wanted.items() <= (item := shown(issue)).items()]
        return json_response({"total": len(items), "items": items})


def shown(issue: Issue) -> dict[str, Any]:
    """`{type, mesh, name, reason}` of the object at fault; `proxy` where only the build of that proxy is concerned."""
    item: dict[str, Any] = {"type": issue.object.type, "mesh": issue.object.mesh, "name": issue.object.name}
    item["reason"] = issue.reason
    return item if issue.proxy is None else item | {"proxy": issue.proxy.name}

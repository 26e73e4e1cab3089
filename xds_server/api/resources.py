"""Get, list, put and delete of every type in the registry (R §4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from snapshot.model.codec import decode_spec
from snapshot.model.kinds import Scope
from snapshot.model.meta import ResourceKey
from snapshot.model.rules.meta import validate_meta
from snapshot.model.validation import ValidationError, Violation
from snapshot.registry import TypeDescriptor
from xds_server.api.access import of_type, require
from xds_server.api.body import read_document
from xds_server.api.errors import INVALID, ApiError, PlainError
from xds_server.api.pages import page_response, window
from xds_server.api.parts import ApiParts
from xds_server.api.responses import json_response, printed, written
from xds_server.api.routing import Call, Handler
from xds_server.api.writes import Wanted, Writes, mesh_missing
from xds_server.store.contract import AlreadyExists, NotFound

PROCESS: Final = "Could not process a resource"
_READ_ONLY: Final = (
    "On Kubernetes you cannot change the state of Kuma resources with 'kumactl apply' or via the HTTP API. As a best "
    "practice, you should always be using 'kubectl apply' instead. You can still use 'kumactl' or the HTTP API to make "
    "read-only operations. On Universal this limitation does not apply.\n"
)
_TRIES: Final = 5


class Resources:
    """The handlers of one type."""

    def __init__(self, one: TypeDescriptor, parts: ApiParts) -> None:
        self._type = one
        self._parts = parts
        self._writes = Writes(one, parts)
        self.get = Handler("Could not retrieve a resource", self._get)
        self.list = Handler("Could not retrieve resources", self._list)
        self.put = Handler(PROCESS, self._put)
        self.delete = Handler("Could not delete a resource", self._delete)

    def _key(self, call: Call) -> ResourceKey:
        mesh = call.path("mesh") if self._type.scope is Scope.MESH else ""
        return ResourceKey(self._type.name, mesh, call.path("name"))

    async def _get(self, call: Call) -> Response:
        self._may_read(call)
        stored = await self._parts.store.get(self._key(call))
        if stored is None:
            raise ApiError(404, "Not found")
        return json_response(printed(stored))

    async def _list(self, call: Call) -> Response:
        self._may_read(call)
        part = window(call.request)
        mesh = call.request.path_params.get("mesh")
        page = await self._parts.store.list(self._type.name, mesh, offset=part.offset, size=part.size)
        return page_response(call.request, part, page)

    async def _put(self, call: Call) -> Response:
        self._may_write(call)
        key = self._key(call)
        document = await read_document(call.request, self._parts.config.api_server.body_limit, INVALID)
        if not isinstance(document, dict):
            raise ApiError(400, INVALID, [("body", "must be an object")])
        if violations := [*_consistency(key, document, self._type), *validate_meta(key.type, key.mesh, key.name)]:
            raise ValidationError(violations)
        decoded = decode_spec(key.type, document)
        if violations := self._type.validate_spec(decoded.spec):
            raise ValidationError(violations)
        for _ in range(_TRIES):
            before = await self._parts.store.get(key)
            try:
                await self._parts.store.apply(*await self._writes.put(Wanted(key, decoded.spec, before)))
            except AlreadyExists:
                continue  # somebody created it in between: now it is an update
            except NotFound as error:
                if error.key == key:
                    continue  # somebody deleted it in between: now it is a creation
                raise mesh_missing(key.mesh) from error
            return written(200 if before else 201, decoded.warnings)
        raise ApiError(409, "Conflict: others create and delete this resource all the time; try again")

    async def _delete(self, call: Call) -> Response:
        self._may_write(call)
        key = self._key(call)
        if await self._parts.store.get(key) is None:
            raise ApiError(404, "Not found")
        await self._parts.store.apply(*await self._writes.delete(key))
        return Response(status_code=200)

    def _may_read(self, call: Call) -> None:
        if self._type.admin_only:
            require(call.user, self._parts.config.access.static.admin_resources, of_type(self._type.name))

    def _may_write(self, call: Call) -> None:
        if self._type.read_only or self._parts.config.api_server.read_only:
            raise PlainError(405, _READ_ONLY, {"Allow": "GET"})
        access = self._parts.config.access.static
        grant = access.admin_resources if self._type.admin_only else access.write_resources
        require(call.user, grant, of_type(self._type.name))


def _consistency(key: ResourceKey, document: Mapping[str, Any], one: TypeDescriptor) -> list[Violation]:
    """The body must speak of the resource that the URL names (R §2.1)."""
    fields = ("name", "type", "mesh") if one.scope is Scope.MESH else ("name", "type")
    return [
        Violation(field, f"{field} from the URL has to be the same as in body")
        for field in fields
        if document.get(field) != getattr(key, field)
    ]

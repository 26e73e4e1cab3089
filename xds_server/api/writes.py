"""What a write of each type means for the store: one atomic batch (R §1.2, §1.3, §2.4)."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

from snapshot.model.admission import with_initial_health, with_zone
from snapshot.model.codec import decode_spec, encode_spec
from snapshot.model.kinds import Scope
from snapshot.model.meta import ProxyKey, ResourceKey
from snapshot.model.rules.mesh import membership_refusal
from snapshot.registry import TypeDescriptor
from xds_server.api.errors import INVALID, ApiError
from xds_server.api.parts import ApiParts
from xds_server.store.contract import ABSENT, Delete, Operation, Put, Stored
from xds_server.tokens.keys import new_key_pem
from xds_server.tokens.new_mesh import new_mesh

MESH: Final = "Mesh"


class Wanted(NamedTuple):
    """A valid spec, and what lies there now."""

    key: ResourceKey
    spec: Any
    before: Stored | None


class Writes:
    """The batches of one type.

    Whatever belongs to a mesh is owned by it in the store, also where Kuma has no owner: nothing can then be created
    in a mesh that is deleted at the same moment, and nothing stays behind.
    """

    def __init__(self, one: TypeDescriptor, parts: ApiParts) -> None:
        self._type = one
        self._parts = parts

    async def put(self, wanted: Wanted) -> list[Operation]:
        """The batch that creates or replaces. Raises ApiError."""
        key, spec, before = wanted
        expected = ABSENT if before is None else None
        if key.type == MESH:
            if before is None:
                pem = await asyncio.to_thread(new_key_pem)
                return list(new_mesh(key.name, encode_spec(spec), pem))
            return [Put(key, encode_spec(spec))]
        if self._type.scope is Scope.GLOBAL:
            return [Put(key, encode_spec(spec), expected)]
        mesh = await self._parts.store.get(ResourceKey(MESH, "", key.mesh))
        if mesh is None:
            raise mesh_missing(key.mesh)
        if key.type == "Dataplane":
            spec = self._admitted(wanted, decode_spec(MESH, mesh.spec).spec)
        return [Put(key, encode_spec(spec), expected, owner=mesh.key)]

    async def delete(self, key: ResourceKey) -> list[Operation]:
        """The batch that deletes. Raises ApiError."""
        if key.type == MESH:
            return await self._delete_mesh(key)
        if key.type == "Dataplane" and await self._parts.store.get(ResourceKey(MESH, "", key.mesh)) is not None:
            return [Delete(key), self._parts.authority.end_credentials(ProxyKey(key.mesh, key.name))]
        return [Delete(key)]

    def _admitted(self, wanted: Wanted, mesh: Any) -> Any:
        spec = with_zone(wanted.spec, self._parts.config.multizone.zone.name)
        if wanted.before is None:
            spec = with_initial_health(spec)
        refusal = membership_refusal(wanted.key.mesh, mesh, spec)
        if refusal is not None:
            raise ApiError(400, INVALID, [("mesh", refusal)])
        return spec

    async def _delete_mesh(self, key: ResourceKey) -> list[Operation]:
        if (await self._parts.store.list("Dataplane", key.name, size=1)).total:
            message = "unable to delete mesh, there are still some dataplanes attached"
            raise ApiError(400, INVALID, [("mesh", message)])
        secrets = await self._parts.store.list("Secret", key.name)
        leftovers = [Delete(secret.key, missing_ok=True) for secret in secrets.items if secret.owner != key]
        return [*leftovers, Delete(key)]


def mesh_missing(mesh: str) -> ApiError:
    """The answer where a mesh is named that does not exist."""
    return ApiError(400, "Mesh is not found", [("mesh", f"mesh of name {mesh} is not found")])

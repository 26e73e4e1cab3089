"""What the control plane creates by itself, once (R §6.1). Later starts, and other instances, change nothing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final, NamedTuple

from snapshot.model.meta import ResourceKey
from xds_server.certs.pair import PemPair, self_signed, write_private
from xds_server.clock import Clock
from xds_server.store.contract import ABSENT, AlreadyExists, Put, ResourceStore
from xds_server.tokens.authority import Authority
from xds_server.tokens.keys import (
    INTERNAL_SECRET,
    STREAM_KEY,
    USER,
    ZONE,
    ZONE_INGRESS,
    new_key_pem,
    secret_data,
    secret_spec,
)
from xds_server.tokens.new_mesh import new_mesh

CLUSTER_ID: Final = ResourceKey("Config", "", "kuma-cluster-id")
ADMIN_TOKEN: Final = ResourceKey("GlobalSecret", "", "admin-user-token")
ADMIN_CERT: Final = ResourceKey(INTERNAL_SECRET, "", "admin-listener-cert")
ADMIN_KEY: Final = ResourceKey(INTERNAL_SECRET, "", "admin-listener-key")
ADMIN_USER: Final = "mesh-system:admin"
ADMIN_TOKEN_FILE: Final = "admin-token"  # noqa: S105  # a file's name
DEFAULT_MESH: Final = "default"


class FirstStart(NamedTuple):
    """What there is after it. `created` names what was missing; `admin_token_file` is None where none is wanted."""

    cluster_id: str
    admin_listener: PemPair
    admin_token_file: Path | None
    created: tuple[str, ...]


async def ensure_defaults(
    store: ResourceStore, authority: Authority, clock: Clock, work_dir: Path, *, default_mesh: bool, admin_token: bool
) -> FirstStart:
    """Create what is missing: cluster id, keys, the admin listener's pair, the default mesh, the admin token.

    Raises StoreUnavailable, and OSError where `work_dir` cannot be written.
    """
    creator = _Creator(store)
    cluster_id = await creator.ensure(CLUSTER_ID, _cluster_id)
    await creator.ensure(STREAM_KEY, _stream_key)
    admin_listener = await creator.ensure_pair(clock)
    for kind in (USER, ZONE_INGRESS, ZONE):
        page = await store.list(kind.secret_type, "", name_contains=kind.key_name(""), size=1)
        if not page.total:
            await creator.ensure(kind.key("", 1), _signing_key)
    if default_mesh:
        await creator.ensure_mesh(DEFAULT_MESH)
    await authority.ring.catch_up()
    token_file = None
    if admin_token:

        async def token() -> dict[str, str]:
            return secret_spec((await authority.issue_user(ADMIN_USER, (ADMIN_USER,))).encode())

        spec = await creator.ensure(ADMIN_TOKEN, token)
        token_file = work_dir / ADMIN_TOKEN_FILE
        await asyncio.to_thread(_write_token, token_file, secret_data(spec))
    return FirstStart(str(cluster_id["config"]), admin_listener, token_file, tuple(creator.created))


class _Creator:
    """Creates what is missing; whoever is first wins, and everyone gets what lies there."""

    def __init__(self, store: ResourceStore) -> None:
        self._store = store
        self.created: list[str] = []

    async def ensure(self, key: ResourceKey, make: Callable[[], Awaitable[dict[str, str]]]) -> dict[str, Any]:
        """The spec under `key`, made where there is none."""
        while (stored := await self._store.get(key)) is None:
            await self._create(key, Put(key, await make(), expected_version=ABSENT))
        return dict(stored.spec)

    async def ensure_pair(self, clock: Clock) -> PemPair:
        """The admin listener's pair; both halves are written in one batch."""
        found = await self._store.get_many((ADMIN_CERT, ADMIN_KEY))
        if len(found) < 2:  # noqa: PLR2004  # a pair
            made = await asyncio.to_thread(self_signed, "admin", ("admin",), clock.now())
            await self._create(
                ADMIN_CERT,
                Put(ADMIN_CERT, secret_spec(made.cert_pem), expected_version=ABSENT),
                Put(ADMIN_KEY, secret_spec(made.key_pem)),
            )
            found = await self._store.get_many((ADMIN_CERT, ADMIN_KEY))
        return PemPair(secret_data(found[ADMIN_CERT].spec), secret_data(found[ADMIN_KEY].spec))

    async def ensure_mesh(self, name: str) -> None:
        """The mesh with its default policies; of one that exists nothing is touched."""
        key = ResourceKey("Mesh", "", name)
        if await self._store.get(key) is None:
            await self._create(key, *new_mesh(name, {}, await asyncio.to_thread(new_key_pem)))

    async def _create(self, key: ResourceKey, *batch: Put) -> None:
        try:
            await self._store.apply(*batch)
        except AlreadyExists:
            return
        self.created.append(f"{key.type} {key.name}")


async def _cluster_id() -> dict[str, str]:
    return {"config": str(uuid.uuid4())}


async def _stream_key() -> dict[str, str]:
    return secret_spec(token_bytes(32))


async def _signing_key() -> dict[str, str]:
    return secret_spec(await asyncio.to_thread(new_key_pem))


def _write_token(file: Path, token: bytes) -> None:
    if not (file.is_file() and file.read_bytes() == token):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(file, token)

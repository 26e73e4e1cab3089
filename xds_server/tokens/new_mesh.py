"""What a mesh is born with: its default policies and a signing key, in one batch (R §6.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snapshot.model.codec import encode_spec
from snapshot.model.defaults import default_policies
from snapshot.model.meta import ResourceKey
from xds_server.store.contract import ABSENT, Put
from xds_server.tokens.keys import DATAPLANE, secret_spec


def new_mesh(name: str, spec: Mapping[str, Any], signing_key_pem: bytes) -> list[Put]:
    """The batch that creates a mesh; `signing_key_pem` is a fresh key (`keys.new_key_pem`).

    Left-overs of an earlier mesh of the name are replaced: a key that others know must not open the new one.
    """
    mesh = ResourceKey("Mesh", "", name)
    return [
        Put(mesh, spec, expected_version=ABSENT),
        *(Put(policy.key, encode_spec(policy.spec), owner=mesh) for policy in default_policies(name)),
        Put(DATAPLANE.key(name, 1), secret_spec(signing_key_pem), owner=mesh),
    ]

from __future__ import annotations

import stat

from tests.support.control_plane import control_plane_parts, tls_pair
from xds_server.bootstrap.first_start import ensure_defaults
from xds_server.tokens.subject import User


async def again(parts, **changes):
    wanted = {"default_mesh": True, "admin_token": True, **changes}
    return await ensure_defaults(parts.store, parts.authority, parts.clock, parts.config.work_dir, **wanted)


async def test_the_first_start_creates_what_kuma_creates(tmp_path):
    parts = await control_plane_parts(tmp_path, fresh_keys=True)
    _, everything = await parts.store.snapshot()
    assert {f"{stored.key.type} {stored.key.mesh}/{stored.key.name}" for stored in everything} == {
        "Mesh /default",
        "TrafficPermission default/allow-all-default",
        "TrafficRoute default/route-all-default",
        "Timeout default/timeout-all-default",
        "CircuitBreaker default/circuit-breaker-all-default",
        "Retry default/retry-all-default",
        "Secret default/dataplane-token-signing-key-default-1",
        "GlobalSecret /user-token-signing-key-1",
        "GlobalSecret /zone-ingress-token-signing-key-1",
        "GlobalSecret /zone-token-signing-key-1",
        "GlobalSecret /admin-user-token",
        "Config /kuma-cluster-id",
        "InternalSecret /stream-credential-key",
        "InternalSecret /admin-listener-cert",
        "InternalSecret /admin-listener-key",
    }


async def test_the_admin_token_lies_in_a_private_file_and_works(tmp_path):
    parts = await control_plane_parts(tmp_path)
    file = parts.first_start.admin_token_file
    assert file == tmp_path / "admin-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    admin = User("mesh-system:admin", ("mesh-system:admin",))
    assert await parts.authority.verify_user(file.read_text()) == admin


async def test_later_starts_change_nothing(tmp_path):
    parts = await control_plane_parts(tmp_path)
    head = await parts.store.head()
    second = await again(parts)
    assert await parts.store.head() == head
    assert second == parts.first_start._replace(created=())


async def test_a_lost_token_file_comes_back(tmp_path):
    parts = await control_plane_parts(tmp_path)
    text = parts.first_start.admin_token_file.read_text()
    parts.first_start.admin_token_file.unlink()
    assert (await again(parts)).admin_token_file.read_text() == text


async def test_settings_leave_parts_out(tmp_path):
    environ = {
        "KUMA_DEFAULTS_SKIP_MESH_CREATION": "true",
        "KUMA_API_SERVER_AUTHN_TOKENS_BOOTSTRAP_ADMIN_TOKEN": "false",
    }
    parts = await control_plane_parts(tmp_path, **environ)
    assert (await parts.store.list("Mesh")).total == 0
    assert parts.first_start.admin_token_file is None
    assert not (tmp_path / "admin-token").exists()
    assert tls_pair().pin

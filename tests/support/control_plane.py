"""The parts of a control plane around a store in memory, as its composition root would build them."""

from __future__ import annotations

import atexit
import dataclasses
import shutil
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import cycle
from pathlib import Path
from tempfile import mkdtemp
from unittest.mock import patch

from xds_server.api.parts import ApiParts, Identity
from xds_server.bootstrap.first_start import FirstStart, ensure_defaults
from xds_server.certs.pair import PemPair, TlsPair, control_plane_pair, self_signed
from xds_server.clock import SystemClock
from xds_server.config import Config, load
from xds_server.store.memory import MemoryStore
from xds_server.telemetry import Telemetry
from xds_server.tokens.authority import Authority
from xds_server.tokens.keys import KeyRing, new_key_pem


class ShiftedClock(SystemClock):
    """The real time and a shift that a test may set."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def now(self) -> datetime:
        return super().now() + self.shift


@dataclasses.dataclass
class Parts:
    """What tests reach for."""

    config: Config
    store: MemoryStore
    authority: Authority
    clock: ShiftedClock
    telemetry: Telemetry
    tls: TlsPair
    first_start: FirstStart

    @property
    def api(self) -> ApiParts:
        identity = Identity("host", "host-abcd", self.first_start.cluster_id, "0.1.0")
        return ApiParts(
            self.config,
            self.store,
            self.authority,
            self.clock,
            self.telemetry,
            identity,
            self.tls.cert_file,
            self.tls.key_file,
        )


@cache
def tls_pair() -> TlsPair:
    """One pair for all tests of a process."""
    directory = Path(mkdtemp(prefix="koguma-tests-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return control_plane_pair(directory, "", "", datetime.now(UTC))  # noqa: TID251  # TLS checks real dates


@cache
def _keys() -> tuple[bytes, ...]:
    return tuple(new_key_pem() for _ in range(5))


@cache
def _admin_pair() -> PemPair:
    return self_signed("admin", ("admin",), datetime.now(UTC))  # noqa: TID251  # TLS checks real dates


async def control_plane_parts(directory: Path, *, fresh_keys: bool = False, **environ: str) -> Parts:
    """After the first start; `environ` are settings by their variables.

    RSA keys are made once for all tests of a process unless they are to be fresh.
    """
    with ExitStack() as patches:
        if not fresh_keys:
            first_start = "xds_server.bootstrap.first_start"
            patches.enter_context(patch(f"{first_start}.new_key_pem", cycle(_keys()).__next__))
            patches.enter_context(patch(f"{first_start}.self_signed", lambda *_: _admin_pair()))
        return await _first_start(directory, environ)


async def _first_start(directory: Path, environ: dict[str, str]) -> Parts:
    config = load(environ={"KUMA_GENERAL_WORK_DIR": str(directory), **environ}).config
    clock = ShiftedClock()
    store = MemoryStore(clock)
    authority = Authority(KeyRing(store), clock, tls_pair().pin)
    first = await ensure_defaults(
        store,
        authority,
        clock,
        config.work_dir,
        default_mesh=not config.defaults.skip_mesh_creation,
        admin_token=config.api_server.authn.tokens.bootstrap_admin_token,
    )
    return Parts(config, store, authority, clock, Telemetry(config.multizone.zone.name), tls_pair(), first)

"""What the REST API is built from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snapshot.engine.world import Issue
from snapshot.model.meta import ProxyKey
from xds_server.clock import Clock
from xds_server.config import Config, ConfigError
from xds_server.store.contract import ResourceStore
from xds_server.telemetry import Telemetry
from xds_server.tokens.authority import Authority


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this control plane is. `instance_id` is `<hostname>-<4 hex>`, `build` our own version."""

    hostname: str
    instance_id: str
    cluster_id: str
    build: str


def _nobody_is_connected(_proxy: ProxyKey) -> int | None:
    return None


@dataclass(frozen=True, slots=True)
class ApiParts:
    """Given by the composition root. `client_cert`, `client_key` are shown to Envoy's admin listeners.

    `issues` answers what is stored and has no effect, `admin_port` where the admin of a connected Envoy listens (0: it
    has none; None: it is not connected).
    """

    config: Config
    store: ResourceStore
    authority: Authority
    clock: Clock
    telemetry: Telemetry
    identity: Identity
    client_cert: Path
    client_key: Path
    issues: Callable[[], Sequence[Issue]] = tuple
    admin_port: Callable[[ProxyKey], int | None] = _nobody_is_connected
    origins: tuple[tuple[str, re.Pattern[str]], ...] = field(init=False)

    def __post_init__(self) -> None:
        """Compile the origins once. Raises ConfigError."""
        try:
            found = tuple((text, re.compile(text)) for text in self.config.api_server.cors_allowed_domains)
        except re.error as error:
            fault = f"apiServer.corsAllowedDomains: {error.pattern!r} is not a regular expression: {error}"
            raise ConfigError([fault]) from error
        object.__setattr__(self, "origins", found)

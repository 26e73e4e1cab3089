"""What kuma-dp asks (R §7.2), checked."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Short = Annotated[str, msgspec.Meta(max_length=4096)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class KumaDpBuild(msgspec.Struct, frozen=True, rename="camel"):
    """Build of kuma-dp; null is as good as absent everywhere."""

    version: Short | None = None
    git_tag: Short | None = None
    git_commit: Short | None = None
    build_date: Short | None = None


class EnvoyBuild(msgspec.Struct, frozen=True, rename="camel"):
    """Build of Envoy."""

    version: Short | None = None
    build: Short | None = None


class Versions(msgspec.Struct, frozen=True, rename="camel"):
    """What runs beside the service."""

    kuma_dp: KumaDpBuild | None = None
    envoy: EnvoyBuild | None = None


class BootstrapRequest(msgspec.Struct, frozen=True, rename="camel"):
    """The body of POST `/bootstrap`.

    Ours beyond Kuma: `run_id`, `cp_pin` (the key that kuma-dp saw or was told), `xds_protocol` (delta, sotw, "").
    """

    mesh: Short | None = None
    name: Short | None = None
    proxy_type: Short | None = None
    admin_port: Port | None = None
    dataplane_token: str | None = None
    dataplane_resource: str | None = None
    version: Versions | None = None
    ca_cert: str | None = None
    dynamic_metadata: dict[str, str] | None = None
    dns_port: Port | None = None
    empty_dns_port: Port | None = None
    run_id: Short | None = None
    cp_pin: Short | None = None
    xds_protocol: Short | None = None
    features: list[Short] | None = None

    @property
    def pinned(self) -> bool:
        """Whether kuma-dp knows the control plane by its key alone; a CA that it was given counts for more."""
        return bool(self.cp_pin) and not self.ca_cert


def metadata_version(versions: Versions | None) -> dict[str, Any]:
    """`node.metadata.version`; the empty `dependencies` is part of the form."""
    kuma_dp = (versions and versions.kuma_dp) or KumaDpBuild()
    envoy = (versions and versions.envoy) or EnvoyBuild()
    return {
        "kumaDp": {
            "version": kuma_dp.version or "",
            "gitTag": kuma_dp.git_tag or "",
            "gitCommit": kuma_dp.git_commit or "",
            "buildDate": kuma_dp.build_date or "",
        },
        "envoy": {"version": envoy.version or "", "build": envoy.build or ""},
        "dependencies": {},
    }

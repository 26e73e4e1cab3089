"""Dataplane: where a service instance is reachable, what it exposes and what it consumes (R §1.2)."""

from __future__ import annotations

import enum

from snapshot.model.meta import Duration, Spec, Unsupported
from snapshot.model.tags import NO_TAGS, SERVICE, Tags


class GatewayType(enum.Enum):
    """Kind of gateway; the names are the encoded form, the values the numbers of the schema."""

    DELEGATED = 0
    BUILTIN = 1


class Health(Spec, frozen=True, kw_only=True):
    """Readiness of an inbound. An inbound without `health` counts as ready."""

    ready: bool = False


class TcpProbe(Spec, frozen=True, kw_only=True):
    """A probe by TCP connection; it has no settings."""


class ServiceProbe(Spec, frozen=True, kw_only=True):
    """Asks Envoy, through HDS, to check the application. Unset parts come from `dpServer.hds.checkDefaults`."""

    interval: Duration | None = None
    timeout: Duration | None = None
    unhealthy_threshold: int | None = None
    healthy_threshold: int | None = None
    tcp: TcpProbe | None = None


class Inbound(Spec, frozen=True, kw_only=True):
    """What a proxy exposes: a port of its own in front of a port of the application."""

    port: int = 0
    service_port: int = 0
    service_address: str = ""
    address: str = ""
    tags: Tags = NO_TAGS
    health: Health | None = None
    service_probe: ServiceProbe | None = None

    @property
    def ready(self) -> bool:
        """Whether peers may be sent here."""
        return self.health is None or self.health.ready

    @property
    def workload_port(self) -> int:
        """Port of the application: `service_port`, else `port`."""
        return self.service_port or self.port

    @property
    def workload_address(self) -> str:
        """IP of the application: `service_address`, else loopback."""
        return self.service_address or "127.0.0.1"


class Outbound(Spec, frozen=True, kw_only=True):
    """What a proxy consumes: a local port that leads to a destination chosen by tags."""

    address: str = ""
    port: int = 0
    service: str = ""
    tags: Tags = NO_TAGS

    @property
    def bind_address(self) -> str:
        """Local IP to listen on."""
        return self.address or "127.0.0.1"

    @property
    def destination(self) -> Tags:
        """The destination selector; the deprecated `service` counts only where there are no tags."""
        return self.tags or Tags({SERVICE: self.service})


class Gateway(Spec, frozen=True, kw_only=True):
    """Makes the proxy a gateway: it has tags of its own and no inbounds."""

    tags: Tags = NO_TAGS
    type: GatewayType = GatewayType.DELEGATED


class Admin(Spec, frozen=True, kw_only=True):
    """Where this proxy's Envoy admin listens; 0 takes the control plane's default."""

    port: int = 0


class Networking(Spec, frozen=True, kw_only=True):
    """Addresses and interfaces of a proxy. `address` and `advertised_address` may be domain names."""

    address: str = ""
    advertised_address: str = ""
    gateway: Gateway | None = None
    inbound: tuple[Inbound, ...] = ()
    outbound: tuple[Outbound, ...] = ()
    transparent_proxying: Unsupported | None = None
    admin: Admin | None = None


class ProbeEndpoint(Spec, frozen=True, kw_only=True):
    """One virtual probe: `path` on the probe port leads to `inbound_path` of `inbound_port`."""

    inbound_port: int = 0
    inbound_path: str = ""
    path: str = ""


class Probes(Spec, frozen=True, kw_only=True):
    """Virtual HTTP probes of a proxy (X §8.3)."""

    port: int = 0
    endpoints: tuple[ProbeEndpoint, ...] = ()


class Dataplane(Spec, frozen=True, kw_only=True):
    """The spec of a Dataplane resource."""

    networking: Networking | None = None
    metrics: Unsupported | None = None
    probes: Probes | None = None

    @property
    def tag_sets(self) -> tuple[Tags, ...]:
        """The tag set of each inbound, and of the gateway: what selectors are tested against (R §3.1)."""
        if self.networking is None:
            return ()
        sets = tuple(inbound.tags for inbound in self.networking.inbound)
        return (*sets, self.networking.gateway.tags) if self.networking.gateway else sets

    @property
    def identifying_service(self) -> str:
        """The alphabetically first value of `kuma.io/service`, or `unknown` (R §1.2)."""
        return min((tags.service for tags in self.tag_sets if tags.service), default="unknown")

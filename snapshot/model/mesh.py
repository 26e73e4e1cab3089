"""Mesh: the settings that all proxies of one mesh share (R §1.3)."""

from __future__ import annotations

from snapshot.model.meta import Spec, Unsupported
from snapshot.model.selector import TagSelector


class Routing(Spec, frozen=True, kw_only=True):
    """Routing between zones."""

    locality_aware_load_balancing: bool = False


class DataplaneProxyConstraints(Spec, frozen=True, kw_only=True):
    """Who may join: each tag set must satisfy one requirement (if any) and no restriction."""

    requirements: tuple[TagSelector, ...] = ()
    restrictions: tuple[TagSelector, ...] = ()


class Constraints(Spec, frozen=True, kw_only=True):
    """Constraints of a mesh."""

    dataplane_proxy: DataplaneProxyConstraints | None = None


class Mesh(Spec, frozen=True, kw_only=True):
    """The spec of a Mesh resource."""

    mtls: Unsupported | None = None
    tracing: Unsupported | None = None
    logging: Unsupported | None = None
    metrics: Unsupported | None = None
    networking: Unsupported | None = None
    routing: Routing | None = None
    constraints: Constraints | None = None

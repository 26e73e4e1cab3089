"""What the control plane writes into a Dataplane when it takes it in (R §1.2, side effects 1 and 2)."""

from __future__ import annotations

import msgspec

from snapshot.model.dataplane import Dataplane, Health, Networking
from snapshot.model.tags import ZONE


def with_zone(dataplane: Dataplane, zone: str) -> Dataplane:
    """The Dataplane with `kuma.io/zone` of each tag set overwritten by `zone`; unchanged where `zone` is empty."""
    networking = dataplane.networking
    if not zone or networking is None:
        return dataplane
    tag = {ZONE: zone}
    inbound = tuple(msgspec.structs.replace(one, tags=one.tags.with_(tag)) for one in networking.inbound)
    gateway = networking.gateway
    if gateway is not None:
        gateway = msgspec.structs.replace(gateway, tags=gateway.tags.with_(tag))
    return _with_networking(dataplane, msgspec.structs.replace(networking, inbound=inbound, gateway=gateway))


def with_initial_health(dataplane: Dataplane) -> Dataplane:
    """The Dataplane as it is first created: an inbound with a probe and no health is not ready until HDS says so."""
    networking = dataplane.networking
    if networking is None or all(one.service_probe is None or one.health is not None for one in networking.inbound):
        return dataplane
    inbound = tuple(
        msgspec.structs.replace(one, health=Health()) if one.service_probe is not None and one.health is None else one
        for one in networking.inbound
    )
    return _with_networking(dataplane, msgspec.structs.replace(networking, inbound=inbound))


def _with_networking(dataplane: Dataplane, networking: Networking) -> Dataplane:
    return msgspec.structs.replace(dataplane, networking=networking)

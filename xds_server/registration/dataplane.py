"""The Dataplane that a registration stores: what the control plane adds, and what it keeps of the one before.

Pure. What is added at first (`snapshot.model.admission`) and who may join (`snapshot.model.rules.mesh`) is the model's.
"""

from __future__ import annotations

import msgspec

from snapshot.model.admission import with_initial_health, with_zone
from snapshot.model.dataplane import Dataplane, Health, Inbound


def prepared(dataplane: Dataplane, zone: str, stored: Dataplane | None) -> Dataplane:
    """The Dataplane as it is to be stored: the zone's tag on every tag set, and the health of probed inbounds.

    Health that was reported for an inbound outlives a re-registration that leaves this inbound as it was; an inbound
    with a `serviceProbe` that nobody reported on yet is not ready.
    """
    return with_initial_health(_with_known_health(with_zone(dataplane, zone), stored))


def _with_known_health(dataplane: Dataplane, stored: Dataplane | None) -> Dataplane:
    networking = dataplane.networking
    if networking is None or stored is None or stored.networking is None:
        return dataplane
    known = {_without_health(inbound): inbound.health for inbound in stored.networking.inbound}
    inbounds = tuple(_told(inbound, known) for inbound in networking.inbound)
    return msgspec.structs.replace(dataplane, networking=msgspec.structs.replace(networking, inbound=inbounds))


def _told(inbound: Inbound, known: dict[Inbound, Health | None]) -> Inbound:
    if inbound.service_probe is None or inbound.health is not None:
        return inbound
    return msgspec.structs.replace(inbound, health=known.get(inbound))


def _without_health(inbound: Inbound) -> Inbound:
    return msgspec.structs.replace(inbound, health=None)

"""What the control plane adds to a Dataplane before it is stored, and whether its mesh takes it (R §1.2, §1.3).

Pure. Validation of fields is the model's.
"""

from __future__ import annotations

import msgspec

from snapshot.model.dataplane import Dataplane, Health, Inbound
from snapshot.model.mesh import Mesh
from snapshot.model.tags import ZONE, Tags


def prepared(dataplane: Dataplane, zone: str, stored: Dataplane | None) -> Dataplane:
    """The Dataplane as it is to be stored: the zone's tag on every tag set, and the health of probed inbounds.

    Health that was reported for an inbound outlives a re-registration that leaves this inbound as it was; an inbound
    with a `serviceProbe` that nobody reported on yet is not ready.
    """
    networking = dataplane.networking
    if networking is None:
        return dataplane
    known = stored.networking.inbound if stored and stored.networking else ()
    health_of = {_without_health(inbound): inbound.health for inbound in known}
    gateway = networking.gateway
    if gateway is not None:
        gateway = msgspec.structs.replace(gateway, tags=_zoned(gateway.tags, zone))
    inbounds = tuple(_prepared_inbound(inbound, zone, health_of) for inbound in networking.inbound)
    return msgspec.structs.replace(
        dataplane, networking=msgspec.structs.replace(networking, inbound=inbounds, gateway=gateway)
    )


def _prepared_inbound(inbound: Inbound, zone: str, health_of: dict[Inbound, Health | None]) -> Inbound:
    inbound = msgspec.structs.replace(inbound, tags=_zoned(inbound.tags, zone))
    if inbound.service_probe is None or inbound.health is not None:
        return inbound
    return msgspec.structs.replace(inbound, health=health_of.get(inbound) or Health())


def _without_health(inbound: Inbound) -> Inbound:
    return msgspec.structs.replace(inbound, health=None)


def _zoned(tags: Tags, zone: str) -> Tags:
    return tags.with_({ZONE: zone}) if zone else tags


def membership_refusal(mesh_name: str, mesh: Mesh, dataplane: Dataplane) -> str | None:
    """Why the mesh's constraints keep the Dataplane out, in Kuma's words (R §1.3); None where they do not."""
    constraints = mesh.constraints.dataplane_proxy if mesh.constraints else None
    if constraints is None:
        return None
    for tags in dataplane.tag_sets:
        refusal = f'dataplane cannot be a member of mesh "{mesh_name}" because its tags "{_text(tags)}" '
        requirements = constraints.requirements
        if requirements and not any(tags.matches(requirement.tags) for requirement in requirements):
            return refusal + "does not fulfill any requirements defined on the Mesh"
        for restriction in constraints.restrictions:
            if tags.matches(restriction.tags):
                return refusal + f'matches restricted tags "{_text(restriction.tags)}" defined on the Mesh'
    return None


def _text(tags: Tags) -> str:
    return " ".join(f"{key}={value}" for key, value in tags.items())

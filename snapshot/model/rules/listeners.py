"""Where a Dataplane's listeners bind: the admin port must stay free, and no two listeners may share a place.

The second rule is not Kuma's (R §10 no. 8): there, one of the two silently wins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from snapshot.model.dataplane import Networking
from snapshot.model.rules.paths import LARGEST_PORT, brief, check_port, is_unspecified
from snapshot.model.validation import Violation

NO_LISTENER_PORT = 49151
"""An inbound port that stands for a workload without a port: it gets no listener (R §1.2)."""

_LOOPBACK = "127.0.0.1"


class _Place(NamedTuple):
    """A listener: its path, and where it binds."""

    path: str
    address: str
    port: int


def check_admin(networking: Networking) -> list[Violation]:
    """The admin port binds on loopback: neither a listener nor the application may be there."""
    port = networking.admin.port if networking.admin else 0
    if not port:
        return []
    path = "networking.admin.port"
    if port > LARGEST_PORT:
        return check_port(path, port)
    inbound = [
        place
        for one in networking.inbound
        for place in (
            (one.address or networking.address, one.port),
            (one.workload_address, one.workload_port),
        )
    ]
    outbound = [(one.bind_address, one.port) for one in networking.outbound]
    return [
        Violation(path, f"must differ from {what}")
        for what, places in (("inbound", inbound), ("outbound", outbound))
        if any(taken == port and (at == _LOOPBACK or is_unspecified(at)) for at, taken in places)
    ]


def check_places(networking: Networking) -> list[Violation]:
    """Each inbound and outbound binds at a place of its own."""
    earlier: dict[int, dict[str, _Place]] = {}
    violations = []
    for place in _places(networking):
        taken = earlier.setdefault(place.port, {})
        if (other := _overlapping(place, taken)) is not None:
            where = f"{brief(place.address)}:{place.port}"
            text = f"{where} is already taken by {other.path}; each listener needs a place of its own"
            violations.append(Violation(f"{place.path}.port", text))
        else:
            taken["" if is_unspecified(place.address) else place.address] = place
    return violations


def _overlapping(place: _Place, taken: dict[str, _Place]) -> _Place | None:
    if not taken:
        return None
    if is_unspecified(place.address):
        return next(iter(taken.values()))
    return taken.get(place.address) or taken.get("")


def _places(networking: Networking) -> Iterable[_Place]:
    for index, inbound in enumerate(networking.inbound):
        if inbound.port not in {0, NO_LISTENER_PORT}:
            yield _Place(f"networking.inbound[{index}]", inbound.address or networking.address, inbound.port)
    for index, outbound in enumerate(networking.outbound):
        if outbound.port:
            yield _Place(f"networking.outbound[{index}]", outbound.bind_address, outbound.port)

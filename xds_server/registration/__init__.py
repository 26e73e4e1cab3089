"""Who may register, update and delete a Dataplane: leases, fenced by epochs (architecture §7)."""

from xds_server.registration.dataplane import prepared
from xds_server.registration.lease import Ending, Lease, Patience
from xds_server.registration.registrar import Claim, Hold, Refused, Registrar

__all__ = [
    "Claim",
    "Ending",
    "Hold",
    "Lease",
    "Patience",
    "Refused",
    "Registrar",
    "prepared",
]

"""Control planes over one store, and what their registrars are told."""

from __future__ import annotations

from snapshot.model.codec import decode_spec
from snapshot.model.meta import ProxyKey
from snapshot.registry import descriptor
from tests.support.stores import dataplane, lease, mesh
from xds_server.registration import Claim, Lease, Patience, Registrar
from xds_server.store import MemoryStore, Put

PROXY = ProxyKey("default", "a")
SPEC = {"networking": {"address": "10.0.0.1", "inbound": [{"port": 80, "tags": {"kuma.io/service": "web"}}]}}
PATIENCE = Patience(leave_grace_s=2, cleanup_age_s=600, restart_grace_s=60)


def spec(**networking):
    return decode_spec("Dataplane", {"networking": {**SPEC["networking"], **networking}}).spec


def claim(**fields):
    return Claim(PROXY, **{"dataplane": spec(), **fields})


class Hub:
    """Stands for the reconciler's `watch`: the test says what is heard."""

    def __init__(self):
        self.callbacks = {}

    def watch(self, key, changed):
        self.callbacks.setdefault(key, []).append(changed)
        return lambda: self.callbacks[key].remove(changed)

    def fire(self, key, stored):
        for changed in list(self.callbacks.get(key, ())):
            changed(stored)


def registrar(store, clock, hub=None, instance="cp-1", **options):
    return Registrar(
        store,
        (hub or Hub()).watch,
        clock,
        instance_id=instance,
        validate=descriptor("Dataplane").validate,
        patience=PATIENCE,
        **options,
    )


async def seeded(clock, mesh_spec=None):
    store = MemoryStore(clock)
    await store.apply(Put(mesh(), mesh_spec or {}))
    return store


async def stored_lease(store):
    stored = await store.get(lease("a"))
    return Lease.from_spec(stored.spec) if stored else None


async def registered(store):
    return await store.get(dataplane("a")) is not None

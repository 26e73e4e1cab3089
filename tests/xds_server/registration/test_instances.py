"""Several control planes over one store: who is alive, and who tidies up after whom."""

import pytest

from snapshot.model.meta import ResourceKey
from tests.support.clock import FakeClock, settle
from tests.support.registration import Hub, claim, registered, registrar, seeded, stored_lease
from tests.support.stores import lease
from xds_server.registration.instances import FRESH_S, HEARTBEAT_S, INSTANCE_TYPE
from xds_server.store import Put, StoreUnavailable


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def store(clock):
    return await seeded(clock)


async def started(store, clock, instance, hub=None):
    made = registrar(store, clock, hub, instance=instance)
    await made.start()
    return made


async def test_an_instance_is_alive_as_long_as_it_says_so(store, clock):
    first, second = await started(store, clock, "cp-1"), await started(store, clock, "cp-2")
    await clock.advance(100)
    assert await second.instance_alive("cp-1")
    await first.stop()
    await clock.advance(FRESH_S + 1)
    assert not await second.instance_alive("cp-1")
    assert not await second.instance_alive("never heard of")
    assert await second.instance_alive("cp-2")
    await second.stop()


async def test_heartbeats_wake_nobody(store, clock):
    head = await store.head()
    first = await started(store, clock, "cp-1")
    await clock.advance(100)
    assert await store.head() == head
    await first.stop()


async def test_a_heartbeat_that_cannot_be_stored_is_tried_again(store, clock):
    first, apply = await started(store, clock, "cp-1"), store.apply

    async def away(*operations):
        raise StoreUnavailable("disk on fire")

    store.apply = away
    await clock.advance(HEARTBEAT_S + 1)
    store.apply = apply
    await clock.advance(HEARTBEAT_S)
    seen_s = (await store.get(ResourceKey(INSTANCE_TYPE, "", "cp-1"))).spec["seen"]
    assert clock.now().timestamp() - seen_s < HEARTBEAT_S
    await first.stop()


async def test_instances_that_are_long_gone_are_forgotten(store, clock):
    await (await started(store, clock, "cp-1")).stop()
    clock.jump(25 * 3600)
    second = await started(store, clock, "cp-2")
    assert [item.key.name for item in (await store.list(INSTANCE_TYPE)).items] == ["cp-2"]
    await second.stop()


async def test_the_proxies_of_an_instance_that_died_go_when_they_had_time_to_move(store, clock):
    first, second = await started(store, clock, "cp-1"), await started(store, clock, "cp-2")
    await first.register(claim())
    await clock.advance(200)
    assert await registered(store)
    await first.stop()
    await clock.advance(FRESH_S + 55)
    assert await registered(store)
    await clock.advance(80)
    assert not await registered(store)
    await second.stop()


async def test_the_proxies_of_an_instance_that_lives_are_left_alone_by_one_that_starts(store, clock):
    first = await started(store, clock, "cp-1")
    await first.register(claim())
    second = await started(store, clock, "cp-2")
    await clock.advance(1000)
    assert (await stored_lease(store)).instance == "cp-1"
    await first.stop()
    await second.stop()


@pytest.mark.parametrize(("run_id", "told"), [("run-1", []), ("run-2", ["another kuma-dp took over"])])
async def test_streams_hear_of_another_owner_but_not_of_their_own_reconnect(store, clock, run_id, told):
    hub, ended = Hub(), []
    first, second = await started(store, clock, "cp-1", hub), await started(store, clock, "cp-2")
    await first.register(claim(run_id="run-1", ended=ended.append))
    await first._instances.stop()
    clock.jump(FRESH_S + 1)
    await second._instances._beat()
    await second.register(claim(run_id=run_id))
    hub.fire(lease("a"), await store.get(lease("a")))
    await settle()
    assert [reason.partition(":")[0] for reason in ended] == told
    await clock.advance(100)
    assert (await stored_lease(store)).instance == "cp-2"
    await first.stop()
    await second.stop()


async def test_a_lease_that_cannot_be_looked_up_ends_nothing(store, clock):
    hub, ended = Hub(), []
    first, get_many = await started(store, clock, "cp-1", hub), store.get_many
    await first.register(claim(ended=ended.append))

    async def away(keys):
        raise StoreUnavailable("disk on fire")

    store.get_many = away
    hub.fire(lease("a"), None)
    await settle()
    store.get_many = get_many
    assert ended == []
    await first.stop()


async def test_old_rows_of_other_types_do_no_harm(store, clock):
    await store.apply(Put(ResourceKey(INSTANCE_TYPE, "", "cp-0"), {"seen": clock.now().timestamp()}, logged=False))
    first = await started(store, clock, "cp-1")
    assert await first.instance_alive("cp-0")
    await first.stop()

"""Every situation of R §7.3 and architecture §7, on a real store."""

import asyncio
import re

import pytest

from tests.support.clock import FakeClock, settle
from tests.support.registration import PROXY, SPEC, Hub, claim, registered, registrar, seeded, spec, stored_lease
from tests.support.stores import dataplane, insight, lease, mesh
from xds_server.registration import Ending, Refused
from xds_server.registration.lease import State
from xds_server.store import Delete, Put, SqlStore, StoreUnavailable

PREFIX = "could not register dataplane passed in kuma-dp run: "


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def store(clock):
    return await seeded(clock)


@pytest.fixture
def hub():
    return Hub()


@pytest.fixture
async def cp(store, clock, hub):
    made = registrar(store, clock, hub)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def other(store, clock):
    made = registrar(store, clock, instance="cp-2")
    await made.start()
    yield made
    await made.stop()


async def test_registering_stores_the_dataplane_and_its_lease_in_one_batch(cp, store):
    head = await store.head()
    await cp.register(claim(run_id="run-1", holder="192.0.2.1:5"))
    assert await store.head() == head + 2
    assert (await store.get(dataplane("a"))).spec == SPEC
    held = await stored_lease(store)
    assert (held.instance, held.run_id, held.holder, held.state) == ("cp-1", "run-1", "192.0.2.1:5", State.HELD)
    assert (await store.get(lease("a"))).owner == dataplane("a")


async def test_registering_the_same_again_writes_nothing(cp, store):
    await cp.register(claim())
    head = await store.head()
    await cp.register(claim())
    assert await store.head() == head


async def test_a_changed_dataplane_is_updated_by_the_newest_stream(cp, store):
    await cp.register(claim())
    await cp.register(claim(dataplane=spec(address="10.0.0.2")))
    assert (await store.get(dataplane("a"))).spec["networking"]["address"] == "10.0.0.2"


async def test_the_last_stream_leaving_deletes_the_dataplane_after_the_grace(cp, store, clock):
    first, second = await cp.register(claim()), await cp.register(claim())
    await store.apply(Put(insight("a"), {}, owner=dataplane("a")))
    await cp.release(second, Ending.LEFT)
    await clock.advance(100)
    assert await registered(store)
    await cp.release(first, Ending.LEFT)
    await clock.advance(1.9)
    assert await registered(store)
    await clock.advance(0.2)
    assert [stored.key for stored in (await store.snapshot())[1]][:1] == [mesh()]
    assert not await registered(store)
    assert await store.get(insight("a")) is None


async def test_back_within_the_grace_nothing_goes(cp, store, clock):
    await cp.release(await cp.register(claim()), Ending.LEFT)
    await clock.advance(1)
    version = (await store.get(dataplane("a"))).version
    await cp.register(claim())
    await clock.advance(100)
    assert (await store.get(dataplane("a"))).version == version
    assert (await stored_lease(store)).state is State.HELD


async def test_a_vanished_proxy_stays_for_diagnosis_until_it_expires(cp, store, clock):
    await cp.release(await cp.register(claim()), Ending.VANISHED)
    assert (await stored_lease(store)).state is State.VANISHED
    await clock.advance(599)
    assert await registered(store)
    await clock.advance(2)
    assert not await registered(store)


async def test_how_the_newest_stream_ended_decides(cp, store, clock):
    old, new = await cp.register(claim()), await cp.register(claim())
    await cp.release(new, Ending.LEFT)
    await cp.release(old, Ending.VANISHED)  # its connection was dead all along
    await clock.advance(3)
    assert not await registered(store)


async def test_an_old_stream_that_closes_late_does_not_touch_a_proxy_that_moved(cp, other, store, clock):
    old = await cp.register(claim())
    await other.register(claim())
    await cp.release(old, Ending.LEFT)
    await clock.advance(100)
    assert await registered(store)
    assert (await stored_lease(store)).instance == "cp-2"


async def test_back_on_another_instance_within_the_grace(cp, other, store, clock):
    await cp.release(await cp.register(claim()), Ending.LEFT)
    await clock.advance(1)
    hold = await other.register(claim())
    await clock.advance(100)
    assert await registered(store)
    await other.release(hold, Ending.LEFT)
    await clock.advance(3)
    assert not await registered(store)


async def test_another_run_is_refused_while_the_old_stream_answers(cp, store):
    await cp.register(claim(run_id="run-1", holder="192.0.2.1:5"))
    with pytest.raises(Refused) as raised:
        await cp.register(claim(run_id="run-2", holder="192.0.2.2:6"))
    assert str(raised.value) == (
        PREFIX + 'the name "a" in mesh "default" is taken by kuma-dp run "run-1" at 192.0.2.1:5 (control plane cp-1), '
        'whose connection is open; refused is kuma-dp run "run-2" at 192.0.2.2:6 (control plane cp-1). '
        "Stop the other one, or choose another name; if its machine has fallen silent, try again when the keepalive "
        "has noticed (xdsServer.keepalive, 40 s)"
    )
    assert (await stored_lease(store)).run_id == "run-1"


async def test_another_run_takes_over_at_once_from_one_that_does_not_answer(cp, store, clock):
    ended = []

    async def silent():
        return False

    old = await cp.register(claim(run_id="run-1", is_alive=silent, ended=ended.append))
    new = await cp.register(claim(run_id="run-2", holder="192.0.2.2:6"))
    assert ended == ['another kuma-dp took over: kuma-dp run "run-2" at 192.0.2.2:6 (control plane cp-1)']
    await cp.release(old, Ending.VANISHED)
    await clock.advance(100)
    assert (await stored_lease(store)).state is State.HELD
    await cp.release(new, Ending.LEFT)
    await clock.advance(3)
    assert not await registered(store)


async def test_another_run_on_another_instance_waits_for_the_first_instance_to_fall_silent(cp, other, store, clock):
    await cp.register(claim(run_id="run-1"))
    with pytest.raises(Refused, match="control plane cp-1"):
        await other.register(claim(run_id="run-2"))
    await cp.stop()
    await clock.advance(31)
    await other.register(claim(run_id="run-2"))
    assert (await stored_lease(store)).instance == "cp-2"


async def test_after_a_restart_leases_have_60_s_to_come_back(tmp_path, clock):
    store = await SqlStore.open(tmp_path, clock)
    await store.apply(Put(mesh(), {}))
    before = registrar(store, clock)
    await before.start()
    await before.register(claim(run_id="run-1"))
    await before.stop()  # as by kill -9: nothing was released
    after = registrar(store, clock, instance="cp-1b")
    await after.start()
    await clock.advance(59)
    assert await registered(store)
    await clock.advance(2)
    for _ in range(100):
        if not await registered(store):
            break
        await asyncio.sleep(0.01)
    assert not await registered(store)
    await after.stop()
    await store.close()


async def test_after_a_restart_a_proxy_that_is_back_stays_and_another_run_takes_over_at_once(tmp_path, clock):
    store = await SqlStore.open(tmp_path, clock)
    await store.apply(Put(mesh(), {}))
    before = registrar(store, clock)
    await before.start()
    await before.register(claim(run_id="run-1"))
    await before.stop()
    after = registrar(store, clock, instance="cp-1b")
    await after.start()
    await after.register(claim(run_id="run-2"))  # the stream of run-1 ended with its process
    await clock.advance(100)
    await asyncio.sleep(0.05)
    assert (await stored_lease(store)).run_id == "run-2"
    await after.stop()
    await store.close()


async def test_shutdown_deletes_nothing(cp, store, clock):
    await cp.release(await cp.register(claim()), Ending.SHUTDOWN)
    assert (await stored_lease(store)).state is State.HELD
    await cp.stop()
    await clock.advance(1000)
    assert await registered(store)


async def test_a_stream_that_we_ended_has_60_s_to_come_back(cp, store, clock):
    await cp.release(await cp.register(claim()), Ending.SHUTDOWN)
    await clock.advance(59)
    assert await registered(store)
    await clock.advance(2)
    assert not await registered(store)


async def test_a_dataplane_that_an_operator_made_outlives_its_streams(cp, store, clock):
    await store.apply(Put(dataplane("a"), SPEC))
    for how in Ending:
        await cp.release(await cp.register(claim(dataplane=None)), how)
        await clock.advance(1000)
    assert await registered(store)
    assert await stored_lease(store) is None


async def test_without_a_dataplane_anywhere_the_stream_is_refused(cp):
    with pytest.raises(Refused) as raised:
        await cp.register(claim(dataplane=None))
    assert str(raised.value) == (
        'resource "default.a" not found; create a Dataplane in Kuma CP first or pass it as an argument to kuma-dp'
    )


async def test_a_stream_without_dataplane_shares_the_lease_of_those_with_one(cp, store, clock):
    first, second = await cp.register(claim()), await cp.register(claim(dataplane=None))
    await cp.release(first, Ending.LEFT)
    await clock.advance(10)
    assert await registered(store)
    await cp.release(second, Ending.LEFT)
    await clock.advance(3)
    assert not await registered(store)


async def test_overriding_needs_a_credential_for_what_is_stored(cp, store):
    await store.apply(Put(dataplane("a"), SPEC))
    asked = []

    def authorises(stored):
        asked.append(stored)
        return "no such luck"

    await cp.register(claim(authorises=authorises))
    assert asked == []  # the same resource overrides nothing
    with pytest.raises(Refused) as raised:
        await cp.register(claim(dataplane=spec(address="10.0.0.2"), authorises=authorises))
    assert str(raised.value) == (
        PREFIX + "you are trying to override existing dataplane to which you don't have an access.: no such luck"
    )
    assert asked == [spec()]


@pytest.mark.parametrize(
    ("mesh_spec", "networking", "text"),
    [
        ({}, {"address": ""}, "networking.address: address can't be empty"),
        (
            {"constraints": {"dataplaneProxy": {"requirements": [{"tags": {"team": "a"}}]}}},
            {},
            (
                'dataplane cannot be a member of mesh "default" because its tags "kuma.io/service=web" '
                "does not fulfill any requirements defined on the Mesh"
            ),
        ),
    ],
)
async def test_what_is_not_valid_is_refused_and_stores_nothing(clock, mesh_spec, networking, text):
    store = await seeded(clock, mesh_spec)
    cp = registrar(store, clock)
    await cp.start()
    with pytest.raises(Refused, match=re.escape(PREFIX + text)):
        await cp.register(claim(dataplane=spec(**networking)))
    assert not await registered(store)
    await cp.stop()


async def test_a_missing_mesh_is_refused(cp, store):
    await store.apply(Delete(mesh()))
    with pytest.raises(Refused, match="mesh of name default is not found"):
        await cp.register(claim())


async def test_the_zone_of_the_control_plane_is_stored(store, clock):
    cp = registrar(store, clock, zone="east")
    await cp.start()
    await cp.register(claim())
    tags = (await store.get(dataplane("a"))).spec["networking"]["inbound"][0]["tags"]
    assert tags["kuma.io/zone"] == "east"
    await cp.stop()


async def test_streams_hear_that_an_operator_deleted_the_dataplane(cp, store, hub, clock):
    ended = []
    hold = await cp.register(claim(ended=ended.append))
    await store.apply(Delete(dataplane("a")))
    hub.fire(lease("a"), None)
    await settle()
    assert ended == ['Dataplane "default.a" was deleted']
    await cp.release(hold, Ending.LEFT)
    await cp.register(claim())
    await clock.advance(100)
    assert await registered(store)


async def test_old_news_about_a_lease_ends_nothing(cp, store, hub):
    ended = []
    await cp.register(claim(ended=ended.append))
    hub.fire(lease("a"), None)
    await settle()
    assert ended == []


async def test_a_conflict_is_tried_again_and_a_fight_is_given_up(cp, store):
    apply, conflicts = store.apply, 3

    async def contended(*operations):
        nonlocal conflicts
        if conflicts and any(isinstance(one, Put) and one.key == dataplane("a") for one in operations):
            conflicts -= 1
            await apply(Put(dataplane("a"), {"networking": {**SPEC["networking"], "address": f"10.1.0.{conflicts}"}}))
        return await apply(*operations)

    store.apply = contended
    await cp.register(claim())
    assert (await store.get(dataplane("a"))).spec == SPEC
    conflicts = 200
    with pytest.raises(Refused, match="written by others"):
        await cp.register(claim(dataplane=spec(address="10.0.0.9")))


async def test_a_store_that_is_away_delays_a_deletion(cp, store, clock):
    hold = await cp.register(claim())
    apply = store.apply

    async def away(*operations):
        raise StoreUnavailable("disk on fire")

    store.apply = away
    await cp.release(hold, Ending.LEFT)
    await clock.advance(5)
    assert await registered(store)
    store.apply = apply
    await clock.advance(2)
    assert not await registered(store)


async def test_a_storm_of_registrations_is_committed_in_groups(tmp_path, clock):
    store = await SqlStore.open(tmp_path, clock)
    await store.apply(Put(mesh(), {}))
    cp = registrar(store, clock)
    await cp.start()
    commits = 0
    commit = store._writer._commit

    def counted(group):
        nonlocal commits
        commits += 1
        return commit(group)

    store._writer._commit = counted
    await asyncio.gather(*(cp.register(_named(n)) for n in range(200)))
    assert (await store.list("Dataplane")).total == 200
    assert commits <= 60
    await cp.stop()
    await store.close()


def _named(n):
    made = claim()
    return type(made)(PROXY._replace(name=f"dp-{n}"), made.dataplane)


@pytest.mark.parametrize("turns", range(12))
async def test_a_stream_that_comes_while_another_goes_keeps_the_dataplane(cp, other, store, clock, turns):
    hold = await cp.register(claim())

    async def come():
        for _ in range(turns):
            await asyncio.sleep(0)
        await other.register(claim())

    await asyncio.gather(cp.release(hold, Ending.LEFT), come())
    await clock.advance(100)
    assert await registered(store)
    assert (await stored_lease(store)).instance == "cp-2"


@pytest.mark.parametrize("turns", range(12))
async def test_a_stream_that_comes_at_the_very_deadline_is_registered(cp, other, store, clock, turns):
    await cp.release(await cp.register(claim()), Ending.LEFT)
    clock.jump(2)

    async def come():
        for _ in range(turns):
            await asyncio.sleep(0)
        await other.register(claim())

    await asyncio.gather(cp._expire(PROXY, (await stored_lease(store)).epoch), come())
    await clock.advance(100)
    assert await registered(store)


async def test_two_instances_at_once_agree_on_one_lease(cp, other, store, clock):
    holds = await asyncio.gather(*(one.register(claim()) for one in (cp, other, cp, other)))
    winner = (await stored_lease(store)).instance
    loser, losing = (other, holds[1::2]) if winner == "cp-1" else (cp, holds[::2])
    for hold in losing:
        await loser.release(hold, Ending.LEFT)
    await clock.advance(100)
    assert await registered(store)
    assert (await stored_lease(store)).instance == winner

"""What the insight of a proxy says about its streams (R §9.1, §9.2), and how seldom it is written."""

import pytest

from snapshot.cache import type_url
from snapshot.model.meta import ProxyKey
from tests.support.clock import FakeClock, settle
from tests.support.stores import dataplane, insight, mesh
from xds_server.insights import BATCH, Insights
from xds_server.store import Delete, MemoryStore, Put, StoreUnavailable

A = ProxyKey("default", "a")
START = "2022-04-05T12:00:00Z"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def store(clock):
    made = MemoryStore(clock)
    await made.apply(Put(mesh(), {}), *(Put(dataplane(name), {}) for name in "ab"))
    return made


@pytest.fixture
def writes(store):
    """The number of operations of each batch that is applied from now on."""
    seen, apply = [], store.apply

    async def counted(*operations):
        seen.append(len(operations))
        return await apply(*operations)

    store.apply = counted
    return seen


@pytest.fixture
async def insights(store, clock):
    made = Insights(store, clock, instance_id="cp-1")
    await made.start()
    yield made
    await made.stop()


async def subscriptions(store, name="a"):
    stored = await store.get(insight(name))
    return stored.spec.get("subscriptions", []) if stored else None


async def test_a_stream_is_written_at_once_with_its_version(insights, store):
    version = {"kumaDp": {"version": "1.5.1"}, "envoy": {"version": "1.22.1"}, "dependencies": {"coredns": "1.8.3"}}
    insights.opened(A, version)
    await settle()
    [subscription] = await subscriptions(store)
    assert len(subscription.pop("id")) == 36
    assert subscription == {
        "controlPlaneInstanceId": "cp-1",
        "connectTime": START,
        "status": {"total": {}, "cds": {}, "eds": {}, "lds": {}, "rds": {}},
        "version": version,
    }
    assert (await store.get(insight("a"))).owner == dataplane("a")


async def test_a_version_that_cannot_be_read_is_left_out(insights, store):
    insights.opened(A, {"kumaDp": 7})
    await settle()
    assert "version" not in (await subscriptions(store))[0]


async def test_responses_and_answers_are_counted_by_type_and_in_total(insights, store, clock):
    stream = insights.opened(A)
    await clock.advance(2)
    for url in (type_url.CLUSTER, type_url.ENDPOINT, type_url.LISTENER, type_url.ROUTE, type_url.SECRET):
        stream.sent(url)
    stream.acknowledged(type_url.CLUSTER)
    stream.rejected(type_url.LISTENER)
    await clock.advance(2)
    assert (await subscriptions(store))[0]["status"] == {
        "lastUpdateTime": "2022-04-05T12:00:02Z",
        "total": {"responsesSent": "5", "responsesAcknowledged": "1", "responsesRejected": "1"},
        "cds": {"responsesSent": "1", "responsesAcknowledged": "1"},
        "eds": {"responsesSent": "1"},
        "lds": {"responsesSent": "1", "responsesRejected": "1"},
        "rds": {"responsesSent": "1"},
    }


async def test_all_changes_of_a_second_are_one_write(insights, store, clock, writes):
    streams = [insights.opened(A), insights.opened(A._replace(name="b"))]
    await settle()
    for _ in range(100):
        for stream in streams:
            stream.sent(type_url.CLUSTER)
        await clock.advance(0.01)
    await clock.advance(0.5)
    assert writes == [2, 2]
    await clock.advance(100)
    assert writes == [2, 2]


async def test_insights_leave_no_entry_in_the_log(insights, store, clock):
    head = await store.head()
    insights.opened(A)
    await clock.advance(2)
    assert await store.head() == head


async def test_a_stream_that_ends_gets_its_time(insights, store, clock):
    stream = insights.opened(A)
    await clock.advance(5)
    stream.closed()
    await clock.advance(5)
    assert (await subscriptions(store))[0]["disconnectTime"] == "2022-04-05T12:00:05Z"
    assert insights._subscriptions == {}


async def test_a_new_stream_ends_the_older_one_and_two_are_kept(insights, store, clock):
    for _ in range(4):
        insights.opened(A).sent(type_url.CLUSTER)
        await clock.advance(10)
    kept = await subscriptions(store)
    assert [one["connectTime"][14:19] for one in kept] == ["00:20", "00:30"]
    assert [one.get("disconnectTime", "")[14:19] for one in kept] == ["00:30", ""]


async def test_a_proxy_stays_online_as_long_as_any_stream_lives(insights, store, clock):
    insights.opened(A)
    await clock.advance(10)
    newer = insights.opened(A)
    await clock.advance(10)
    newer.closed()
    await clock.advance(10)
    kept = await subscriptions(store)
    assert ["disconnectTime" in one for one in kept] == [False, True]


async def test_without_a_dataplane_there_is_no_insight(insights, store, clock):
    insights.opened(A._replace(name="nobody"))
    stream = insights.opened(A)
    await clock.advance(5)
    await store.apply(Delete(dataplane("a")))
    stream.sent(type_url.CLUSTER)
    await clock.advance(5)
    assert (await store.list("DataplaneInsight")).total == 0


async def test_a_dataplane_that_goes_between_reading_and_writing_holds_up_nobody(insights, store, clock):
    get_many = store.get_many

    async def then_deleted(keys):
        found = await get_many(keys)
        await store.apply(Delete(dataplane("b"), missing_ok=True))
        return found

    store.get_many = then_deleted
    insights.opened(A)
    insights.opened(A._replace(name="b"))
    await clock.advance(5)
    assert (await store.list("DataplaneInsight")).total == 1


async def test_what_another_instance_wrote_is_kept_and_ended(store, clock):
    first, second = (Insights(store, clock, instance_id=f"cp-{n}") for n in (1, 2))
    old = first.opened(A)
    await first._flush()
    clock.jump(10)
    second.opened(A)
    await second._flush()
    old.closed()  # late
    await first._flush()
    assert [(one["controlPlaneInstanceId"], "disconnectTime" in one) for one in await subscriptions(store)] == [
        ("cp-1", True),
        ("cp-2", False),
    ]


async def test_stopping_closes_every_stream(store, clock):
    made = Insights(store, clock, instance_id="cp-1")
    await made.start()
    made.opened(A)
    await made.stop()
    assert (await subscriptions(store))[0]["disconnectTime"] == START


async def test_streams_of_a_dead_process_are_closed_at_the_next_start(store, clock):
    dead, alive = (Insights(store, clock, instance_id=name) for name in ("cp-dead", "cp-alive"))
    dead.opened(A)
    alive.opened(A._replace(name="b"))
    await dead._flush()
    await alive._flush()

    async def instance_alive(instance_id):
        return instance_id == "cp-alive"

    clock.jump(60)
    after = Insights(store, clock, instance_id="cp-2", instance_alive=instance_alive)
    await after.start()
    await settle()
    assert (await subscriptions(store, "a"))[0]["disconnectTime"] == "2022-04-05T12:01:00Z"
    assert "disconnectTime" not in (await subscriptions(store, "b"))[0]
    await after.stop()


async def test_a_store_that_is_away_loses_no_count(insights, store, clock):
    apply = store.apply

    async def away(*operations):
        raise StoreUnavailable("disk on fire")

    store.apply = away
    insights.opened(A).sent(type_url.CLUSTER)
    await clock.advance(5)
    assert await subscriptions(store) is None
    store.apply = apply
    await clock.advance(2)
    assert (await subscriptions(store))[0]["status"]["total"] == {"responsesSent": "1"}


async def test_a_stored_insight_that_cannot_be_read_is_replaced(insights, store, clock):
    await store.apply(Put(insight("a"), {"subscriptions": 7}, owner=dataplane("a")))
    insights.opened(A)
    await clock.advance(2)
    assert len(await subscriptions(store)) == 1


async def test_a_large_fleet_is_written_in_parts_and_connects_go_first(store, clock, writes):
    names = [f"p{n}" for n in range(BATCH + 10)]
    await store.apply(*(Put(dataplane(name), {}) for name in names))
    writes.clear()
    insights = Insights(store, clock, instance_id="cp-1")
    await insights.start()
    streams = [insights.opened(A._replace(name=name)) for name in names]
    await clock.advance(0.5)
    assert writes == [BATCH]
    await clock.advance(1)
    assert writes == [BATCH, 10]
    await clock.advance(1)
    for stream in streams:
        stream.sent(type_url.CLUSTER)
    insights.opened(A)
    await clock.advance(0.1)
    assert await subscriptions(store) is not None
    await insights.stop()

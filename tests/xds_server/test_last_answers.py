"""What lies in the store is brought to what is in use and answered: in batches, only differences, whatever fails."""

import asyncio
import socket

import pytest

from snapshot.engine.engine import Engine
from snapshot.model.meta import ResourceKey
from tests.support.clock import FakeClock
from tests.support.stores import dataplane, mesh
from xds_server.last_answers import BATCH, RESOLVED_NAME_TYPE, RETRY_S, LastAnswers
from xds_server.reconciler import Reconciler
from xds_server.resolver import Resolver
from xds_server.store import Delete, MemoryStore, Put, StoreUnavailable


def key(name):
    return ResourceKey(RESOLVED_NAME_TYPE, "", name)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def batches():
    return []


@pytest.fixture
def store(clock, batches, monkeypatch):
    """Remembers how many operations each batch had."""
    made = MemoryStore(clock)
    apply = made.apply

    async def remembered(*operations):
        batches.append(len(operations))
        return await apply(*operations)

    monkeypatch.setattr(made, "apply", remembered)
    return made


@pytest.fixture
def in_use():
    return {f"n{number}" for number in range(BATCH + 1)}


@pytest.fixture
async def answers(store, clock, in_use):
    made = LastAnswers(store, clock, in_use)
    made.start()
    yield made
    await made.stop()


async def stored(store):
    return {one.key.name: one.spec["address"] for one in (await store.list(RESOLVED_NAME_TYPE)).items}


async def test_many_answers_are_few_writes_and_wake_no_follower(answers, store, clock, in_use, batches):
    for name in in_use:
        answers.answered(name, "192.0.2.1")
    await clock.advance(1)
    assert batches == [BATCH, 1]
    assert await stored(store) == dict.fromkeys(in_use, "192.0.2.1")
    assert await store.head() == 0


async def test_only_what_differs_is_written(answers, store, clock, batches):
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"):
        answers.answered("n1", address)
        answers.mark("n2")
        await clock.advance(1)
    assert batches == [1, 1]
    assert answers.known(["n1", "n2"]) == {"n1": "192.0.2.2"}


async def test_what_nobody_uses_any_more_and_what_cannot_be_read_is_put_right_at_the_start(store, clock, in_use):
    left = {"n1": "192.0.2.1", "unused": "192.0.2.2", "n3": "web.example", "unused-too": 7}
    await store.apply(*(Put(key(name), {"address": address}) for name, address in left.items()), Put(key("n4"), {}))
    answers = LastAnswers(store, clock, in_use)
    answers.load((await store.snapshot())[1])
    assert answers.known(["n1", "n3", "n4"]) == {"n1": "192.0.2.1"}
    answers.start()
    answers.answered("n4", "192.0.2.4")
    await clock.advance(1)
    assert await stored(store) == {"n1": "192.0.2.1", "n4": "192.0.2.4"}
    await answers.stop()


@pytest.mark.parametrize("failure", [StoreUnavailable("disk full"), RuntimeError("a fault of ours")])
async def test_a_failed_write_is_tried_again(answers, store, clock, monkeypatch, failure):
    async def fails(*operations):
        raise failure

    with monkeypatch.context() as broken:
        broken.setattr(store, "apply", fails)
        answers.answered("n1", "192.0.2.1")
        await clock.advance(1)
    answers.answered("n2", "192.0.2.2")
    await clock.advance(RETRY_S)
    assert await stored(store) == {"n1": "192.0.2.1", "n2": "192.0.2.2"}


async def test_the_end_writes_what_was_gathered(answers, store):
    answers.answered("n1", "192.0.2.1")
    await answers.stop()
    assert await stored(store) == {"n1": "192.0.2.1"}


REASON = "Temporary failure in name resolution"


@pytest.fixture
def records():
    """What DNS answers: a name that is not there fails."""
    return {}


@pytest.fixture
async def control_plane(store, clock, records):
    """`await control_plane()`: a new one over the same store; the one before it ends first. Answers its engine."""
    running = []

    async def resolve(name):
        await asyncio.sleep(0)
        if name not in records:
            raise OSError(socket.EAI_AGAIN, REASON)
        return records[name]

    async def end():
        while running:
            await running.pop().stop()

    async def start():
        await end()
        engine = Engine()
        running.append(Reconciler(store, engine, Resolver(clock, ttl_s=10, resolve=resolve), clock))
        await running[0].start()
        return engine

    yield start
    await end()


def at(name, address):
    inbound = [{"port": 80, "tags": {"kuma.io/service": "web"}}]
    return Put(dataplane(name), {"networking": {"address": address, "inbound": inbound}})


async def test_the_last_answer_holds_over_restarts_until_there_is_a_newer_one(store, clock, records, control_plane):
    await store.apply(Put(mesh(), {}), at("a", "a.example"))
    records["a.example"] = "192.0.2.1"
    await control_plane()
    await clock.advance(1)
    del records["a.example"]
    for _ in range(2):
        engine = await control_plane()
        assert engine.world.names == {"a.example": "192.0.2.1"}, "at once"
        await clock.advance(30)
        assert engine.world.names == {"a.example": "192.0.2.1"}
        assert engine.world.failed_names == {"a.example": REASON}, "it is reported"
    assert (await store.get(key("a.example"))).version == 1, "nothing new was known, so nothing was written"
    records["a.example"] = "192.0.2.2"
    await clock.advance(10)
    assert (engine.world.names, engine.world.failed_names) == ({"a.example": "192.0.2.2"}, {})
    await clock.advance(1)
    assert await stored(store) == {"a.example": "192.0.2.2"}


async def test_a_name_that_does_not_answer_yet_has_what_is_known_before_the_first_push(store, clock):
    async def silent(_name):
        await asyncio.Event().wait()

    await store.apply(Put(mesh(), {}), at("a", "a.example"), Put(key("a.example"), {"address": "192.0.2.1"}))
    engine = Engine()
    reconciler = Reconciler(store, engine, Resolver(clock, timeout_s=60, resolve=silent), clock)
    await asyncio.wait_for(reconciler.start(), 5)
    assert engine.world.names == {"a.example": "192.0.2.1"}
    await reconciler.stop()


async def test_answers_follow_the_names_in_use_into_the_store_and_out_of_it(store, clock, records, control_plane):
    await control_plane()

    async def stored_after(*operations):
        await store.apply(*operations)
        await clock.advance(11)
        return await stored(store)

    assert await stored_after(Put(mesh(), {}), at("a", "a.example"), at("b", "a.example")) == {}
    records["a.example"] = "192.0.2.1"
    assert await stored_after() == {"a.example": "192.0.2.1"}
    assert await stored_after(Delete(dataplane("a"))) == {"a.example": "192.0.2.1"}
    assert await stored_after(at("b", "10.0.0.1")) == {}
    del records["a.example"]
    assert await stored_after(at("b", "a.example")) == {"a.example": "192.0.2.1"}, "the engine knows it still"


async def test_an_answer_that_another_control_plane_took_out_comes_back(store, clock, records, control_plane):
    await store.apply(Put(mesh(), {}), at("a", "a.example"))
    records["a.example"] = "192.0.2.1"
    await control_plane()
    await clock.advance(1)
    await store.apply(Delete(key("a.example")))
    await clock.advance(1)
    assert await stored(store) == {"a.example": "192.0.2.1"}

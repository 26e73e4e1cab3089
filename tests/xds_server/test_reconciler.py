"""From the log to the engine to the streams: when, in which batches, and what happens when something is broken."""

import asyncio

import pytest

from snapshot.cache.snapshot import Changes
from snapshot.engine.world import (
    NameFailed,
    NameResolved,
    NodeJoined,
    NodeLeft,
    Publication,
    ReachabilityChanged,
    ResourceGone,
    ResourcePut,
)
from snapshot.model.meta import ProxyKey, ResourceKey
from snapshot.topology.proxy import NodeInfo
from tests.support.clock import FakeClock, settle
from tests.support.stores import dataplane, insight, lease, mesh
from xds_server.reconciler import NODES_PER_PUSH, Reconciler
from xds_server.store import Delete, MemoryStore, Put, StoreUnavailable

A, B = ProxyKey("default", "a"), ProxyKey("default", "b")
NEWS = Changes({"type": frozenset({"name"})})
SPEC = {"networking": {"address": "10.0.0.1", "inbound": [{"port": 80, "tags": {"kuma.io/service": "web"}}]}}


def named(address):
    return {"networking": {**SPEC["networking"], "address": address}}


class FakeEngine:
    """Remembers the batches; tells every proxy in `news` at each."""

    def __init__(self):
        self.batches, self.news, self.poison = [], {}, None

    def apply(self, changes):
        if self.poison and any(self.poison(change) for change in changes):
            raise RuntimeError("poisoned")
        self.batches.append(list(changes))
        return Publication(self.news)

    def state(self, proxy):
        return f"state of {proxy.name}"

    def issues(self):
        return ()

    def issues_of(self, key):
        return ()

    @property
    def kinds(self):
        return [[type(change).__name__ for change in batch] for batch in self.batches]


class FakeNames:
    def __init__(self):
        self.used, self.waited = set(), []

    def start(self, tell, known):
        self.tell = tell

    def use(self, names):
        self.used = set(names)

    async def settled(self, names):
        self.waited.append(set(names))
        for name in sorted(names):
            self.tell(NameResolved(name, "192.0.2.1"))

    async def stop(self):
        pass


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def names():
    return FakeNames()


@pytest.fixture
def pushes():
    return []


@pytest.fixture
async def reconciler(store, engine, names, clock, pushes):
    made = Reconciler(store, engine, names, clock, observer=pushes.append)
    yield made
    await made.stop()


async def started(reconciler, engine):
    await reconciler.start()
    await settle()
    engine.batches.clear()


async def test_start_applies_everything_with_the_first_answers_of_names_in_one_batch(store, engine, names, reconciler):
    await store.apply(Put(mesh(), {}), Put(dataplane("a"), named("a.example")), Put(dataplane("b"), SPEC))
    await store.apply(Put(lease("b"), {"epoch": 1, "state": "vanished"}, owner=dataplane("b")))
    await reconciler.start()
    assert names.waited == [{"a.example"}]
    assert len(engine.batches) == 1
    assert {type(change) for change in engine.batches[0]} == {ResourcePut, NameResolved, ReachabilityChanged}
    assert ReachabilityChanged(B, reachable=False) in engine.batches[0]
    assert await reconciler.applied(4) == 4


@pytest.mark.rule("XP-124")
async def test_the_first_change_after_quiet_goes_out_at_once(store, engine, reconciler, clock):
    await started(reconciler, engine)
    before_s = clock.monotonic_s()
    await store.apply(Put(mesh(), {}))
    await settle()
    assert engine.kinds == [["ResourcePut"]]
    assert clock.monotonic_s() == before_s


async def test_the_changes_that_follow_are_gathered_for_10_ms_and_folded(store, engine, reconciler, clock):
    await started(reconciler, engine)
    await store.apply(Put(mesh(), {}))
    await settle()
    for n in range(100):
        await store.apply(Put(dataplane("a"), named(f"10.0.0.{n}")))
    await settle()
    assert len(engine.batches) == 1
    await clock.advance(0.011)
    assert len(engine.batches) == 2
    assert engine.batches[1][-1].resource.spec.networking.address == "10.0.0.99"
    await clock.advance(1)
    await store.apply(Put(mesh(), {}))
    await settle()
    assert len(engine.batches) == 3


@pytest.mark.parametrize(("build_s", "pause_s"), [(0.0, 0.010), (0.03, 0.03), (5.0, 0.1)])
async def test_the_pause_between_builds_grows_with_what_they_take(store, engine, reconciler, clock, build_s, pause_s):
    await started(reconciler, engine)
    apply = engine.apply

    def slow(changes):
        clock.jump(build_s)
        return apply(changes)

    engine.apply = slow
    await store.apply(Put(mesh(), {}))
    await settle()
    await store.apply(Put(mesh(), {}))
    await clock.advance(pause_s * 0.95)
    assert len(engine.batches) == 1
    await clock.advance(pause_s * 0.1)
    assert len(engine.batches) == 2


@pytest.mark.rule("XP-124")
async def test_while_connected_streams_wait_for_their_window_a_proxy_that_joins_is_served(
    store, engine, reconciler, clock
):
    await started(reconciler, engine)
    woken = []

    def slowly(news):
        clock.jump(0.3)
        woken.append(A)

    reconciler.join(A, NodeInfo(), slowly)
    engine.news = {A: NEWS}
    await settle()
    for n in (1, 2):  # the first is told at once and opens a window of 0.3 s; the second waits for it
        seq = (await store.apply(Put(dataplane("a"), named(f"10.0.0.{n}")))).seq
        await clock.advance(0.02)
    assert woken == [A, A]
    applied = asyncio.create_task(reconciler.applied(seq))
    reconciler.join(B, NodeInfo(), lambda _news: woken.append(B))
    engine.news = {A: NEWS, B: NEWS}
    await clock.advance(0.05)
    assert woken == [A, A, B]
    assert not applied.done()  # A does not know yet
    await clock.advance(0.7)
    assert woken == [A, A, B, A]
    assert await applied == seq


async def test_applied_returns_when_the_streams_were_woken(store, engine, reconciler):
    await started(reconciler, engine)
    woken = []
    engine.news = {A: NEWS}
    reconciler.join(A, NodeInfo(), woken.append)
    await settle()
    woken.clear()
    seq = (await store.apply(Put(mesh(), {}))).seq
    waiting = asyncio.create_task(reconciler.applied(seq))
    await settle()
    assert not waiting.done()  # within the window of the join
    await reconciler._clock.advance(0.02)
    assert await waiting == seq
    assert woken == [NEWS]


async def test_many_joins_are_one_batch_and_every_handle_is_woken(engine, reconciler, clock):
    await started(reconciler, engine)
    woken = []
    engine.news = {A: NEWS, B: NEWS}
    handles = [reconciler.join(proxy, NodeInfo(), lambda news, p=proxy: woken.append(p)) for proxy in (A, A, B)]
    await settle()
    assert engine.kinds == [["NodeJoined", "NodeJoined"]]
    assert woken == [A, A, B]
    assert handles[0].state() == "state of a"


async def test_a_node_stays_until_its_last_stream_leaves(engine, reconciler, clock):
    await started(reconciler, engine)
    old = reconciler.join(A, NodeInfo(), lambda news: None)
    await clock.advance(1)
    new = reconciler.join(A, NodeInfo(admin_port=1), lambda news: None)
    await clock.advance(1)
    reconciler.leave(old)
    reconciler.leave(old)
    await clock.advance(1)
    reconciler.leave(new)
    await clock.advance(1)
    assert engine.batches == [[NodeJoined(A, NodeInfo())], [NodeJoined(A, NodeInfo(admin_port=1))], [NodeLeft(A)]]


async def test_what_the_newest_of_the_streams_that_stay_said_of_the_node_is_in_force(engine, reconciler, clock):
    await started(reconciler, engine)
    said = [NodeInfo(admin_port=9901), NodeInfo(admin_port=9902), NodeInfo()]
    assert reconciler.node(A) is None
    first, second, short = [reconciler.join(A, node, lambda news: None) for node in said]
    await clock.advance(1)
    in_force = [reconciler.node(A)]
    for leaving in (short, short, first, second):
        reconciler.leave(leaving)
        await clock.advance(1)
        in_force.append(reconciler.node(A))
    assert in_force == [said[2], said[1], said[1], said[1], None]
    assert engine.batches == [[NodeJoined(A, said[2])], [NodeJoined(A, said[1])], [NodeLeft(A)]]


async def test_a_node_that_leaves_and_comes_back_within_a_window_never_left(engine, reconciler, clock):
    await started(reconciler, engine)
    handle = reconciler.join(A, NodeInfo(), lambda news: None)
    await settle()
    reconciler.leave(handle)
    reconciler.join(A, NodeInfo(), lambda news: None)
    await clock.advance(1)
    assert engine.kinds == [["NodeJoined"], ["NodeJoined"]]


async def test_a_listener_that_raises_does_not_keep_others_from_waking(store, engine, reconciler):
    await started(reconciler, engine)
    woken = []
    engine.news = {A: NEWS, B: NEWS}

    def broken(news):
        raise RuntimeError("broken listener")

    reconciler.join(A, NodeInfo(), broken)
    reconciler.join(B, NodeInfo(), woken.append)
    await settle()
    assert woken == [NEWS]


async def test_what_does_not_decode_is_reported_and_skipped(store, engine, reconciler, clock):
    await started(reconciler, engine)
    await store.apply(Put(dataplane("a"), {"networking": {"address": 7}}), Put(dataplane("b"), SPEC))
    await clock.advance(1)
    assert [[change.resource.key for change in batch] for batch in engine.batches] == [[dataplane("b")]]
    assert [issue.object for issue in reconciler.issues()] == [dataplane("a")]
    assert "networking.address" in reconciler.issues_of(dataplane("a"))[0].reason
    await store.apply(Put(dataplane("a"), SPEC))
    await clock.advance(1)
    assert reconciler.issues() == ()


async def test_types_that_decide_nothing_are_not_applied(store, engine, reconciler, clock):
    await started(reconciler, engine)
    await store.apply(Put(dataplane("a"), SPEC), Put(insight("a"), {}, owner=dataplane("a")))
    await store.apply(Put(dataplane("a")._replace(type="Secret"), {"data": "YQ=="}))
    await store.apply(Put(dataplane("a")._replace(type="Nonsense"), {}))
    await clock.advance(1)
    assert engine.kinds == [["ResourcePut"]]


async def test_a_vanished_lease_makes_a_proxy_unreachable_and_any_other_state_reachable(
    store, engine, reconciler, clock
):
    await store.apply(Put(dataplane("a"), SPEC), Put(lease("a"), {"epoch": 1, "state": "held"}, owner=dataplane("a")))
    await started(reconciler, engine)
    for state in ("vanished", "vanished", "held", "leaving", "vanished"):
        await store.apply(Put(lease("a"), {"epoch": 1, "state": state}))
        await clock.advance(1)
    await store.apply(Delete(dataplane("a")))
    await clock.advance(1)
    gone, back = ReachabilityChanged(A, reachable=False), ReachabilityChanged(A, reachable=True)
    assert engine.batches == [[gone], [back], [gone], [back, ResourceGone(dataplane("a"))]]


async def test_names_in_use_follow_the_dataplanes_and_their_answers_reach_the_engine(
    store, engine, names, reconciler, clock
):
    await started(reconciler, engine)
    await store.apply(Put(dataplane("a"), named("a.example")), Put(dataplane("b"), named("a.example")))
    await clock.advance(1)
    assert names.used == {"a.example"}
    names.tell(NameFailed("a.example", "no"))
    await clock.advance(1)
    assert engine.batches[-1] == [NameFailed("a.example", "no")]
    await store.apply(Put(dataplane("a"), named("::1")))
    await clock.advance(1)
    assert names.used == {"a.example"}
    await store.apply(Delete(dataplane("b")))
    await clock.advance(1)
    assert names.used == set()


async def test_a_poisonous_change_is_retried_and_lets_the_others_through(store, engine, reconciler, clock, pushes):
    await started(reconciler, engine)
    engine.poison = lambda change: isinstance(change, ResourcePut) and change.resource.key == dataplane("a")
    await store.apply(Put(dataplane("a"), SPEC), Put(dataplane("b"), SPEC))
    await clock.advance(0.5)
    assert [[change.resource.key for change in batch] for batch in engine.batches] == [[dataplane("b")]]
    assert pushes[-1].publication is None
    engine.poison = None
    await clock.advance(6)
    assert [change.resource.key for change in engine.batches[-1]] == [dataplane("a")]
    engine.batches.clear()
    await store.apply(Put(mesh(), {}))
    await clock.advance(6)
    assert engine.kinds == [["ResourcePut"]]


async def test_while_the_store_is_away_what_was_good_is_served_and_it_catches_up(store, engine, reconciler, clock):
    await started(reconciler, engine)
    handle = reconciler.join(A, NodeInfo(), lambda news: None)
    await clock.advance(1)
    engine.batches.clear()
    changes = store.changes

    async def away(after, limit=0):
        raise StoreUnavailable("disk on fire")

    store.changes = away
    await store.apply(Put(mesh(), {}))
    await clock.advance(3)
    assert engine.batches == []
    assert handle.state() == "state of a"
    store.changes = changes
    await clock.advance(6)
    assert engine.kinds == [["ResourcePut"]]


async def test_after_a_trimmed_log_the_difference_to_the_snapshot_is_applied(engine, names, clock):
    store = MemoryStore(clock, kept_changes=2)
    await store.apply(Put(mesh(), {}), Put(dataplane("a"), SPEC))
    reconciler = Reconciler(store, engine, names, clock)
    await started(reconciler, engine)
    await store.apply(Delete(dataplane("a")), Put(dataplane("b"), SPEC), *(Put(mesh(f"m{n}"), {}) for n in range(3)))
    await clock.advance(1)
    applied = {getattr(change, "resource", change).key for change in engine.batches[-1]}
    assert applied == {dataplane("a"), dataplane("b"), mesh("m0"), mesh("m1"), mesh("m2")}
    assert await reconciler.applied(7) == 7
    await reconciler.stop()


async def test_watchers_hear_of_writes_and_deletes_until_they_stop(store, engine, reconciler, clock):
    await started(reconciler, engine)
    heard = []
    stop = reconciler.watch(lease("a"), lambda stored: heard.append(stored and stored.version))
    await store.apply(Put(lease("a"), {"epoch": 1}), Put(lease("b"), {"epoch": 1}))
    await clock.advance(1)
    await store.apply(Delete(lease("a")))
    await clock.advance(1)
    stop()
    await store.apply(Put(lease("a"), {"epoch": 2}))
    await clock.advance(1)
    assert heard == [1, None]


async def test_the_newest_dataplane_can_be_asked_for(store, engine, reconciler, clock):
    await started(reconciler, engine)
    await store.apply(Put(dataplane("a"), SPEC))
    await clock.advance(1)
    assert reconciler.dataplane(A).networking.address == "10.0.0.1"
    await store.apply(Delete(dataplane("a")))
    await clock.advance(1)
    assert reconciler.dataplane(A) is None


async def test_a_storm_of_joins_is_built_in_parts_without_long_windows(engine, reconciler, clock):
    await started(reconciler, engine)
    proxies = [A._replace(name=f"p{n}") for n in range(NODES_PER_PUSH * 2 + 1)]
    apply = engine.apply

    def slow(changes):
        clock.jump(0.3)
        apply(changes)
        return Publication({change.proxy: NEWS for change in changes})

    engine.apply = slow
    for proxy in proxies:
        reconciler.join(proxy, NodeInfo(), lambda news: None)
    await clock.advance(0.95)
    assert [len(batch) for batch in engine.batches] == [NODES_PER_PUSH, NODES_PER_PUSH, 1]


async def test_names_that_never_answer_do_not_hold_up_the_start(store, engine, names, clock, monkeypatch):
    monkeypatch.setattr("xds_server.reconciler.FIRST_ANSWERS_S", 0.02)
    await store.apply(Put(dataplane("a"), named("a.example")))

    async def never(names):
        await asyncio.Event().wait()

    names.settled = never
    reconciler = Reconciler(store, engine, names, clock)
    await asyncio.wait_for(reconciler.start(), 5)
    assert engine.kinds == [["ResourcePut"]]
    await reconciler.stop()


async def test_deleting_a_policy_named_like_a_proxy_leaves_the_proxys_dataplane_known(store, reconciler, clock):
    timeout = ResourceKey("Timeout", "default", "a")
    await reconciler.start()
    await store.apply(Put(mesh("default"), {}), Put(dataplane("a"), SPEC), Put(timeout, {}))
    await clock.advance(1)
    applied = await store.apply(Delete(timeout))
    await clock.advance(1)
    await reconciler.applied(applied.seq)
    assert reconciler.dataplane(A) is not None


async def test_a_handle_knows_since_when_its_news_were_waiting(store, engine, reconciler, clock):
    engine.news = {A: NEWS}
    await reconciler.start()
    handle = reconciler.join(A, NodeInfo(), lambda _changes: None)
    await settle()
    await clock.advance(1)
    await store.apply(Put(dataplane("a"), SPEC))
    await settle()
    first_s = clock.monotonic_s()
    await store.apply(Put(dataplane("b"), SPEC))
    await settle()
    await store.apply(Put(dataplane("c"), SPEC))
    await clock.advance(0.5)
    assert handle.news_since_s == first_s, "the oldest of the changes that were gathered counts"
    assert reconciler.waiting == (0, 0)

"""Any interleaving of connects, closes, late closes, restarts and time, on two instances over one store.

A live proxy's Dataplane is never deleted; a gone one always goes; only the newest epoch writes.
"""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.clock import FakeClock
from tests.support.registration import PATIENCE, claim, registered, registrar, seeded, stored_lease
from xds_server.registration import Ending
from xds_server.registration.lease import State

INSTANCES = st.integers(0, 1)
CLOSES = st.sampled_from([Ending.LEFT, Ending.VANISHED])
STEPS = st.one_of(
    st.tuples(st.just("connect"), INSTANCES),
    st.tuples(st.just("close_newest"), CLOSES),
    st.tuples(st.just("close_old"), st.integers(0, 5), CLOSES),
    st.tuples(st.just("kill"), INSTANCES),
    st.tuples(st.just("shut_down"), INSTANCES),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 1.0, 3.0, 20.0, 40.0])),
)


class Story:
    """One proxy that is real, and what must be true of it."""

    def __init__(self, store, clock, run_id):
        self.store, self.clock, self.run_id = store, clock, run_id
        self.instances, self.starts = {}, 0
        self.old, self.newest = [], None
        self.cut_at_s = None  # when a control plane's end cut the newest stream
        self.epoch = 0

    async def start(self, place):
        self.starts += 1
        made = registrar(self.store, self.clock, instance=f"cp-{place}-{self.starts}")
        await made.start()
        self.instances[place] = made

    async def connect(self, place):
        hold = await self.instances[place].register(claim(run_id=self.run_id))
        if self.newest is not None:
            self.old.append(self.newest)
        self.newest, self.cut_at_s = (place, hold), None

    async def close_newest(self, how):
        if self.newest is not None:
            (place, hold), self.newest = self.newest, None
            await self.instances[place].release(hold, how)

    async def close_old(self, index, how):
        if self.old:
            place, hold = self.old.pop(index % len(self.old))
            await self.instances[place].release(hold, how)

    async def kill(self, place):
        await self.instances[place].stop()
        self.old = [stream for stream in self.old if stream[0] != place]
        if self.newest is not None and self.newest[0] == place:
            self.newest, self.cut_at_s = None, self.clock.monotonic_s()
        await self.start(place)

    async def shut_down(self, place):
        streams = [stream for stream in (*self.old, self.newest) if stream and stream[0] == place]
        for _, hold in streams:
            await self.instances[place].release(hold, Ending.SHUTDOWN)
        await self.kill(place)

    async def check(self):
        if self.newest is not None:
            lease = await stored_lease(self.store)
            assert await registered(self.store)
            assert lease.state is State.HELD
            assert lease.instance == self.instances[self.newest[0]]._instance_id
            assert lease.epoch >= self.epoch
            self.epoch = lease.epoch
        elif self.cut_at_s is not None and self.clock.monotonic_s() - self.cut_at_s < PATIENCE.restart_grace_s:
            assert await registered(self.store)

    async def end(self):
        await self.close_newest(Ending.LEFT)
        while self.old:
            await self.close_old(0, Ending.LEFT)
        await self.clock.advance(PATIENCE.cleanup_age_s + 200)
        assert not await registered(self.store)
        assert await stored_lease(self.store) is None
        for made in self.instances.values():
            await made.stop()
            assert made._proxies == {}


async def play(steps, run_id):
    clock = FakeClock()
    story = Story(await seeded(clock), clock, run_id)
    await story.start(0)
    await story.start(1)
    for name, *arguments in steps:
        if name == "pass":
            await clock.advance(*arguments)
        else:
            await getattr(story, name)(*arguments)
        await story.check()
    await story.end()


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=15), run_id=st.sampled_from(["", "run-1"]))
def test_any_interleaving(steps, run_id):
    asyncio.run(play(steps, run_id))

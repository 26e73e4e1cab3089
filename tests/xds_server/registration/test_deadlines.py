"""One timer for all deadlines."""

import pytest

from snapshot.model.meta import ProxyKey
from tests.support.clock import FakeClock
from xds_server.registration.deadlines import SLACK, Deadlines

A, B = ProxyKey("m", "a"), ProxyKey("m", "b")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def due():
    return []


@pytest.fixture
async def deadlines(clock, due):
    async def note(proxy, epoch):
        due.append((proxy, epoch, clock.monotonic_s() - 1000))
        if epoch == 13:
            raise RuntimeError("unlucky")

    made = Deadlines(clock, note)
    made.start()
    yield made
    await made.stop()


async def test_each_comes_at_its_time_and_once(deadlines, clock, due):
    deadlines.set(A, 1, 5)
    await clock.advance(1)
    deadlines.set(B, 2, 1)
    await clock.advance(100)
    assert due == [(B, 2, 2), (A, 1, 5)]


async def test_a_new_deadline_replaces_the_old_and_a_dropped_one_never_comes(deadlines, clock, due):
    deadlines.set(A, 1, 5)
    deadlines.set(A, 2, 10)
    deadlines.set(B, 3, 5)
    deadlines.drop(B)
    assert (deadlines.epoch_of(A), deadlines.epoch_of(B)) == (2, None)
    await clock.advance(100)
    assert due == [(A, 2, 10)]


async def test_one_that_fails_does_not_stop_the_others(deadlines, clock, due):
    deadlines.set(A, 13, 1)
    deadlines.set(B, 2, 2)
    await clock.advance(5)
    assert [proxy for proxy, _, _ in due] == [A, B]


async def test_a_proxy_that_comes_and_goes_for_ever_costs_nothing(deadlines):
    for epoch in range(10_000):
        deadlines.set(A, epoch, 72 * 3600)
        deadlines.drop(A)
    assert len(deadlines._heap) <= SLACK + 3

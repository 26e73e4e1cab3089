"""A mark that only grows, and those who wait for it."""

import asyncio

import pytest

from tests.support.clock import settle
from xds_server.changes import Watermark


async def test_waiters_return_when_the_mark_is_above_theirs():
    mark = Watermark(3)
    assert await mark.above(2) == 3
    early, late = asyncio.create_task(mark.above(3)), asyncio.create_task(mark.above(5))
    await settle()
    mark.advance(5)
    await settle()
    assert early.result() == 5
    assert not late.done()
    mark.advance(4)
    assert mark.value == 5
    mark.advance(7)
    assert await late == 7


async def test_a_cancelled_waiter_leaves_nothing_behind():
    mark = Watermark()
    for _ in range(100):
        task = asyncio.create_task(mark.above(0))
        await settle(2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert mark._waiting == []


async def test_failure_reaches_those_who_wait_and_those_who_come():
    mark = Watermark(1)
    waiting = asyncio.create_task(mark.above(1))
    await settle()
    mark.fail(RuntimeError("over"))
    for call in (waiting, mark.above(1)):
        with pytest.raises(RuntimeError, match="over"):
            await call
    assert await mark.above(0) == 1

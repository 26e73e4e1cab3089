"""Who is woken when, and what withheld news are folded into."""

import asyncio

import pytest

from snapshot.cache.snapshot import Changes
from snapshot.model.meta import ProxyKey
from snapshot.topology.proxy import NodeInfo
from tests.support.clock import FakeClock
from xds_server.fan_out import PER_TURN, FanOut, NodeHandle

A, B = ProxyKey("default", "a"), ProxyKey("default", "b")


def news(*names, url="type"):
    return Changes({url: frozenset(names)})


class States:
    def state(self, proxy):
        return f"state of {proxy.name}"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def fan_out(clock):
    return FanOut(clock)


@pytest.fixture
def join(fan_out):
    def joined(proxy, listener):
        handle = NodeHandle(proxy, NodeInfo(), listener, States())
        fan_out.add(handle)
        return handle

    return joined


async def test_the_first_news_of_a_proxy_are_told_within_a_window_those_that_follow_after_it(fan_out, join, clock):
    heard = []
    join(A, lambda changes: heard.append(("a", changes)))
    await fan_out.offer({A: news("1")}, 0)
    await fan_out.offer({A: news("2")}, 0)
    join(B, lambda changes: heard.append(("b", changes)))
    await fan_out.offer({A: news("3"), B: news("4")}, 0)
    assert heard == [("a", news("1")), ("a", news("2")), ("b", news("4"))]
    assert fan_out.waiting == 1
    clock.jump(fan_out.due_in_s)
    await fan_out.offer({}, 0)
    assert heard[3:] == [("a", news("3"))]
    assert fan_out.due_in_s is None


async def test_withheld_news_are_folded_and_as_old_as_the_oldest(fan_out, join, clock):
    heard = []
    handle = join(A, heard.append)
    await fan_out.offer({A: news()}, 0)
    await fan_out.offer({A: news("told")}, 1.0)
    for since_s, changes in ((2.0, news("x")), (3.0, news("y")), (4.0, news("z", url="other"))):
        await fan_out.offer({A: changes}, since_s)
    clock.jump(1)
    await fan_out.offer({A: news("now")}, 5.0)
    assert heard[2:] == [Changes({"type": frozenset("xy") | {"now"}, "other": frozenset("z")})]
    assert handle.news_since_s == 2.0


async def test_equal_news_withheld_for_many_proxies_stay_one_object(fan_out, join, clock):
    heard = []
    proxies = [ProxyKey("default", f"p{n}") for n in range(100)]
    for proxy in proxies:
        join(proxy, heard.append)
    for name in ("first", "told"):
        await fan_out.offer(dict.fromkeys(proxies, news(name)), 0)
    for name in ("x", "y"):
        await fan_out.offer(dict.fromkeys(proxies, news(name)), 0)
    clock.jump(1)
    await fan_out.offer({}, 0)
    assert len({id(changes) for changes in heard[200:]}) == 1


async def test_what_a_proxy_that_left_was_not_told_is_forgotten(fan_out, join):
    first, last = [join(A, lambda _changes: None) for _ in range(2)]
    for name in ("first", "told", "withheld"):
        await fan_out.offer({A: news(name)}, 0)
    for handle, waiting in ((first, 1), (first, 1), (last, 0), (last, 0)):
        fan_out.remove(handle)
        assert fan_out.waiting == waiting


@pytest.mark.rule("XP-124")
@pytest.mark.parametrize(
    ("turn_s", "joined", "window_s"),
    [
        (0.0, 0, 0.010),
        (0.06, 0, 0.06),
        (5.0, 0, 1.0),
        (0.0, 1, 0.010),
        (0.0, 4, 0.012 * 7 / 3),
        (0.0, 500, 0.018 * 7 / 3),
        (0.06, 500, 0.06),
    ],
)
async def test_the_window_grows_with_what_waking_takes_and_with_the_proxies_that_join_meanwhile(
    fan_out, join, clock, turn_s, joined, window_s
):
    told = [ProxyKey("default", f"p{n}") for n in range(100)]
    for proxy in told:
        join(proxy, lambda _changes: clock.jump(turn_s / 100))
    await fan_out.offer(dict.fromkeys(told, news("first")), 0)
    await fan_out.offer({told[0]: news("joins so far")}, 0)
    clock.jump(2)
    new = [ProxyKey("default", f"new{n}") for n in range(joined)]
    for proxy in new:
        join(proxy, lambda _changes: None)
    await fan_out.offer(dict.fromkeys(new, news("first")), 0)
    await fan_out.offer(dict.fromkeys(told, news("told")), 0)
    await fan_out.offer({told[0]: news("withheld")}, 0)
    assert fan_out.due_in_s == pytest.approx(max(window_s, 0.010))


async def test_many_proxies_are_told_in_groups_so_that_no_turn_of_the_loop_is_long(fan_out, join, clock):
    turn, told = 0, []
    proxies = [ProxyKey("default", f"p{number}") for number in range(2 * PER_TURN + 50)]
    for proxy in proxies:
        join(proxy, lambda _changes, p=proxy: told.append((turn, p)))
    await fan_out.offer({proxy: news("first") for proxy in proxies}, 0)
    told.clear()
    clock.jump(5)
    offering = asyncio.ensure_future(fan_out.offer({proxy: news("1") for proxy in proxies}, 0))
    while not offering.done():
        await asyncio.sleep(0)
        turn += 1
    turns = [turn for turn, _ in told]
    assert [turns.count(one) for one in sorted(set(turns))] == [PER_TURN, PER_TURN, 50]
    assert [proxy for _, proxy in told] == proxies

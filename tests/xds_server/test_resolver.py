"""Names in use are resolved, and resolved again every TTL; failures keep the last answer (R §1.2)."""

import asyncio
import socket

import pytest

from snapshot.engine.world import NameFailed, NameResolved
from tests.support.clock import FakeClock, settle
from xds_server.resolver import PARALLEL, Resolver, SystemResolve


class Zone:
    """Answers from a table; counts questions."""

    def __init__(self, **records):
        self.records, self.asked = records, []

    async def __call__(self, name):
        self.asked.append(name)
        answer = self.records.get(name)
        if answer is None:
            raise OSError(socket.EAI_NONAME, "Name or service not known")
        return answer


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def news():
    return []


@pytest.fixture
async def resolver(clock, zone, news):
    made = Resolver(clock, ttl_s=10, resolve=zone)
    made.start(news.append, {})
    yield made
    await made.stop()


@pytest.fixture
def zone():
    return Zone(a="192.0.2.1", b="192.0.2.2")


async def test_a_new_name_is_resolved_at_once_and_again_each_ttl(resolver, zone, news, clock):
    resolver.use({"a"})
    await settle()
    assert news == [NameResolved("a", "192.0.2.1")]
    await clock.advance(9.9)
    assert zone.asked == ["a"]
    await clock.advance(20)
    assert zone.asked == ["a", "a", "a"]
    assert len(news) == 1


async def test_a_changed_answer_is_news(resolver, zone, news, clock):
    resolver.use({"a"})
    await settle()
    zone.records["a"] = "192.0.2.9"
    await clock.advance(10)
    assert news[1:] == [NameResolved("a", "192.0.2.9")]


async def test_a_failure_is_told_once_and_so_is_its_end(resolver, zone, news, clock):
    resolver.use({"a"})
    await settle()
    del zone.records["a"]
    await clock.advance(30)
    zone.records["a"] = "192.0.2.1"
    await clock.advance(10)
    assert news[1:] == [NameFailed("a", "Name or service not known"), NameResolved("a", "192.0.2.1")]


async def test_what_is_known_is_no_news_until_another_answer_comes(clock, zone, news):
    resolver = Resolver(clock, ttl_s=10, resolve=zone)
    resolver.start(news.append, {"a": "192.0.2.1", "b": "192.0.2.7", "nowhere": "192.0.2.8"})
    resolver.use({"a", "b", "nowhere"})
    await settle()
    assert news == [NameResolved("b", "192.0.2.2"), NameFailed("nowhere", "Name or service not known")]
    await resolver.stop()


async def test_unknown_names_are_asked_for_first_and_only_they_are_waited_for(clock, news):
    asked, gate = [], asyncio.Event()

    async def slow(name):
        asked.append(name)
        if name == "known":
            await gate.wait()
        return "192.0.2.1"

    resolver = Resolver(clock, timeout_s=60, resolve=slow)
    resolver.start(news.append, {"known": "192.0.2.7"})
    resolver.use({"known", "new"})
    await asyncio.wait_for(resolver.settled({"known", "new"}), 5)
    assert asked == ["new", "known"]
    assert news == [NameResolved("new", "192.0.2.1")]
    await resolver.stop()


async def test_only_names_in_use_are_asked_for(resolver, zone, news, clock):
    resolver.use({"a", "b"})
    await settle()
    resolver.use({"b"})
    zone.asked.clear()
    await clock.advance(10)
    assert zone.asked == ["b"]
    resolver.use({"a", "b"})
    await settle()
    assert news[-1] == NameResolved("a", "192.0.2.1")


async def test_settled_waits_for_first_answers_and_failures(resolver, zone):
    resolver.use({"a", "nowhere"})
    await asyncio.wait_for(resolver.settled({"a", "nowhere", "unused"}), 5)
    assert sorted(zone.asked) == ["a", "nowhere"]


async def test_questions_have_a_time_out_and_bounded_company(clock, news):
    running, most = 0, 0

    async def never(name):
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.Event().wait()
        finally:
            running -= 1

    resolver = Resolver(clock, timeout_s=0.02, resolve=never)
    resolver.start(news.append, {})
    names = {f"n{n}" for n in range(PARALLEL + 5)}
    resolver.use(names)
    await asyncio.wait_for(resolver.settled(names), 5)
    assert most == PARALLEL
    assert {type(answer) for answer in news} == {NameFailed}
    assert news[0].reason == "no answer within 0.02 s"
    await resolver.stop()


async def test_a_slow_name_is_asked_for_once_at_a_time(clock, news):
    asked, gate = [], asyncio.Event()

    async def slow(name):
        asked.append(name)
        await gate.wait()
        return "192.0.2.1"

    resolver = Resolver(clock, timeout_s=60, resolve=slow)
    resolver.start(news.append, {})
    resolver.use({"a"})
    await clock.advance(35)
    assert asked == ["a"]
    gate.set()
    await settle()
    assert news == [NameResolved("a", "192.0.2.1")]
    await resolver.stop()


async def test_the_system_answers_ipv4_first(monkeypatch):
    answers = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answers)
    resolve = SystemResolve()
    assert await resolve("both.example") == "192.0.2.7"
    del answers[1:]
    assert await resolve("six.example") == "2001:db8::1"
    resolve.close()


async def test_localhost_resolves_through_the_system():
    resolve = SystemResolve()
    assert await resolve("localhost") in {"127.0.0.1", "::1"}
    resolve.close()


async def test_a_label_that_cannot_be_encoded_is_a_failure(clock, news):
    resolver = Resolver(clock)
    resolver.start(news.append, {})
    resolver.use({"a..b"})
    await asyncio.wait_for(resolver.settled({"a..b"}), 5)
    assert isinstance(news[0], NameFailed)
    await resolver.stop()

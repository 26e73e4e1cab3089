"""Laws: whatever happens on a stream, nothing breaks, and when it is quiet the client has what it subscribed to."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapshot.cache.snapshot import Changes
from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER, ROUTE, WILDCARD_TYPES
from snapshot.stream import BodyCache, Close, DeltaRequest, Limits, Nack, Response, SotwRequest, Stream, Variant
from tests.support.conversation import IDENTIFIER, Node, Received, decode, resource

TYPES = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
NAMES = ("a", "b", "c")
EXAMPLES = int(os.environ.get("KOGUMA_EXAMPLES", "100"))
LIMITS = Limits(part_bytes=300, first_wildcard_bytes=600)


@dataclass
class Client:
    """One type of a client that keeps what responses say, as Envoy and gRPC do."""

    type_url: str
    variant: Variant
    names: frozenset[str] = frozenset()
    wildcard: bool = False
    named: bool = False
    asked: bool = False
    held: dict[str, tuple[str, str]] = field(default_factory=dict)
    version: str = ""
    nonce: str = ""
    unanswered: list[str] = field(default_factory=list)

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def apply(self, received: Received) -> None:
        taken = {name: each for name, each in received.resources.items() if self.wants(name)}
        if self.variant is Variant.SOTW and self.type_url in WILDCARD_TYPES:
            self.held = taken
        else:
            self.held.update(taken)
            for name in received.removed:
                self.held.pop(name, None)
        self.nonce, self.version = received.nonce, received.version
        self.unanswered.append(received.nonce)

    def lists(self, names: frozenset[str]) -> None:
        """SotW: a whole list."""
        self.named |= bool(names)
        self.wildcard = "*" in names or (not self.named and self.type_url in WILDCARD_TYPES)
        self.names = names - {"*"}
        self.held = {name: each for name, each in self.held.items() if self.wants(name)}
        self.version = ""

    def changes(self, subscribe: frozenset[str], unsubscribe: frozenset[str]) -> None:
        """Delta: names come and go."""
        self.named |= bool(subscribe)
        if not self.named and self.type_url in WILDCARD_TYPES and not self.asked:
            self.wildcard = True
        self.wildcard = (self.wildcard or "*" in subscribe) and "*" not in unsubscribe
        self.names = (self.names | subscribe) - unsubscribe - {"*"}
        self.asked, self.named = True, self.named or "*" in unsubscribe
        self.held = {name: each for name, each in self.held.items() if self.wants(name)}


class Story:
    """A node, a stream to it, and a client at the end of a slow wire."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.node = Node()
        self.now_s = 0.0
        self.nonces = map(str, itertools.count(1))
        self.clients = {type_url: Client(type_url, variant) for type_url in TYPES}
        self.connect()

    def connect(self) -> None:
        self.wire: list[Response] = []
        self.stream = Stream(
            self.variant, identifier=IDENTIFIER, nonces=lambda: next(self.nonces), bodies=BodyCache(), limits=LIMITS
        )
        self.stream.attach(self.node)

    def reconnect(self) -> None:
        """The client asks again for what it wanted, and says what it has."""
        self.connect()
        for client in self.clients.values():
            client.unanswered, client.nonce = [], ""
            if not client.asked:
                continue
            explicit = {"*"} if client.wildcard and (client.names or client.type_url not in WILDCARD_TYPES) else set()
            client.named = bool(client.names or explicit)
            names = tuple(sorted(client.names | explicit))
            if not names and not client.wildcard and client.type_url in WILDCARD_TYPES:
                client.asked = False
                client.held = {}
                continue
            if self.variant is Variant.SOTW:
                self.say(SotwRequest(client.type_url, names, client.version))
            else:
                claims = {name: version for name, (_, version) in client.held.items()}
                self.say(DeltaRequest(client.type_url, names, initial_versions=claims))

    def say(self, request: SotwRequest | DeltaRequest) -> None:
        effects = self.stream.receive(request, self.now_s)
        assert not any(isinstance(effect, Close) for effect in effects)
        self.settle()

    def settle(self) -> None:
        while (response := self.stream.next_response(self.now_s)) is not None:
            assert isinstance(response, Response)
            self.wire.append(response)
        self.stream.check_invariants()

    def deliver(self, count: int) -> None:
        arrived, self.wire = self.wire[:count], self.wire[count:]
        for response in arrived:
            self.clients[response.type_url].apply(decode(self.variant, response))

    def publish(self, type_url: str, name: str, content: str) -> None:
        if content:
            eds = name if type_url == CLUSTER else ""
            self.node.put(resource(type_url, name, content, eds))
        else:
            self.node.resources[type_url].pop(name, None)
        self.stream.published(Changes({type_url: frozenset({name})}), self.now_s)
        self.settle()

    def subscribe(self, type_url: str, more: frozenset[str], fewer: frozenset[str], nonce: str) -> None:
        client = self.clients[type_url]
        nonce = client.nonce if nonce == "last" else nonce
        if self.variant is Variant.SOTW:
            names = more
            client.asked = True
            client.lists(names)
            self.say(SotwRequest(type_url, tuple(names), nonce=nonce))
        else:
            client.changes(more, fewer)
            self.say(DeltaRequest(type_url, tuple(more), tuple(fewer), nonce=nonce))

    def answer(self, type_url: str, *, refuse: bool) -> None:
        client = self.clients[type_url]
        if not client.unanswered:
            return
        nonce = client.unanswered.pop(0)
        error = Nack(3, "no" * 5000) if refuse else None
        listed = tuple(client.names | ({"*"} if client.wildcard and client.named else set()))
        if self.variant is Variant.SOTW:
            self.say(SotwRequest(type_url, listed, client.version, nonce, error))
        else:
            self.say(DeltaRequest(type_url, nonce=nonce, error=error))

    def pass_time(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while (wake_at_s := self.stream.wake_at_s()) is not None and wake_at_s <= until_s:
            assert wake_at_s > self.now_s
            self.now_s = wake_at_s
            self.settle()
        self.now_s = until_s
        self.settle()

    def calm_down(self) -> None:
        """Everything arrives and is acknowledged, until nobody has anything to say."""
        for _ in range(100):
            self.deliver(len(self.wire))
            for client in self.clients.values():
                while client.unanswered:
                    self.answer(client.type_url, refuse=False)
            if not self.wire:
                self.pass_time(30)
                if not self.wire:
                    return
        raise AssertionError("the stream never comes to rest")

    def check(self) -> None:
        for client in self.clients.values():
            expected = {
                name: each.version
                for name, each in self.node.resources[client.type_url].items()
                if client.asked and client.wants(name)
            }
            if self.variant is Variant.DELTA:
                assert {name: version for name, (_, version) in client.held.items()} == expected
                continue
            held = {
                name: resource(client.type_url, name, content, name if client.type_url == CLUSTER else "").version
                for name, (content, _) in client.held.items()
            }
            if client.type_url not in WILDCARD_TYPES:
                held = {name: version for name, version in held.items() if name in self.node.names(client.type_url)}
            assert held == expected
        assert self.stream.wake_at_s() is None


names = st.sampled_from(NAMES)
sets = st.frozensets(st.sampled_from((*NAMES, "*", "absent", "")), max_size=3)
types = st.sampled_from(TYPES)
nonces = st.sampled_from(("last", "last", "", "1", "2", "garbage"))
publish = st.tuples(st.just("publish"), types, names, st.sampled_from(("", "1", "2", "3" * 40)))
subscribe = st.tuples(st.just("subscribe"), types, sets, sets, nonces)
deliver = st.tuples(st.just("deliver"), st.integers(1, 3))
ack = st.tuples(st.just("ack"), types)
nack = st.tuples(st.just("nack"), st.sampled_from((CLUSTER, ENDPOINT)))
nack_any = st.tuples(st.just("nack"), types)
time = st.tuples(st.just("time"), st.sampled_from((0.1, 1.0, 5.0)))
reconnect = st.just(("reconnect",))


def act(story: Story, operation: tuple) -> None:
    match operation:
        case ("publish", type_url, name, content):
            story.publish(type_url, name, content)
        case ("subscribe", type_url, more, fewer, nonce):
            story.subscribe(type_url, more, fewer, nonce)
        case ("deliver", count):
            story.deliver(count)
        case ("ack", type_url):
            story.answer(type_url, refuse=False)
        case ("nack", type_url):
            story.answer(type_url, refuse=True)
        case ("time", seconds):
            story.pass_time(seconds)
        case ("reconnect",):
            story.reconnect()


def start(variant: Variant) -> Story:
    """As a proxy begins: two wildcards and some names."""
    story = Story(variant)
    for type_url, name in itertools.product(TYPES, ("a", "b")):
        story.publish(type_url, name, "1")
    for type_url in (CLUSTER, LISTENER):
        story.subscribe(type_url, frozenset(), frozenset(), "")
    for type_url in (ENDPOINT, ROUTE):
        story.subscribe(type_url, frozenset({"a", "b"}), frozenset(), "")
    return story


@pytest.mark.rule("XP-44", "XP-45", "XP-96", "XP-101", "XP-117", "XP-121", "XP-72", "XP-73", "XP-76", "XP-42")
@pytest.mark.parametrize("variant", list(Variant), ids=lambda variant: variant.value)
@given(
    operations=st.lists(st.one_of(publish, publish, publish, subscribe, deliver, deliver, ack, nack, time, reconnect))
)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_what_the_client_ends_up_with_is_the_state_it_subscribed_to(variant, operations):
    story = start(variant)
    for operation in operations:
        act(story, operation)
    story.calm_down()
    if variant is Variant.SOTW:
        for client in story.clients.values():
            # names of stale requests count from the next fresh one on
            listed = tuple(client.names | ({"*"} if client.wildcard and client.named else set()))
            if client.asked:
                story.say(SotwRequest(client.type_url, listed, client.version, client.nonce))
        story.calm_down()
    story.check()


@pytest.mark.rule("XP-46", "XP-57", "XP-112")
@pytest.mark.parametrize("variant", list(Variant), ids=lambda variant: variant.value)
@given(
    operations=st.lists(st.one_of(publish, subscribe, deliver, ack, nack_any, time, reconnect), min_size=8, max_size=40)
)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_sequence_breaks_a_stream(variant, operations):
    story = Story(variant)
    for operation in operations:
        act(story, operation)
    story.calm_down()
    story.stream.status()

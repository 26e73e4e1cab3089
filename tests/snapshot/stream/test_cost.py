"""Work in proportion to what changed: counted in questions to the state, not in seconds."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import Changes
from snapshot.cache.type_url import CLUSTER, ENDPOINT
from snapshot.stream import BodyCache, DeltaRequest, SotwRequest, Stream, Variant
from tests.support.conversation import IDENTIFIER, Node, decode, resource


class CountingNode(Node):
    """Counts what the stream asks."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def get(self, type_url: str, name: str) -> XdsResource | None:
        self.asked += 1
        return super().get(type_url, name)

    def names(self, type_url: str) -> Collection[str]:
        self.asked += 1
        return super().names(type_url)


def connected(variant: Variant, count: int) -> tuple[Stream, CountingNode]:
    node = CountingNode()
    names = tuple(f"r{number}" for number in range(count))
    for name in names:
        node.put(resource(CLUSTER, name, "1"))
        node.put(resource(ENDPOINT, name, "1"))
    nonces = map(str, range(1, 10_000))
    stream = Stream(variant, identifier=IDENTIFIER, nonces=lambda: next(nonces), bodies=BodyCache())
    stream.attach(node)
    request = DeltaRequest if variant is Variant.DELTA else SotwRequest
    types = (request(CLUSTER), request(ENDPOINT, names))
    for each in types:
        stream.receive(each, 0)
    held = 0
    while (response := stream.next_response(0)) is not None:
        received = decode(variant, response)
        held += len(received.resources)
        listed = () if variant is Variant.DELTA or response.type_url == CLUSTER else names
        stream.receive(request(response.type_url, listed, nonce=response.nonce), 0)
    assert held == 2 * count
    stream.check_invariants()
    return stream, node


def questions(variant: Variant, type_url: str, count: int) -> int:
    stream, node = connected(variant, count)
    node.put(resource(type_url, "r7", "2"))
    node.asked = 0
    stream.published(Changes({type_url: frozenset({"r7"})}), 1)
    response = stream.next_response(1)
    assert decode(variant, response).resources["r7"][0] == "2"
    assert stream.next_response(1) is None
    return node.asked


@pytest.mark.rule("XP-135", "XP-77")
@pytest.mark.parametrize("type_url", [CLUSTER, ENDPOINT], ids=["cds", "eds"])
def test_one_change_of_many_in_delta_does_not_look_at_the_others(type_url):
    assert questions(Variant.DELTA, type_url, 10_000) == questions(Variant.DELTA, type_url, 100) < 10


@pytest.mark.rule("XP-135", "XP-70")
def test_one_change_of_many_endpoints_in_sotw_does_not_look_at_the_others():
    assert questions(Variant.SOTW, ENDPOINT, 10_000) == questions(Variant.SOTW, ENDPOINT, 100) < 10


@pytest.mark.rule("XP-127")
@pytest.mark.parametrize("variant", list(Variant), ids=lambda variant: variant.value)
def test_nothing_changed_asks_nothing(variant):
    stream, node = connected(variant, 100)
    node.asked = 0
    assert stream.next_response(1) is None
    stream.published(Changes({ENDPOINT: frozenset({"somebody-else's"})}), 1)
    assert stream.next_response(1) is None
    assert node.asked <= 2 if variant is Variant.SOTW else node.asked == 0


@pytest.mark.rule("XP-118", "XP-117")
@pytest.mark.parametrize("variant", list(Variant), ids=lambda variant: variant.value)
def test_a_client_that_reads_nothing_costs_marks_only(variant):
    stream, node = connected(variant, 100)
    for number in range(1000):
        node.put(resource(CLUSTER, "r7", str(number)))
        stream.published(Changes({CLUSTER: frozenset({"r7"})}), 1)
    watch = stream._watches[CLUSTER]
    assert watch.dirty == {"r7"}
    assert len(watch.outstanding) <= 1
    response = stream.next_response(2)
    assert decode(variant, response).resources["r7"][0] == "999"
    assert stream.next_response(2) is None


def test_a_client_that_never_answers_is_bounded():
    stream, _ = connected(Variant.DELTA, 2)
    for _ in range(100):
        stream.receive(DeltaRequest(ENDPOINT, ("r0",)), 1)
        assert stream.next_response(1) is not None
    stream.check_invariants()
